//! Redeeming: once, by the right one, while the lease lives, and never unrecorded.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::super::Acquire;
use super::world::{A, B, World, agent, allow, deny, person, tool, uses};
use crate::audit::OutcomeResult::{Failed, Issued, Released};
use crate::audit::{RecordKind, Ruling};
use crate::decision::{Binding, Obligations, Redeemer};
use crate::handle::Handle;
use crate::identity::Identity;
use crate::lease::EndCause;
use crate::request::AccessKind;
use crate::secret::SecretValue;
use crate::testing;
use crate::text::Destination;

#[tokio::test]
async fn a_value_is_released_once() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    let handle = &lease.issued()[0];
    assert_eq!(world.redeem(handle).await.as_deref(), Ok("canary-a"));
    assert_eq!(world.redeem(handle).await, Err("inactive HANDLE_SPENT".to_owned()));
    assert_eq!(world.reasons(RecordKind::Redeem), ["POLICY_PERMIT", "HANDLE_SPENT"]);
    assert_eq!(world.outcomes(), [(Issued, None), (Released, None)]);
    assert_eq!(lease.read(), [""; 0], "a spent handle ends no lease");
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_released_value_leaves_its_digest_and_nothing_else_does() {
    let world = World::new(uses(2));
    let mut lease = world.acquire(&[A, B]).await;
    for place in [0, 1, 0, 0] {
        let _ = world.redeem(&lease.issued()[place]).await;
    }
    let [None, None, Some(a), Some(b), Some(again)] = world.digests()[..] else {
        panic!("two issued, three released: {:?}", world.digests())
    };
    assert!(a == again && a != b, "of equal values, and of those alone");
    let canary = SecretValue::new(b"canary-a".to_vec());
    assert_eq!(world.broker.digester().map(|digester| digester.digest(&canary)), Some(a));
    drop(lease);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_redeems_get_exactly_the_uses() {
    for allowed in [1, 3, 17] {
        let world = Arc::new(World::new(uses(allowed)));
        let mut lease = world.acquire(&[A]).await;
        let text: Arc<str> = lease.issued()[0].expose_secret().as_str().into();
        let released = Arc::new(AtomicUsize::new(0));
        let racers: Vec<_> = (0..64)
            .map(|_| {
                let (world, text, released) = (Arc::clone(&world), Arc::clone(&text), Arc::clone(&released));
                tokio::spawn(async move {
                    match world.redeem_text(tool(), &text).await {
                        Ok(_) => drop(released.fetch_add(1, Ordering::Relaxed)),
                        Err(why) => assert_eq!(why, "inactive HANDLE_SPENT"),
                    }
                })
            })
            .collect();
        for racer in racers {
            racer.await.unwrap();
        }
        assert_eq!(released.load(Ordering::Relaxed), allowed as usize);
        drop(lease);
        Arc::into_inner(world).unwrap().finish().await;
    }
}

#[tokio::test]
async fn only_the_one_it_was_issued_for_can_redeem() {
    let other_tool = Identity::Tool(testing::tool("other"));
    let by_tool = [(tool(), true), (other_tool, false), (agent("bot"), false), (person(), false)];
    let by_agent = [(agent("bot"), true), (agent("mallory"), false), (tool(), false), (person(), false)];
    for (redeemer, callers) in [(Redeemer::Tool, by_tool), (Redeemer::Agent, by_agent)] {
        let world = World::new(move |_| Some(Obligations { redeemer, ..Obligations::default() }));
        let mut lease = world.acquire(&[A]).await;
        let handle = lease.issued()[0].expose_secret();
        // The right one comes last: nobody else's attempt costs a use.
        for (caller, right) in callers.into_iter().rev() {
            let redeemed = world.redeem_text(caller, &handle).await;
            let expected = if right { Ok("canary-a") } else { Err("inactive HANDLE_REDEEMER") };
            assert_eq!(redeemed.as_deref().map_err(String::as_str), expected);
        }
        drop(lease);
        world.finish().await;
    }
}

/// Each row: with which key somebody redeems, and what comes of it. The agent acquires with key 1.
#[tokio::test]
async fn a_bound_handle_is_good_for_one_key() {
    let bound = "inactive HANDLE_BINDING";
    let by_tool =
        [(None, Err(bound)), (Some(7), Ok(())), (Some(8), Err(bound)), (None, Err(bound)), (Some(7), Ok(()))];
    let by_agent = [(None, Err(bound)), (Some(2), Err(bound)), (Some(1), Ok(())), (Some(1), Ok(()))];
    for (redeemer, who, rows) in
        [(Redeemer::Tool, tool(), by_tool.as_slice()), (Redeemer::Agent, agent("bot"), &by_agent)]
    {
        let terms =
            Obligations { uses: 2, redeemer, binding: Binding::Certificate, ..Obligations::default() };
        let world = World::new(move |_| Some(terms.clone()));
        let without = world.try_acquire(world.ask(&[A])).await.err().map(|refusal| world.why(&refusal));
        assert_eq!(without.as_deref(), Some("denied POLICY_BINDING"));
        let ask = Acquire { call: testing::call_with_key(agent("bot"), 1), ..world.ask(&[A]) };
        let mut lease = world.try_acquire(ask).await.ok().unwrap();
        let handle = lease.issued()[0].expose_secret();
        for (key, expected) in rows {
            let call = key
                .map_or_else(|| testing::call(who.clone()), |key| testing::call_with_key(who.clone(), key));
            let redeemed = world.redeem_by(&call, &handle).await.map(drop);
            assert_eq!(
                redeemed.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|it| *it),
                "{key:?}"
            );
        }
        let stolen =
            world.log.records().into_iter().find(|it| it.reason.as_str() == "HANDLE_BINDING").unwrap();
        assert!(stolen.detail.unwrap().starts_with("bound to the key "));
        assert_eq!((stolen.agent, stolen.caller), (Some(testing::agent("bot")), Some(who)));
        drop(lease);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_thief_and_the_holder_are_both_in_the_record() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    let handle = lease.issued()[0].expose_secret();
    let stolen = world.redeem_text(agent("mallory"), &handle).await;
    assert_eq!(stolen, Err("inactive HANDLE_REDEEMER".to_owned()));
    let record = world.log.records().pop().unwrap();
    assert_eq!((record.caller, record.agent), (Some(agent("mallory")), Some(testing::agent("bot"))));
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn what_is_no_handle_of_ours_releases_nothing() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    let whole = lease.issued()[0].expose_secret();
    let forged = with_secret_of(&whole, &testing::handle().expose_secret());
    assert!(Handle::parse(&forged).is_ok());
    for (text, why) in [
        (forged.as_str(), "inactive HANDLE_FORGED"),
        (&testing::handle().expose_secret(), "inactive HANDLE_UNKNOWN"),
        (&whole[..60], "malformed HANDLE_MALFORMED"),
        ("", "malformed HANDLE_MALFORMED"),
    ] {
        assert_eq!(world.redeem_text(tool(), text).await, Err(why.to_owned()));
    }
    assert!(world.log.records().iter().skip(1).all(|record| record.ruling == Ruling::Deny));
    assert!(world.redeem_text(tool(), &whole).await.is_ok());
    drop(lease);
    world.finish().await;
}

/// A well-formed handle with the id of one and the secret part of another.
fn with_secret_of(id: &str, secret: &str) -> String {
    let body = format!("{}{}", &id[..21], &secret[21..53]);
    let checksum = data_encoding::BASE32_DNSSEC.encode(&Sha256::digest(body.as_bytes())[..5]);
    body + &checksum
}

#[tokio::test]
async fn a_handle_is_dead_at_its_end_whether_or_not_anybody_has_looked() {
    let world = World::new(uses(9));
    let mut lease = world.acquire(&[A]).await;
    let handle = &lease.issued()[0];
    world.clock.advance(Duration::from_millis(59_999));
    assert!(world.redeem(handle).await.is_ok());
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.redeem(handle).await, Err("inactive HANDLE_EXPIRED".to_owned()));
    world.keep().await;
    assert_eq!(world.redeem(handle).await, Err("inactive HANDLE_EXPIRED".to_owned()));
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_handle_is_dead_when_its_lease_has_ended() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    lease.read();
    let handle = lease.handles.remove(0);
    drop(lease);
    assert_eq!(world.redeem(&handle).await, Err("inactive HANDLE_REVOKED".to_owned()));
    world.finish().await;
}

