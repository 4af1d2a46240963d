//! Policies that change under requests and under live leases.

use std::sync::Arc;
use std::time::Duration;

use super::world::{A, B, C, World, allow, deny, is, uses};
use crate::audit::OutcomeResult::{Issued, Released, Withheld};
use crate::audit::RecordKind;
use crate::broker::Acquire;
use crate::decision::{Obligations, Redeemer};
use crate::policy::PolicyEngine;
use crate::request::AccessKind;

const CHANGED: Option<&str> = Some("POLICY_CHANGED");

#[tokio::test]
async fn what_is_still_allowed_is_decided_again_and_issued() {
    let world = World::new(allow);
    world.change_later(allow);
    let mut lease = world.acquire(&[A, B]).await;
    assert_eq!(lease.read(), ["opened 2", "issued op://v/one/a", "issued op://v/one/b"]);
    let (withheld, issued) = ((Withheld, CHANGED), (Issued, None));
    assert_eq!(world.outcomes(), [withheld, withheld, issued, issued]);
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn what_is_no_longer_allowed_is_refused_though_it_was_granted() {
    let world = World::new(allow);
    world.change_later(deny(is(B)));
    let refusal = world.try_acquire(world.ask(&[A, B])).await.err().unwrap();
    assert_eq!(world.why(&refusal), "denied POLICY_NO_PERMIT");
    assert_eq!(world.broker.leases().counts(), (0, 0));
    world.finish().await;
}

#[tokio::test]
async fn a_change_while_values_are_fetched_counts_as_well() {
    let world = World::new(allow);
    let (policy, broker) = (Arc::clone(&world.policy), Arc::clone(&world.broker));
    world.vault.on_next_read(move || {
        policy.install(|_| None);
        broker.policies_changed(policy.revision());
    });
    let refusal = world.try_acquire(world.ask(&[A])).await.err().unwrap();
    assert_eq!(world.why(&refusal), "denied POLICY_NO_PERMIT");
    world.finish().await;
}

#[tokio::test]
async fn in_a_partial_lease_the_reference_is_refused() {
    let world = World::new(allow);
    let mut lease = world.acquire_partial(&[A, C]).await;
    let (policy, broker) = (Arc::clone(&world.policy), Arc::clone(&world.broker));
    world.vault.on_next_read(move || {
        policy.install(|_| None);
        broker.policies_changed(policy.revision());
    });
    let refused = [A, C].map(|reference| format!("refused {reference} POLICY_CHANGED"));
    let ended = ["ended Expiry".to_owned(), "closed".to_owned()];
    assert_eq!(lease.read(), [&["opened 2".to_owned()], refused.as_slice(), &ended].concat());
    assert_eq!(world.outcomes(), [(Withheld, CHANGED); 2]);
    world.finish().await;
}

#[tokio::test]
async fn policies_that_never_rest_are_given_up_on() {
    let world = World::new(allow);
    // A table that is ahead of the engine makes every grant stale.
    world.broker.leases().begin_generation(99);
    for partial in [false, true] {
        let ask = Acquire { partial, ..world.ask(&[A]) };
        match world.try_acquire(ask).await {
            Err(refusal) => assert_eq!(world.why(&refusal), "in flux"),
            Ok(mut lease) => assert_eq!(lease.read()[1], "refused op://v/one/a POLICY_CHANGED"),
        }
    }
    assert_eq!(world.outcomes(), [(Withheld, CHANGED); 4]);
    world.finish().await;
}

#[tokio::test]
async fn a_redeem_is_decided_again_when_policies_change_under_it() {
    let world = World::new(uses(2));
    let mut lease = world.acquire(&[A]).await;
    let handle = &lease.issued()[0];
    world.change_later(uses(2));
    assert!(world.redeem(handle).await.is_ok());
    assert_eq!(world.outcomes(), [(Issued, None), (Withheld, CHANGED), (Released, None)]);
    assert!(world.redeem(handle).await.is_ok(), "one use was spent, not two");
    assert_eq!(world.redeem(handle).await, Err("inactive HANDLE_SPENT".to_owned()));
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_redeem_that_a_change_forbids_releases_nothing() {
    let forbid_redeem = |request: &crate::AccessRequest| request.kind == AccessKind::Redeem;
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    let handle = &lease.issued()[0];
    world.change_later(deny(forbid_redeem));
    assert_eq!(world.redeem(handle).await, Err("denied POLICY_NO_PERMIT".to_owned()));
    world.change(allow);
    world.change_later(|_| None);
    assert_eq!(world.redeem(handle).await, Err("inactive HANDLE_REVOKED".to_owned()));
    assert!(world.outcomes().iter().all(|(result, _)| *result != Released));
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_change_revokes_what_it_forbids_and_tells_the_stream() {
    let world = World::new(allow);
    let (mut both, mut other) = (world.acquire(&[A, B]).await, world.acquire(&[C]).await);
    both.read();
    other.read();
    assert_eq!(world.change(deny(is(A))), 1);
    assert_eq!(both.read(), ["revoked op://v/one/a Policy"]);
    assert_eq!(other.read(), [""; 0]);
    assert_eq!(world.redeem(&both.handles[0]).await, Err("inactive HANDLE_REVOKED".to_owned()));
    assert!(world.redeem(&other.handles[0]).await.is_ok());

    assert_eq!(world.change(|_| None), 1);
    assert_eq!(both.read(), ["revoked op://v/one/b Policy", "ended Policy", "closed"]);
    world.keep().await;
    assert_eq!(world.reasons(RecordKind::HandleRevoke), ["END_POLICY"; 2]);
    assert_eq!(world.reasons(RecordKind::LeaseEnd), ["END_POLICY"]);
    let revoked = world.log.records().into_iter().find(|record| record.kind == RecordKind::HandleRevoke);
    assert_eq!(revoked.unwrap().revision.map(|revision| revision.generation), Some(2));
    drop((both, other));
    world.finish().await;
}

#[tokio::test]
async fn stricter_terms_revoke_and_looser_ones_do_not() {
    let terms = |ttl: u64, uses, redeemer| Obligations {
        ttl_max: Some(Duration::from_secs(ttl)),
        uses,
        redeemer,
        ..Obligations::default()
    };
    let world = World::new(move |_| Some(terms(60, 2, Redeemer::Tool)));
    for (now, revoked) in [
        (terms(90, 3, Redeemer::Tool), 0),
        (terms(59, 2, Redeemer::Tool), 1),
        (terms(60, 1, Redeemer::Tool), 1),
        (terms(60, 2, Redeemer::Agent), 1),
    ] {
        world.change(move |_| Some(terms(60, 2, Redeemer::Tool)));
        let lease = world.acquire(&[A]).await;
        assert_eq!(
            world.change({
                let now = now.clone();
                move |_| Some(now.clone())
            }),
            revoked,
            "{now:?}"
        );
        drop(lease);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_everything_leaves_nothing_behind() {
    let world = Arc::new(World::new(uses(2)));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            for round in 0..40 {
                let references = [&[A, B, C][..], &[A], &[C, B]][round % 3];
                let ask = Acquire { partial: task % 2 == 0, ..world.ask(references) };
                let Ok(mut lease) = world.try_acquire(ask).await else { continue };
                lease.read();
                for handle in &lease.handles {
                    let _ = world.redeem(handle).await;
                }
                if round % 5 == 0 {
                    world.advance(7).await;
                }
                match round % 4 {
                    0 => drop(world.change(deny(is([A, B, C][task % 3])))),
                    1 => drop(world.change(uses(2))),
                    _ => {}
                }
                lease.read();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    Arc::into_inner(world).unwrap().finish().await;
}
