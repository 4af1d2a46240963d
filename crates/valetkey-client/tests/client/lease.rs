//! A lease that is held, against a broker that says what the test tells it to.

use std::time::{Duration, Instant};

use crate::scripted::{
    Script, broker, ended, handle, issued, opened, renewed, request, revoked, stay, unknown,
};
use tonic::Status;
use valetkey_client::{CallError, EndCause, Lease, LeaseEvent, Retries};
use valetkey_proto::v1;
use valetkey_proto::v1::acquire_lease_response::Event;

#[tokio::test]
async fn a_renewal_replaces_the_handle() {
    let lease = lease([vec![
        opened(),
        unknown(),
        issued("a", "vkh_1"),
        renewed("a", "vkh_2", "vkh_1"),
        revoked("vkh_1"),
        stay(),
    ]])
    .await;
    while current(&lease).await != "vkh_2" {
        tokio::task::yield_now().await;
    }
    assert_eq!((lease.id().as_str(), lease.handles().len()), ("vkl_1", 1));
    assert!(lease.lost().is_none());
}

/// Each row: how the first stream ends, and what the caller gets then: a fresh handle, or the cause.
#[tokio::test]
async fn only_what_can_pass_is_asked_for_again() {
    let again: [(&str, Script); 6] = [
        ("closed", vec![]),
        ("broken", vec![Err(Status::unavailable("gone"))]),
        ("shutdown", vec![ended(EndCause::Shutdown)]),
        ("unavailable", vec![ended(EndCause::Unavailable)]),
        ("stalled", vec![ended(EndCause::Stalled)]),
        ("not renewed", vec![revoked_by("vkh_1", EndCause::Unavailable), stay()]),
    ];
    for (what, end) in again {
        let first = [opened(), issued("a", "vkh_1")].into_iter().chain(end).collect();
        let lease = lease([first, vec![opened(), issued("a", "vkh_2"), stay()]]).await;
        until_over(&lease, "vkh_1").await;
        assert_eq!(current(&lease).await, "vkh_2", "{what}");
        assert!(lease.lost().is_none(), "{what}");
    }
    let causes =
        [EndCause::Policy, EndCause::Caller, EndCause::Credential, EndCause::Expiry, EndCause::Unspecified];
    for cause in causes {
        let lease = lease([
            vec![opened(), issued("a", "vkh_1"), ended(cause)],
            vec![opened(), issued("a", "vkh_2"), stay()],
        ])
        .await;
        assert_eq!(lease.revoked().await, CallError::LeaseEnded(cause));
        assert_eq!(lease.handle("a").await.map(drop), Err(CallError::LeaseEnded(cause)));
        assert_eq!(lease.ready().await, Err(CallError::LeaseEnded(cause)));
        assert!(lease.handles().is_empty());
    }
}

#[tokio::test]
async fn no_handle_is_shown_while_it_is_asked_for_again() {
    let lease = lease([vec![opened(), issued("a", "vkh_1")], vec![opened(), stay()]]).await;
    until_over(&lease, "vkh_1").await;
    assert!(lease.handles().is_empty() && lease.lost().is_none());
}

#[tokio::test]
async fn a_revoked_handle_stays_away() {
    let lease = lease([
        vec![opened(), issued("a", "vkh_1"), revoked("vkh_1"), stay()],
        vec![opened(), issued("a", "vkh_2"), stay()],
    ])
    .await;
    assert_eq!(lease.revoked().await, CallError::LeaseEnded(EndCause::Policy));
    assert_eq!(lease.handle("a").await.map(drop), Err(CallError::LeaseEnded(EndCause::Policy)));
}

