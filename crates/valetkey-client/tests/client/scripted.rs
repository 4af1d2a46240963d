//! A broker that says what the test tells it to.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, async_trait};
use valetkey_client::{AcquireLease, Broker, EndCause, Token};
use valetkey_proto::v1;
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::lease_service_server::{LeaseService, LeaseServiceServer};

/// What a stream says. A status ends it; so does the end of the script, unless that is [`stay`].
pub(crate) type Script = Vec<Result<Option<Event>, Status>>;

/// Keeps the stream open.
pub(crate) fn stay() -> Result<Option<Event>, Status> {
    Err(Status::ok("stay"))
}

pub(crate) fn opened() -> Result<Option<Event>, Status> {
    let references = vec!["a".into()];
    Ok(Some(Event::Opened(v1::LeaseOpened { lease_id: "vkl_1".into(), references })))
}

pub(crate) fn unknown() -> Result<Option<Event>, Status> {
    Ok(None)
}

pub(crate) fn issued(reference: &str, id: &str) -> Result<Option<Event>, Status> {
    Ok(Some(Event::Issued(handle(reference, id))))
}

pub(crate) fn renewed(reference: &str, id: &str, previous: &str) -> Result<Option<Event>, Status> {
    let issued = Some(handle(reference, id));
    Ok(Some(Event::Renewed(v1::HandleRenewed { issued, previous_handle_id: previous.into() })))
}

pub(crate) fn revoked(id: &str) -> Result<Option<Event>, Status> {
    let cause = EndCause::Policy.into();
    Ok(Some(Event::Revoked(v1::HandleRevoked { reference: "a".into(), handle_id: id.into(), cause })))
}

pub(crate) fn ended(cause: EndCause) -> Result<Option<Event>, Status> {
    Ok(Some(Event::Ended(v1::LeaseEnded { cause: cause.into() })))
}

pub(crate) fn handle(reference: &str, id: &str) -> v1::HandleIssued {
    v1::HandleIssued {
        reference: reference.into(),
        handle: format!("secret of {id}"),
        handle_id: id.into(),
        uses: 1,
        ..Default::default()
    }
}

pub(crate) fn request() -> AcquireLease {
    AcquireLease::new("tool", ["a"], "test")
}

/// Each call that acquires gets the next script; those beyond are refused as by a broker without a log.
pub(crate) async fn broker(scripts: impl IntoIterator<Item = Script>) -> Broker {
    let scripted = Scripted(Mutex::new(scripts.into_iter().collect()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let service = LeaseServiceServer::new(scripted);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let token = Token::parse("vkt_test").unwrap_or_else(|error| panic!("{error}"));
    let connected = tokio::time::timeout(Duration::from_secs(10), Broker::connect(&address, token)).await;
    connected.unwrap().unwrap_or_else(|error| panic!("{error}"))
}

struct Scripted(Mutex<VecDeque<Script>>);

#[async_trait]
impl LeaseService for Scripted {
    type AcquireLeaseStream = Pin<Box<dyn Stream<Item = Result<v1::AcquireLeaseResponse, Status>> + Send>>;

    async fn acquire_lease(
        &self,
        _: Request<v1::AcquireLeaseRequest>,
    ) -> Result<Response<Self::AcquireLeaseStream>, Status> {
        let Some(script) = self.0.lock().unwrap().pop_front() else {
            return Err(Status::unavailable("there is no script"));
        };
        let is_stay = |event: &Result<_, Status>| matches!(event, Err(it) if it.code() == tonic::Code::Ok);
        let stays = script.last().is_some_and(is_stay);
        let events = script.into_iter().filter(|event| !is_stay(event));
        let events: Vec<_> =
            events.map(|event| event.map(|event| v1::AcquireLeaseResponse { event })).collect();
        let events = tokio_stream::iter(events);
        Ok(Response::new(match stays {
            true => Box::pin(events.chain(tokio_stream::pending())),
            false => Box::pin(events),
        }))
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
