//! What happens to leases by themselves, and that the log hears of it.

use std::time::Duration;

use super::world::{A, B, LIMITS, World, agent, allow, deny, is, person, uses};
use crate::audit::OutcomeResult::{Failed, Issued, Withheld};
use crate::audit::RecordKind;
use crate::broker::Acquire;
use crate::lease::LeaseLimits;
use crate::request::AccessKind;
use crate::resolver::ResolveError;
use crate::testing;

#[tokio::test]
async fn a_handle_is_renewed_before_its_end_and_lives_on_to_it() {
    let world = World::new(uses(9));
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    world.vault.set(A, "canary-new");
    world.advance(47).await;
    assert_eq!(lease.read(), [""; 0]);
    world.advance(1).await;
    assert_eq!(lease.read(), ["renewed op://v/one/a"]);
    assert_eq!(world.redeem(&lease.handles[0]).await.as_deref(), Ok("canary-a"));
    assert_eq!(world.redeem(&lease.handles[1]).await.as_deref(), Ok("canary-new"));
    assert_eq!(world.reasons(RecordKind::Renew), ["POLICY_PERMIT"]);

    world.advance(12).await;
    assert_eq!(world.redeem(&lease.handles[0]).await, Err("inactive HANDLE_EXPIRED".to_owned()));
    assert!(world.redeem(&lease.handles[1]).await.is_ok());
    assert_eq!(world.reasons(RecordKind::HandleExpire), ["END_EXPIRY"]);
    world.advance(36).await;
    assert_eq!(lease.read(), ["renewed op://v/one/a"], "and so on");
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_spent_handle_is_not_renewed() {
    let world = World::new(allow);
    let (mut early, mut late) = (world.acquire(&[A]).await, world.acquire(&[A]).await);
    assert!(world.redeem(&early.issued()[0]).await.is_ok());
    world.clock.advance(Duration::from_secs(48));
    world.broker.leases().expire_due();
    assert!(world.redeem(&late.issued()[0]).await.is_ok(), "when its renewal is due already");
    world.advance(11).await;
    assert_eq!((early.read(), late.read()), (vec![], vec![]), "the leases outlive their last redeem");
    world.advance(2).await;
    let ended = || vec!["ended Expiry".to_owned(), "closed".to_owned()];
    assert_eq!((early.read(), late.read()), (ended(), ended()), "but not the life of their handles");
    assert_eq!(world.vault.reads().len(), 2);
    drop((early, late));
    world.finish().await;
}

/// Two agents, one with many handles that end sooner: the other's renewal does not wait for them.
#[tokio::test]
async fn renewals_are_shared_among_agents() {
    let limits = LeaseLimits { leases_per_agent_max: 1000, leases_max: 1000, ..LIMITS };
    let world = World::bounded(limits, allow);
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(world.acquire(&[A]).await);
    }
    let ask = world.ask(&[A]);
    let call = testing::call(agent("other"));
    let other = world.try_acquire(Acquire { call, agent: testing::agent("other"), ..ask }).await.unwrap();
    world.clock.advance(Duration::from_secs(48));
    world.broker.leases().expire_due();
    let due = world.broker.leases().wait_renewable().await;
    let of = |name: &str| due.iter().filter(|it| it.request.agent.to_string() == name).count();
    assert_eq!((of("bot"), of("other")), (32, 1));
    drop((crowd, other));
    world.finish().await;
}

