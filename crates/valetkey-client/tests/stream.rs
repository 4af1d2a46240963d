//! How a lease ends, against a broker that says what the test tells it to.

#![cfg(test)]

use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, async_trait};
use valetkey_client::{AcquireLease, Broker, CallError, EndCause, Handle, LeaseEvent, LeaseStream, Token};
use valetkey_proto::v1;
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::lease_service_server::{LeaseService, LeaseServiceServer};

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
    let ended = Event::Ended(v1::LeaseEnded { cause: EndCause::Policy.into() });
    let mut lease = lease(vec![opened(), issued("a", "vkh_1"), Ok(Some(ended))]).await;
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
        let broker = broker(events).await;
        assert!(matches!(broker.acquire(request()).await.map(drop), Err(CallError::LeaseLost(_))));
    }
}

#[tokio::test]
async fn the_token_goes_with_each_call_and_the_value_comes_back_whole() {
    let broker = broker(vec![]).await;
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

type Script = Vec<Result<Option<Event>, Status>>;

fn opened() -> Result<Option<Event>, Status> {
    let references = vec!["a".into()];
    Ok(Some(Event::Opened(v1::LeaseOpened { lease_id: "vkl_1".into(), references })))
}

fn unknown() -> Result<Option<Event>, Status> {
    Ok(None)
}

fn issued(reference: &str, id: &str) -> Result<Option<Event>, Status> {
    Ok(Some(Event::Issued(handle(reference, id))))
}

fn renewed(reference: &str, id: &str, previous: &str) -> Result<Option<Event>, Status> {
    let issued = Some(handle(reference, id));
    Ok(Some(Event::Renewed(v1::HandleRenewed { issued, previous_handle_id: previous.into() })))
}

fn revoked(id: &str) -> Result<Option<Event>, Status> {
    let cause = EndCause::Policy.into();
    Ok(Some(Event::Revoked(v1::HandleRevoked { reference: "a".into(), handle_id: id.into(), cause })))
}

fn handle(reference: &str, id: &str) -> v1::HandleIssued {
    v1::HandleIssued {
        reference: reference.into(),
        handle: format!("secret of {id}"),
        handle_id: id.into(),
        uses: 1,
        ..Default::default()
    }
}

fn request() -> AcquireLease {
    AcquireLease::new("tool", ["a"], "test")
}

async fn lease(script: Script) -> LeaseStream {
    broker(script).await.acquire(request()).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn broker(script: Script) -> Broker {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let service = LeaseServiceServer::new(Scripted(Mutex::new(script)));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let token = Token::parse("vkt_test").unwrap_or_else(|error| panic!("{error}"));
    let connected = tokio::time::timeout(Duration::from_secs(10), Broker::connect(&address, token)).await;
    connected.unwrap().unwrap_or_else(|error| panic!("{error}"))
}

struct Scripted(Mutex<Script>);

#[async_trait]
impl LeaseService for Scripted {
    type AcquireLeaseStream = Pin<Box<dyn Stream<Item = Result<v1::AcquireLeaseResponse, Status>> + Send>>;

    async fn acquire_lease(
        &self,
        _: Request<v1::AcquireLeaseRequest>,
    ) -> Result<Response<Self::AcquireLeaseStream>, Status> {
        let script = std::mem::take(&mut *self.0.lock().unwrap());
        let events = script.into_iter().map(|event| event.map(|event| v1::AcquireLeaseResponse { event }));
        let events: Vec<_> = events.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    async fn redeem_handle(
        &self,
        request: Request<v1::RedeemHandleRequest>,
    ) -> Result<Response<v1::RedeemHandleResponse>, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap();
        let secret_value = [b"\xff\0", token.as_bytes()].concat();
        Ok(Response::new(v1::RedeemHandleResponse { secret_value, record_id: "1".into() }))
    }

    async fn end_lease(
        &self,
        _: Request<v1::EndLeaseRequest>,
    ) -> Result<Response<v1::EndLeaseResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn check_access(
        &self,
        _: Request<v1::CheckAccessRequest>,
    ) -> Result<Response<v1::CheckAccessResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}