#[tokio::test]
async fn a_use_is_given_back_where_nothing_was_released() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    let handle = &lease.issued()[0];

    world.log.set_broken(true);
    assert_eq!(world.redeem(handle).await, Err("no log".to_owned()));
    world.log.set_broken(false);

    world.change(deny(|request| request.kind == AccessKind::Redeem));
    assert_eq!(world.redeem(handle).await, Err("denied POLICY_NO_PERMIT".to_owned()));
    world.change(allow);

    let cancelled = begun(world.redeem(handle));
    assert_eq!(world.redeem(handle).await, Err("inactive HANDLE_SPENT".to_owned()), "set aside");
    drop(cancelled);

    assert_eq!(world.redeem(handle).await.as_deref(), Ok("canary-a"));
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_use_that_is_set_aside_stays_so_when_another_is_released() {
    let world = World::new(uses(3));
    let mut lease = world.acquire(&[A]).await;
    let handle = &lease.issued()[0];
    let (one, two) = (begun(world.redeem(handle)), begun(world.redeem(handle)));
    assert!(one.await.is_ok());
    let three = begun(world.redeem(handle));
    assert_eq!(world.redeem(handle).await, Err("inactive HANDLE_SPENT".to_owned()));
    assert!(two.await.is_ok() && three.await.is_ok());
    assert_eq!(world.reasons(RecordKind::Redeem).iter().filter(|it| **it == "POLICY_PERMIT").count(), 3);
    drop(lease);
    world.finish().await;
}

