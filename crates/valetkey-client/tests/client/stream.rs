//! How a lease ends, against a broker that says what the test tells it to.

use crate::scripted::{Script, broker, ended, issued, opened, renewed, request, revoked, unknown};
use tonic::Status;
use valetkey_client::{CallError, EndCause, Handle, LeaseEvent, LeaseStream};

#[tokio::test]
async fn events_keep_the_handles_current() {
    let mut lease =
        lease(vec![opened(), issued("a", "vkh_1"), unknown(), renewed("a", "vkh_2", "vkh_1")]).await;
    assert_eq!(lease.id(), "vkl_1");
    assert!(matches!(lease.next().await, Ok(Some(LeaseEvent::Issued(_)))));
    assert_eq!(lease.handle("a").unwrap().handle.expose_secret(), "secret of vkh_1");
    assert!(matches!(lease.next().await, Ok(Some(LeaseEvent::Renewed { .. }))));
    assert_eq!(lease.handle("a").unwrap().handle_id, "vkh_2");
}

#[tokio::test]
async fn the_handle_before_a_renewal_does_not_take_the_fresh_one_along() {
    let events = vec![
        opened(),
        issued("a", "vkh_1"),
        renewed("a", "vkh_2", "vkh_1"),
        revoked("vkh_1"),
        revoked("vkh_2"),
    ];
    let mut lease = lease(events).await;
    for alive in [1, 1, 1, 0] {
        lease.next().await.unwrap();
        assert_eq!(lease.handles().count(), alive);
    }
}

#[tokio::test]
async fn an_end_is_told_once() {
    let mut lease = lease(vec![opened(), issued("a", "vkh_1"), ended(EndCause::Policy)]).await;
    lease.next().await.unwrap();
    assert!(matches!(lease.next().await, Ok(Some(LeaseEvent::Ended(EndCause::Policy)))));
    assert_eq!(lease.handles().count(), 0);
    assert!(matches!(lease.next().await, Ok(None)));
}

#[tokio::test]
async fn a_stream_that_closes_without_an_end_is_a_lost_lease() {
    for close in [None, Some(Err(Status::unavailable("gone")))] {
        let events = [Some(opened()), Some(issued("a", "vkh_1")), close].into_iter().flatten().collect();
        let mut lease = lease(events).await;
        lease.next().await.unwrap();
        assert!(matches!(lease.next().await, Err(CallError::LeaseLost(_))));
        assert_eq!(lease.handles().count(), 0);
        assert!(matches!(lease.next().await, Ok(None)));
    }
}

#[tokio::test]
async fn a_stream_must_begin_with_opened() {
    for events in [vec![], vec![issued("a", "vkh_1")], vec![unknown()]] {
        let broker = broker([events]).await;
        assert!(matches!(broker.acquire(request()).await.map(drop), Err(CallError::LeaseLost(_))));
    }
}

#[tokio::test]
async fn the_token_goes_with_each_call_and_the_value_comes_back_whole() {
    let broker = broker([]).await;
    let value = broker.redeem(&Handle::new("vkh_1")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(value.expose_secret(), b"\xff\0Bearer vkt_test");
}

#[tokio::test]
async fn debug_forms_show_no_handle() {
    let mut lease = lease(vec![opened(), issued("a", "vkh_1")]).await;
    let event = lease.next().await.unwrap().unwrap();
    let shown = format!("{event:?}");
    assert!(shown.contains("vkh_1") && !shown.contains("secret of"), "{shown}");
}

async fn lease(script: Script) -> LeaseStream {
    broker([script]).await.acquire(request()).await.unwrap_or_else(|error| panic!("{error}"))
}
