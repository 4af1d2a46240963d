//! The limit that a broker is measured against: the same messages over the same transport, and nothing
//! behind them.

use anyhow::Result;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::lease_service_server::{LeaseService, LeaseServiceServer};
use valetkey_proto::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, CheckAccessRequest, CheckAccessResponse, EndLeaseRequest,
    EndLeaseResponse, HandleIssued, LeaseOpened, RedeemHandleRequest, RedeemHandleResponse,
};

/// Serves until it is dropped.
///
/// # Errors
/// Where the transport fails.
pub async fn serve(listener: TcpListener) -> Result<()> {
    let connections = TcpListenerStream::new(listener).map(|socket| {
        let socket = socket?;
        socket.set_nodelay(true)?;
        std::io::Result::Ok(socket)
    });
    let server = Server::builder().max_concurrent_streams(100_000);
    Ok({ server }.add_service(LeaseServiceServer::new(Echo)).serve_with_incoming(connections).await?)
}

struct Echo;

type Events = Box<dyn Stream<Item = Result<AcquireLeaseResponse, Status>> + Send + Unpin>;

#[tonic::async_trait]
impl LeaseService for Echo {
    type AcquireLeaseStream = Events;

    async fn acquire_lease(&self, request: Request<AcquireLeaseRequest>) -> Result<Response<Events>, Status> {
        let references = request.into_inner().references;
        let reference = references.first().cloned().unwrap_or_default();
        let opened = Event::Opened(LeaseOpened { lease_id: "vkl_0123456789abcdef".into(), references });
        let issued =
            Event::Issued(HandleIssued { reference, handle: "h".repeat(61), ..HandleIssued::default() });
        let events = [opened, issued].map(|event| Ok(AcquireLeaseResponse { event: Some(event) }));
        Ok(Response::new(Box::new(tokio_stream::iter(events).chain(tokio_stream::pending()))))
    }

    async fn redeem_handle(
        &self,
        request: Request<RedeemHandleRequest>,
    ) -> Result<Response<RedeemHandleResponse>, Status> {
        let secret_value = request.into_inner().handle.into_bytes();
        Ok(Response::new(RedeemHandleResponse { secret_value, record_id: "1".into() }))
    }

    async fn end_lease(&self, _: Request<EndLeaseRequest>) -> Result<Response<EndLeaseResponse>, Status> {
        Ok(Response::new(EndLeaseResponse {}))
    }

    async fn check_access(
        &self,
        _: Request<CheckAccessRequest>,
    ) -> Result<Response<CheckAccessResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