#[tokio::test]
async fn the_first_time_is_persistent_too() {
    let lease = lease([
        vec![],
        vec![opened()],
        vec![opened(), ended(EndCause::Shutdown)],
        vec![opened(), issued("a", "vkh_1"), stay()],
    ])
    .await;
    assert_eq!(current(&lease).await, "vkh_1");
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let within = Duration::from_millis(700);
    let quick = |scripts: Vec<Script>| async move { broker(scripts).await.retries(Retries::within(within)) };
    let begun = Instant::now();
    // Nobody answers the second time.
    let lease = quick(vec![vec![opened(), issued("a", "vkh_1")]]).await.lease(request()).await.unwrap();
    until_over(&lease, "vkh_1").await;
    assert!(matches!(lease.handle("a").await, Err(CallError::Unavailable { .. } | CallError::LeaseLost(_))));
    let why = lease.revoked().await;
    assert_eq!(lease.lost(), Some(why));
    // The stream opens, and no handle comes.
    let silent = quick(vec![vec![opened(), stay()]]).await.lease(request()).await.map(drop);
    assert_eq!(silent, Err(CallError::TimedOut(within)));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_wants_no_retries_gets_none() {
    let scripts = [vec![opened(), issued("a", "vkh_1")], vec![opened(), issued("a", "vkh_2"), stay()]];
    let lease = broker(scripts).await.retries(Retries::none()).lease(request()).await.unwrap();
    assert!(matches!(lease.revoked().await, CallError::LeaseLost(_)));
    assert!(broker([]).await.retries(Retries::none()).lease(request()).await.is_err());
}

#[tokio::test]
async fn a_used_handle_is_not_shown_again_and_not_asked_for_again() {
    let scripts =
        [vec![opened(), issued("a", "vkh_1"), stay()], vec![opened(), issued("a", "vkh_2"), stay()]];
    let lease = lease(scripts).await;
    lease.redeem("a").await.unwrap_or_else(|error| panic!("{error}"));
    let again = lease.redeem("a").await.map(drop);
    assert_eq!(again, Err(CallError::HandleNotActive { record_id: None }));
    assert!(lease.handles().is_empty());
}

#[tokio::test]
async fn a_stranger_has_no_handle() {
    let lease = lease([vec![opened(), issued("a", "vkh_1"), issued("b", "vkh_2"), stay()]]).await;
    assert!(matches!(lease.handle("b").await, Err(CallError::Invalid { .. })));
}

/// No decision looks at the wall clock, so a broker whose clock is years from ours is served as well.
#[tokio::test]
async fn absurd_expire_times() {
    for seconds in [i64::MIN, -1, 0, 1, 253_402_300_799, i64::MAX] {
        let expire_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
        let event = Event::Issued(v1::HandleIssued { expire_time, ..handle("a", "vkh_1") });
        let lease = lease([vec![opened(), Ok(Some(event)), stay()]]).await;
        assert_eq!(current(&lease).await, "vkh_1", "{seconds}");
        lease.redeem("a").await.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[tokio::test]
async fn events_come_to_whoever_listens() {
    let first = vec![opened(), issued("a", "vkh_1"), ended(EndCause::Shutdown)];
    let second = vec![opened(), issued("a", "vkh_2"), ended(EndCause::Policy)];
    let broker = broker([first, second]).await;
    let lease = broker.lease(request()).await.unwrap();
    let mut seen = Vec::new();
    let mut events = lease.events();
    while let Some(event) = events.next().await {
        seen.push(match event {
            LeaseEvent::Interrupted(CallError::LeaseEnded(EndCause::Shutdown)) => "interrupted",
            LeaseEvent::Resumed { .. } => "resumed",
            LeaseEvent::Issued(_) => "issued",
            LeaseEvent::Ended(EndCause::Policy) => "ended",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["interrupted", "resumed", "issued", "ended"]);
    assert!(lease.events().next().await.is_none(), "it is over");
}

#[tokio::test]
async fn a_reader_that_does_not_keep_up_is_told() {
    let renewals = (0..200).map(|_| renewed("a", "vkh_2", "vkh_1"));
    let script =
        [opened(), issued("a", "vkh_1")].into_iter().chain(renewals).chain([ended(EndCause::Policy)]);
    let lease = lease([script.collect()]).await;
    let mut events = lease.events();
    lease.revoked().await;
    let mut count = 0;
    let mut missed = 0;
    while let Some(event) = events.next().await {
        count += 1;
        if let LeaseEvent::Missed(some) = event {
            missed += some;
        }
    }
    assert!(count <= 66 && missed > 0, "{count} events, {missed} missed");
}

#[tokio::test]
async fn a_dropped_lease_ends_its_events() {
    let lease = lease([vec![opened(), issued("a", "vkh_1"), stay()]]).await;
    let mut events = lease.events();
    drop(lease);
    let over = async {
        while let Some(event) = events.next().await {
            assert!(matches!(event, LeaseEvent::Lost(_)), "{event:?}");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), over).await.unwrap();
}

/// What was shared may be used from anywhere.
#[test]
fn a_lease_is_shared_and_sent() {
    fn is<T: Send + Sync>() {}
    is::<Lease>();
    is::<valetkey_client::LeaseEvents>();
}

fn revoked_by(id: &str, cause: EndCause) -> Result<Option<Event>, Status> {
    let (reference, handle_id) = ("a".into(), id.into());
    Ok(Some(Event::Revoked(v1::HandleRevoked { reference, handle_id, cause: cause.into() })))
}

async fn lease(scripts: impl IntoIterator<Item = Script>) -> Lease {
    broker(scripts).await.lease(request()).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn current(lease: &Lease) -> String {
    lease.handle("a").await.unwrap_or_else(|error| panic!("{error}")).handle_id
}

/// Waits until this handle is not shown any more.
async fn until_over(lease: &Lease, id: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while lease.handles().iter().any(|issued| issued.handle_id == id) {
        assert!(Instant::now() < end, "it is still shown");
        tokio::task::yield_now().await;
    }
}