#[tokio::test]
async fn many_are_renewed_at_once_though_some_have_died() {
    let limits = LeaseLimits { leases_per_agent_max: 1000, leases_max: 1000, ..LIMITS };
    let world = World::bounded(limits, allow);
    let mut leases = Vec::new();
    for _ in 0..700 {
        leases.push(world.acquire(&[A]).await);
    }
    world.clock.advance(Duration::from_secs(48));
    world.broker.leases().expire_due();
    drop(leases.split_off(400));
    world.keep().await;
    for lease in &mut leases {
        assert_eq!(lease.read().last().map(String::as_str), Some("renewed op://v/one/a"));
    }
    drop(leases);
    world.finish().await;
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_again() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    world.vault.set_error(Some(ResolveError::Unavailable));
    world.advance(48).await;
    assert_eq!(lease.read(), [""; 0]);
    world.vault.set_error(None);
    world.advance(5).await;
    assert_eq!(lease.read(), [""; 0]);
    world.advance(1).await;
    assert_eq!(lease.read(), ["renewed op://v/one/a"]);
    world.advance(6).await;
    assert_eq!(world.reasons(RecordKind::HandleExpire), ["END_EXPIRY"]);
    let failed = (Failed, Some("RESOLVER_UNAVAILABLE"));
    assert_eq!(world.outcomes(), [(Issued, None), failed, (Issued, None)]);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_lease_that_cannot_be_renewed_ends_with_its_last_handle() {
    let world = World::new(uses(9));
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    world.vault.set_error(Some(ResolveError::Unavailable));
    world.advance(47).await;
    for _ in 0..103 {
        world.clock.advance(Duration::from_millis(125));
        world.keep().await;
    }
    assert!(world.redeem(&lease.handles[0]).await.is_ok(), "good to the end");
    // After 48, 54, 57, 58.5, 59.25 and 59.625 s: again and again, but not for ever.
    assert_eq!(world.reasons(RecordKind::Renew).len(), 6);
    world.advance(1).await;
    assert_eq!(lease.read(), ["ended Unavailable", "closed"]);
    assert_eq!(world.reasons(RecordKind::HandleExpire), ["END_UNAVAILABLE"]);
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_UNAVAILABLE"]);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_renewal_that_policy_refuses_is_not_tried_again() {
    let world = World::new(deny(|request| request.kind == AccessKind::Renew));
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    for _ in 0..60 {
        world.advance(1).await;
    }
    assert_eq!(lease.read(), ["ended Policy", "closed"]);
    assert_eq!(world.reasons(RecordKind::Renew), ["POLICY_NO_PERMIT"]);
    assert_eq!(world.vault.reads().len(), 1, "what is refused is not fetched");
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_renewal_looks_up_what_the_reference_means_now() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    world.vault.remove(A);
    world.advance(48).await;
    assert_eq!(world.outcomes(), [(Issued, None), (Failed, Some("ITEM_NOT_FOUND"))]);
    assert_eq!(world.vault.reads().len(), 1);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn nothing_is_renewed_unrecorded() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    world.log.set_broken(true);
    world.advance(48).await;
    assert_eq!((lease.read(), world.vault.reads().len()), (vec![], 1));
    world.log.set_broken(false);
    world.advance(6).await;
    assert_eq!(lease.read(), ["renewed op://v/one/a"]);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_renewal_under_a_change_of_policy_is_decided_again() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    world.change_later(allow);
    world.advance(48).await;
    assert_eq!(lease.read(), [""; 0]);
    world.advance(6).await;
    assert_eq!(lease.read(), ["renewed op://v/one/a"]);
    let changed = (Withheld, Some("POLICY_CHANGED"));
    assert_eq!(world.outcomes(), [(Issued, None), changed, (Issued, None)]);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_renewal_of_a_handle_that_was_revoked_meanwhile_comes_to_nothing() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A, B]).await;
    lease.read();
    world.change_later(deny(is(A)));
    world.advance(48).await;
    world.advance(6).await;
    assert_eq!(lease.read(), ["revoked op://v/one/a Policy", "renewed op://v/one/b"]);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn without_renewal_a_lease_ends_with_its_last_handle() {
    let world = World::new(allow);
    let minute = world.ask(&[A]).life;
    let mut lease = world.acquire(&[A, B]).await;
    lease.read();
    world.clock.advance(minute.duration());
    world.keep().await;
    assert_eq!(lease.read(), ["ended Expiry", "closed"]);
    assert_eq!(world.reasons(RecordKind::HandleExpire), ["END_EXPIRY"; 2]);
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_EXPIRY"]);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn dropping_the_events_ends_the_lease_at_once_and_is_recorded_once() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A, B]).await;
    lease.read();
    let id = lease.events.lease();
    drop(lease);
    assert_eq!(world.broker.leases().counts(), (0, 0));
    world.keep().await;
    world.advance(300).await;
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_DISCONNECT"]);
    assert_eq!(world.reasons(RecordKind::HandleExpire), [""; 0]);
    let record = world.log.records().pop().unwrap();
    assert_eq!((record.lease, record.agent), (Some(id), Some(testing::agent("bot"))));
    world.finish().await;
}