/// A future that has got as far as it gets at once: to the log.
fn begun<T>(future: impl Future<Output = T>) -> Pin<Box<impl Future<Output = T>>> {
    let mut future = Box::pin(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    future
}

#[tokio::test]
async fn a_handle_that_dies_while_its_redeem_is_recorded_releases_nothing() {
    for (expires, reason) in [(true, "HANDLE_EXPIRED"), (false, "HANDLE_REVOKED")] {
        let world = World::new(allow);
        let mut lease = world.acquire(&[A]).await;
        let handle = &lease.issued()[0];
        let (clock, broker) = (world.clock.clone(), Arc::clone(&world.broker));
        world.log.on_next_record(move || match expires {
            true => clock.advance(Duration::from_secs(60)),
            false => broker.leases().end_all(EndCause::Caller),
        });
        assert_eq!(world.redeem(handle).await, Err(format!("inactive {reason}")));
        assert_eq!(world.outcomes(), [(Issued, None), (Failed, Some(reason))]);
        drop(lease);
        world.finish().await;
    }
}

#[tokio::test]
async fn policy_and_log_see_where_a_value_is_to_go() {
    let world = World::new(deny(|request| {
        let host = request.destination.as_ref().map(Destination::as_str);
        request.kind == AccessKind::Redeem && host != Some("api.example.com")
    }));
    let mut lease = world.acquire(&[A]).await;
    let handle = lease.issued()[0].expose_secret();
    assert!(world.redeem_text(tool(), &handle).await.is_err());
    let destination = Destination::parse("API.example.com").ok();
    let call = testing::call(tool());
    assert!(world.broker.redeem(&call, &handle, destination).await.is_ok());
    let record = world.log.records().pop().unwrap();
    assert_eq!(record.destination.as_deref(), Some("api.example.com"));
    assert_eq!((record.caller, record.agent), (Some(tool()), Some(testing::agent("bot"))));
    drop(lease);
    world.finish().await;
}
