//! Acquiring: all or nothing, in part, refused, bounded, stopped.

use std::sync::Arc;
use std::time::Duration;

use super::world::{A, B, C, LIMITS, UNKNOWN, World, allow, deny, is};
use crate::audit::OutcomeResult::{Failed, Issued, Withheld};
use crate::audit::RecordKind;
use crate::broker::{Acquire, Refusal};
use crate::decision::Obligations;
use crate::lease::{EndCause, LeaseLimits};
use crate::request::Life;
use crate::resolver::ResolveError;

#[tokio::test]
async fn everything_allowed_is_issued_in_order() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A, C, B]).await;
    let issued = [A, C, B].map(|reference| format!("issued {reference}"));
    assert_eq!(lease.read(), [&["opened 3".to_owned()], issued.as_slice()].concat());
    assert_eq!(world.vault.reads().len(), 3);
    assert_eq!(world.outcomes(), [(Issued, None); 3]);
    for (handle, value) in lease.handles.iter().zip(["canary-a", "canary-c", "canary-b"]) {
        assert_eq!(world.redeem(handle).await.as_deref(), Ok(value));
    }
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn one_refusal_refuses_all_and_each_is_recorded() {
    let world = World::new(deny(is(B)));
    let refusal = world.try_acquire(world.ask(&[A, B, C])).await.err().unwrap();
    assert!(matches!(&refusal, Refusal::Denied { reference: Some(reference), .. } if &**reference == B));
    let reasons = ["POLICY_PERMIT", "POLICY_NO_PERMIT", "POLICY_PERMIT"];
    assert_eq!(world.reasons(RecordKind::Acquire), reasons);
    assert_eq!(world.outcomes(), [(Withheld, Some("LEASE_REFUSED")); 2]);
    assert_eq!(world.vault.reads(), [], "nothing was fetched");
    world.finish().await;
}