#[tokio::test]
async fn a_lease_is_ended_by_those_who_may() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    let id = lease.events.lease();
    for (caller, why) in [
        (agent("mallory"), Some("denied POLICY_NO_PERMIT")),
        (person(), None),
        (person(), Some("no lease POLICY_PERMIT")),
        (agent("mallory"), Some("denied POLICY_NO_PERMIT")),
    ] {
        let ended = world.broker.end_lease(&testing::call(caller), id).await;
        assert_eq!(ended.err().map(|refusal| world.why(&refusal)).as_deref(), why);
        world.broker.leases().assert_consistent();
    }
    assert_eq!(lease.read(), ["ended Caller", "closed"]);
    assert_eq!(world.redeem(&lease.handles[0]).await, Err("inactive HANDLE_REVOKED".to_owned()));
    drop(lease);
    world.keep().await;
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_CALLER"]);
    let asked = world.log.records().into_iter().filter(|record| record.kind == RecordKind::EndLease);
    let asked: Vec<_> = asked.map(|record| (record.reason.as_str(), record.lease)).collect();
    let (refused, allowed, failed) = ("POLICY_NO_PERMIT", "POLICY_PERMIT", "FAILED");
    // The second time there is no lease any more, which the record of the act cannot know.
    assert_eq!(asked, [refused, allowed, allowed, failed, refused].map(|reason| (reason, Some(id))));
    world.finish().await;
}

#[tokio::test]
async fn a_reader_that_stalls_is_cut_and_recorded_without_delay() {
    let world = World::new(allow);
    let (mut stalled, mut brisk) = (world.acquire(&[A]).await, world.acquire(&[B]).await);
    stalled.read();
    for _ in 0..34 {
        world.broker.drain(Duration::from_secs(1));
        brisk.read();
        world.keep().await;
    }
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_STALLED"]);
    assert_eq!(world.redeem(&stalled.handles[0]).await, Err("inactive HANDLE_REVOKED".to_owned()));
    let events = stalled.read();
    assert_eq!((events.len(), events.last().map(String::as_str)), (34, Some("closed")));
    assert!(world.redeem(&brisk.handles[0]).await.is_ok());
    drop((stalled, brisk));
    world.finish().await;
}

#[tokio::test]
async fn a_stop_ends_every_lease_and_has_written_that_down() {
    let world = World::new(allow);
    let (mut one, mut two) = (world.acquire(&[A]).await, world.acquire(&[B]).await);
    one.read();
    two.read();
    world.broker.stop().await.unwrap();
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_SHUTDOWN"; 2]);
    assert_eq!(one.read(), ["ended Shutdown", "closed"]);
    assert!(world.redeem(&two.handles[0]).await.is_err());
    let ask = Acquire { partial: true, ..world.ask(&[A]) };
    assert_eq!(world.why(&world.try_acquire(ask).await.err().unwrap()), "draining DRAINING");
    drop((one, two));
    world.finish().await;
}

#[tokio::test]
async fn what_happened_while_the_log_was_away_is_written_when_it_is_back() {
    let world = World::new(allow);
    let (one, two) = (world.acquire(&[A]).await, world.acquire(&[B]).await);
    world.log.set_broken(true);
    drop(one);
    world.keep().await;
    assert_eq!(world.reasons(RecordKind::LeaseEnd), [""; 0]);
    world.advance(70).await;
    assert!(world.broker.stop().await.is_err());
    world.log.set_broken(false);
    world.keep().await;
    world.advance(1).await;
    assert_eq!(world.reasons(RecordKind::HandleExpire), ["END_EXPIRY"]);
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_DISCONNECT", "END_EXPIRY"]);
    drop(two);
    world.finish().await;
}

#[tokio::test]
async fn a_writer_that_is_cancelled_loses_and_doubles_nothing() {
    let world = World::new(allow);
    drop(world.acquire(&[A]).await);
    tokio::select! {
        biased;
        () = world.broker.keep_leases() => {}
        () = std::future::ready(()) => {}
    }
    assert_eq!(world.reasons(RecordKind::LeaseEnd), [""; 0], "the log yields before it writes");
    world.keep().await;
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_DISCONNECT"]);
    world.finish().await;
}
