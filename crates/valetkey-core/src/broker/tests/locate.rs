//! Finding out what a reference means: who may ask a source, what is written first, and what failures become.

use super::world::{A, B, C, World, allow, deny, is};
use crate::audit::{RecordKind, Ruling};
use crate::broker::Refusal;
use crate::resolver::{Gap, ResolveError};

#[tokio::test]
async fn what_is_not_known_is_asked_level_by_level_after_it_is_written_down() {
    let world = World::new(allow);
    world.vault.forget(A, Gap::Vaults);
    let mut lease = world.acquire(&[A, C]).await;
    assert_eq!(lease.read(), ["opened 2", "issued op://v/one/a", "issued op://v/two/c"]);
    assert_eq!(world.vault.surveys().len(), 3, "vaults, items, fields");
    let records = world.log.records();
    let first: Vec<_> =
        records.iter().take(3).map(|record| (record.kind, record.detail.as_deref())).collect();
    let levels = ["vaults", "items", "fields"].map(|level| (RecordKind::Locate, Some(level)));
    assert_eq!(first, levels);
    assert!(records.iter().take(3).all(|record| record.ruling == Ruling::Event && record.handle.is_none()));
    for (survey, record) in world.vault.surveys().iter().zip(1..) {
        assert_eq!(survey.0, record, "each under its own record");
    }
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn a_source_is_not_asked_for_those_whom_no_policy_may_allow() {
    let world = World::new(deny(is(B)));
    world.vault.forget(B, Gap::Items);
    let refusal = world.try_acquire(world.ask(&[A, B])).await.err().unwrap();
    assert_eq!(world.why(&refusal), "denied POLICY_NO_PERMIT");
    assert!(world.vault.surveys().is_empty() && world.reasons(RecordKind::Locate).is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_source_that_cannot_be_asked_is_its_own_refusal() {
    for error in [ResolveError::Unavailable, ResolveError::CredentialsRefused] {
        let world = World::new(allow);
        world.vault.forget(A, Gap::Fields);
        world.vault.set_error(Some(error.clone()));
        let refusal = world.try_acquire(world.ask(&[A])).await.err().unwrap();
        assert!(matches!(&refusal, Refusal::Unresolved { error: said, .. } if *said == error));
        assert_eq!(world.why(&refusal), "unresolved SOURCE_FAILED");
        assert_eq!(world.vault.reads(), [], "nothing was fetched");
        world.finish().await;
    }
}

#[tokio::test]
async fn a_part_goes_on_without_what_cannot_be_looked_up() {
    let world = World::new(allow);
    world.vault.forget(B, Gap::Fields);
    world.vault.fail_learning(Some(ResolveError::Unavailable));
    let mut lease = world.acquire_partial(&[A, B]).await;
    assert_eq!(
        lease.read(),
        ["opened 2", "refused op://v/one/b RESOLVER_UNAVAILABLE", "issued op://v/one/a"]
    );
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn without_a_log_nothing_is_asked() {
    let world = World::new(allow);
    world.vault.forget(A, Gap::Fields);
    world.log.set_broken(true);
    let refusal = world.try_acquire(world.ask(&[A])).await.err().unwrap();
    assert!(matches!(refusal, Refusal::AuditUnavailable(_)));
    assert!(world.vault.surveys().is_empty());
    world.log.set_broken(false);
    world.finish().await;
}

#[tokio::test]
async fn what_changed_under_a_read_is_decided_again() {
    let world = World::new(allow);
    world.vault.fail_next_reads(1, ResolveError::Changed);
    let mut lease = world.acquire(&[A]).await;
    assert_eq!(lease.read(), ["opened 1", "issued op://v/one/a"]);
    assert_eq!(world.reasons(RecordKind::Acquire), ["POLICY_PERMIT"; 2], "decided and recorded again");
    drop(lease);
    world.finish().await;
}

#[tokio::test]
async fn what_changes_again_and_again_is_given_up() {
    let world = World::new(allow);
    world.vault.set_error(Some(ResolveError::Changed));
    let refusal = world.try_acquire(world.ask(&[A])).await.err().unwrap();
    assert_eq!(world.why(&refusal), "in flux");
    world.finish().await;
}

#[tokio::test]
async fn a_renewal_that_cannot_be_looked_up_has_failed_and_is_not_denied() {
    let world = World::new(allow);
    let mut lease = world.acquire(&[A]).await;
    world.keep().await;
    world.vault.forget(A, Gap::Items);
    world.vault.fail_learning(Some(ResolveError::Unavailable));
    world.advance(50).await;
    assert_eq!(lease.read(), ["opened 1", "issued op://v/one/a"], "it lives on for now");
    world.vault.fail_learning(None);
    world.advance(5).await;
    assert_eq!(lease.read(), ["renewed op://v/one/a"], "and is tried again");
    drop(lease);
    world.finish().await;
}