#[tokio::test]
async fn a_part_is_issued_where_a_part_will_do() {
    let world = World::new(deny(is(B)));
    let mut lease = world.acquire_partial(&[A, B, UNKNOWN, C]).await;
    let mut events = lease.read();
    events[2..].sort();
    let rest = ["issued op://v/one/a", "issued op://v/two/c", "refused op://v/none/x ITEM_NOT_FOUND"];
    assert_eq!(events, [&["opened 4", "refused op://v/one/b ACCESS_DENIED"], rest.as_slice()].concat());
    assert_eq!(world.vault.reads().len(), 2, "what is refused or unknown is not fetched");
    assert_eq!(world.broker.leases().counts(), (1, 2));
    world.change(|_| None);
    assert_eq!(lease.read().last().map(String::as_str), Some("closed"), "no place keeps it open");
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_part_that_is_nothing_is_a_refusal() {
    let world = World::new(|_| None);
    let ask = Acquire { partial: true, ..world.ask(&[A, B]) };
    let refusal = world.try_acquire(ask).await.err().unwrap();
    assert_eq!(world.why(&refusal), "denied POLICY_NO_PERMIT");
    world.finish().await;
}

#[tokio::test]
async fn a_lease_for_which_nothing_comes_ends() {
    let world = World::new(allow);
    world.vault.set_error(Some(ResolveError::Unavailable));
    let mut lease = world.acquire_partial(&[A, C]).await;
    let refused = [A, C].map(|reference| format!("refused {reference} RESOLVER_UNAVAILABLE"));
    let ended = ["ended Expiry".to_owned(), "closed".to_owned()];
    assert_eq!(lease.read(), [&["opened 2".to_owned()], refused.as_slice(), &ended].concat());
    world.finish().await;
}

#[tokio::test]
async fn what_does_not_exist_is_decided_first_and_never_fetched() {
    for (rule, why) in [(true, "unresolved ITEM_NOT_FOUND"), (false, "denied POLICY_NO_PERMIT")] {
        let world = World::new(move |_| rule.then(Obligations::default));
        let refusal = world.try_acquire(world.ask(&[A, UNKNOWN])).await.err().unwrap();
        let first_denied = world.try_acquire(world.ask(&[UNKNOWN])).await.err().unwrap();
        assert_eq!(world.why(&first_denied), why);
        assert_eq!(matches!(refusal, Refusal::Unresolved { .. }), rule);
        assert_eq!(world.vault.reads().len(), usize::from(rule), "the one that exists, at most");
        world.finish().await;
    }
}

#[tokio::test]
async fn a_refused_agent_cannot_tell_what_exists() {
    let world = World::new(|_| None);
    let mut said = Vec::new();
    for reference in [A, UNKNOWN] {
        match world.try_acquire(world.ask(&[reference])).await {
            Err(Refusal::Denied { denial, .. }) => said.push(denial.message()),
            _ => panic!("not denied"),
        }
    }
    assert_eq!(said[0], said[1]);
    world.finish().await;
}

#[tokio::test]
async fn one_failure_of_the_source_refuses_all() {
    let world = World::new(allow);
    let refusal = world.try_acquire(world.ask(&[A, UNKNOWN])).await.err().unwrap();
    assert!(matches!(&refusal, Refusal::Unresolved { error: ResolveError::ItemNotFound, reference, .. }
        if &**reference == UNKNOWN));
    assert_eq!(world.outcomes(), [(Withheld, Some("LEASE_REFUSED")), (Failed, Some("ITEM_NOT_FOUND"))]);
    world.finish().await;
}

#[tokio::test]
async fn without_a_log_nothing_is_fetched_or_issued() {
    let world = World::new(allow);
    world.log.set_broken(true);
    for partial in [false, true] {
        let ask = Acquire { partial, ..world.ask(&[A]) };
        assert_eq!(world.why(&world.try_acquire(ask).await.err().unwrap()), "no log");
    }
    assert_eq!((world.vault.reads().len(), world.log.outcomes().len()), (0, 0));
    world.log.set_broken(false);
    drop(world.acquire(&[A]).await);
    world.finish().await;
}

#[tokio::test]
async fn too_long_a_life_is_refused_rather_than_shortened() {
    let minute = Duration::from_secs(60);
    let world = World::new(move |_| Some(Obligations { ttl_max: Some(minute), ..Obligations::default() }));
    let ask = Acquire { life: Life::Asked(minute * 2), ..world.ask(&[A]) };
    assert_eq!(world.why(&world.try_acquire(ask).await.err().unwrap()), "denied POLICY_TTL");
    drop(world.acquire(&[A]).await);
    world.finish().await;
}

#[tokio::test]
async fn a_full_table_refuses_and_says_which_bound() {
    for (limits, why) in [
        (LeaseLimits { leases_max: 2, ..LIMITS }, "leases LEASE_LIMIT"),
        (LeaseLimits { leases_per_agent_max: 2, ..LIMITS }, "leases_per_agent: not recorded"),
        (LeaseLimits { handles_max: 5, ..LIMITS }, "handles LEASE_LIMIT"),
        (LeaseLimits { handles_per_agent_max: 5, ..LIMITS }, "handles_per_agent: not recorded"),
    ] {
        let world = World::bounded(limits, allow);
        let (first, _second) = (world.acquire(&[A, B]).await, world.acquire(&[A, B]).await);
        let refusal = world.try_acquire(world.ask(&[A, B])).await.err().unwrap();
        assert_eq!(world.why(&refusal), why);
        assert_eq!(world.vault.reads().len(), 4);
        drop(first);
        drop(world.acquire(&[A, B]).await);
        drop(_second);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_broker_that_drains_opens_no_lease() {
    let world = World::new(allow);
    let mut open = world.acquire(&[A]).await;
    world.broker.drain(Duration::from_secs(10));
    assert_eq!(open.read(), ["opened 1", "issued op://v/one/a", "draining"]);
    let refusal = world.try_acquire(world.ask(&[B])).await.err().unwrap();
    assert_eq!(world.why(&refusal), "draining DRAINING");
    assert_eq!(world.vault.reads().len(), 1);
    assert!(world.redeem(&open.handles[0]).await.is_ok(), "what is out stays good");
    drop(open);
    world.finish().await;
}

#[tokio::test]
async fn a_stop_while_a_lease_is_filled_ends_it() {
    let world = World::new(allow);
    let broker = Arc::clone(&world.broker);
    world.vault.on_next_read(move || broker.leases().end_all(EndCause::Shutdown));
    let mut lease = world.acquire(&[A, B]).await;
    assert_eq!(lease.read(), ["opened 2", "ended Shutdown", "closed"]);
    assert_eq!(world.outcomes(), [(Withheld, Some("LEASE_ENDED")); 2]);
    world.finish().await;
}

#[tokio::test]
async fn an_ended_lease_fetches_no_more() {
    let world = World::new(allow);
    let broker = Arc::clone(&world.broker);
    world.vault.on_next_read(move || broker.leases().end_all(EndCause::Caller));
    let mut lease = world.acquire_partial(&[A, C]).await;
    assert_eq!(lease.read(), ["opened 2", "ended Caller", "closed"]);
    assert_eq!(world.vault.reads().len(), 1, "the second item was not asked for");
    assert_eq!(world.outcomes(), [(Withheld, Some("LEASE_ENDED")); 2]);
    world.finish().await;
}

#[tokio::test]
async fn a_check_issues_nothing_and_is_recorded() {
    use crate::broker::{Check, CheckAnswer};
    let world = World::new(deny(is(B)));
    for (reference, allowed) in [(A, true), (B, false), (UNKNOWN, true)] {
        let Acquire { call, agent, tool, references, life, session, destination, .. } =
            world.ask(&[reference]);
        let reference = references.into_iter().next().unwrap();
        let ask = Check { call, agent, tool, reference, life, session, destination };
        let answer = world.broker.check(ask).await.ok().unwrap();
        assert_eq!(matches!(answer, CheckAnswer::Allow { .. }), allowed);
    }
    assert_eq!(world.reasons(RecordKind::Check).len(), 3);
    assert_eq!(world.vault.reads(), []);
    world.finish().await;
}
