//! Who calls: one layer in front of every method. What a caller shows is gathered in `evidence.rs`, and who that is
//! stands in `known.rs`.
//!
//! It lets nobody pass without an identity, writes down who tried, and hands the [`Call`] to the methods as
//! an extension of the request. On the way back it notices answers that no method of ours gave (a message
//! that could not be decoded, an unknown method) and has them recorded too: every status of ours carries
//! details, the transport's own carry none.

pub(crate) mod bearers;
mod cut;
pub(crate) mod evidence;
pub(crate) mod jwt;
pub(crate) mod known;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response, header};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use valetkey_core::{
    AdminAction, AdminRequest, AdminResource, AuditRecord, Broker, Call, Credential, Identity, Reason,
    RecordKind, RequestId, TraceId, scrub,
};

use crate::status;

use self::bearers::{Bearers, Shown};
use self::evidence::{Evidence, Peer};
use self::known::Known;

/// What the layer needs.
pub(crate) struct Identifier {
    pub(crate) known: Known,
    pub(crate) bearers: Bearers,
    pub(crate) broker: Arc<Broker>,
}

/// A request without an identity, or on behalf of nobody that it could prove.
struct Unidentified {
    reason: Reason,
    /// Who calls, where only the other is in doubt.
    caller: Option<(Identity, Credential)>,
    client: Arc<str>,
    trace: Option<TraceId>,
}

/// The layer.
#[derive(Clone)]
pub(crate) struct IdentityLayer(pub(crate) Arc<Identifier>);

/// The layered service.
#[derive(Clone)]
pub(crate) struct Identified<S> {
    inner: S,
    identifier: Arc<Identifier>,
}

impl<S> Layer<S> for IdentityLayer {
    type Service = Identified<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Identified { inner, identifier: Arc::clone(&self.0) }
    }
}

impl<S> Service<Request<Body>> for Identified<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone is not known to be ready; the one that is must be the one that is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let identifier = Arc::clone(&self.identifier);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let peer = request.extensions().get::<Peer>().cloned();
            let call = match identifier.identify(request.headers(), peer.as_ref()).await {
                Ok(call) => Arc::new(call),
                Err(unidentified) => return Ok(identifier.refuse(&path, unidentified).await.into_http()),
            };
            if !path.starts_with(OWN_SERVICES)
                && let Err(status) = identifier.permit_operate(&call, &path).await
            {
                return Ok(status.into_http());
            }
            request.extensions_mut().insert(Arc::clone(&call));
            let Ok(response) = tokio::time::timeout(CALL_TIME_MAX, inner.call(request)).await else {
                return Ok(identifier.give_up(&call, &path).await.into_http());
            };
            let response = response?;
            match foreign_status(response.headers()) {
                // A lease ends by itself, and says so.
                None if path == ACQUIRE => Ok(response),
                None => Ok(response.map(|body| cut::cut(body, call))),
                Some(status) => Ok(identifier.own(&call, &path, &status).await.into_http()),
            }
        })
    }
}

impl Identifier {
    /// The call, or why there is none.
    async fn identify(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Call, Unidentified> {
        let (client, trace) = (client(headers, peer), trace(headers));
        let refused = |reason, caller| Unidentified { reason, caller, client: Arc::clone(&client), trace };
        let Shown { identity, credential, claims } =
            self.caller(headers, peer).await.map_err(|reason| refused(reason, None))?;
        if let Some(peer) = peer {
            peer.know();
        }
        let behalf = match self.bearers.behalf(headers).await {
            Ok(behalf) => behalf,
            Err(reason) => return Err(refused(reason, Some((identity, credential)))),
        };
        let key = peer.and_then(|peer| peer.certificate.as_ref()).map(|it| it.key);
        Ok(Call { id: RequestId::random(), caller: identity, key, client, trace, credential, claims, behalf })
    }

    async fn caller(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Shown, Reason> {
        let Evidence { peer, authorization } = Evidence::gather(headers, peer)?;
        let by_header = match authorization {
            Some(authorization) => Some(self.bearers.identify(authorization).await?),
            None => None,
        };
        self.known.identify(by_header, peer, self.broker.clock().now())
    }

    /// Refuses a caller without identity. Nothing is served either way, so a log that is away changes
    /// nothing about the answer.
    async fn refuse(&self, path: &str, unidentified: Unidentified) -> Status {
        let Unidentified { reason, caller, client, trace } = unidentified;
        let now = self.broker.clock().now();
        let (detail, status) = match &caller {
            None => (path.to_owned(), status::unauthenticated()),
            Some(_) => (format!("{path} on behalf of somebody"), status::person_unauthenticated()),
        };
        let record = AuditRecord::refusal(now, RecordKind::Unauthenticated, reason).with_detail(&detail);
        let (caller, credential) = caller.unzip();
        let request = Some(RequestId::random());
        let credential = credential.map(|credential| Arc::clone(credential.id()));
        let record = AuditRecord { request, caller, credential, client: Some(client), trace, ..record };
        if let Err(error) = self.broker.note(record).await {
            tracing::error!(%error, "a request without identity was refused, but not written down");
        }
        status
    }

    /// Health and reflection are not ours to guard inside: they need `operate`.
    async fn permit_operate(&self, call: &Arc<Call>, path: &str) -> Result<(), Status> {
        let request = AdminRequest {
            call: Arc::clone(call),
            action: AdminAction::Operate,
            resource: AdminResource::Broker,
            detail: scrub(path, DETAIL_MAX).into(),
        };
        match self.broker.permit(&request).await {
            Ok(_permission) => Ok(()),
            Err(refusal) => Err(status::refused(&refusal, &call.id.to_string())),
        }
    }

    /// Gives up on a call that has no answer yet: its message did not come, or we are stuck.
    async fn give_up(&self, call: &Call, path: &str) -> Status {
        let record =
            AuditRecord::refusal(self.broker.clock().now(), RecordKind::Malformed, Reason::MessageInvalid)
                .by(call)
                .with_detail(&format!("{path}: no answer within {} s", CALL_TIME_MAX.as_secs()));
        match self.broker.note(record).await {
            Ok(record) => status::timed_out(record),
            Err(_) => status::audit_unavailable(),
        }
    }

    /// Turns a status of the transport's into one of ours, recorded.
    async fn own(&self, call: &Call, path: &str, foreign: &Status) -> Status {
        let record =
            AuditRecord::refusal(self.broker.clock().now(), RecordKind::Malformed, Reason::MessageInvalid)
                .by(call)
                .with_detail(&format!("{path}: {}", foreign.message()));
        let Ok(record) = self.broker.note(record).await else { return status::audit_unavailable() };
        match foreign.code() {
            // It says Unimplemented to an encoding too, but then with a message.
            Code::Unimplemented if foreign.message().is_empty() => status::unknown_method(record),
            // tonic says Internal to a message it cannot decode and OutOfRange to one that is too large.
            _ => status::invalid_message(record),
        }
    }
}

/// The caller of a request that has passed the layer.
pub(crate) fn call_of<T>(request: &tonic::Request<T>) -> Result<Arc<Call>, Status> {
    // Absent only where a service was wired past the layer: fail closed.
    request.extensions().get::<Arc<Call>>().cloned().ok_or_else(status::unauthenticated)
}

/// The caller as an agent.
pub(crate) fn agent_of(call: &Call) -> Option<valetkey_core::AgentId> {
    match &call.caller {
        Identity::Agent(agent) => Some(agent.clone()),
        Identity::Tool(_) | Identity::Person(_) => None,
    }
}

/// A status without details in the headers of a response: not one of ours.
fn foreign_status(headers: &HeaderMap) -> Option<Status> {
    headers.get(Status::GRPC_STATUS)?;
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok && status.details().is_empty()).then_some(status)
}

/// The client as it says itself, and where it is.
fn client(headers: &HeaderMap, peer: Option<&Peer>) -> Arc<str> {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unnamed");
    let mut client = scrub(agent, CLIENT_MAX);
    if let Some(peer) = peer {
        client.push(' ');
        client.push_str(&peer.origin.to_string());
    }
    client.into()
}

/// The trace id of a W3C `traceparent` header, version 00.
fn trace(headers: &HeaderMap) -> Option<TraceId> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let mut trace = [0; 16];
    if version != "00" || id.len() != 32 {
        return None;
    }
    data_encoding::HEXLOWER.decode_mut(id.as_bytes(), &mut trace).ok()?;
    (trace != [0; 16]).then_some(TraceId(trace))
}

/// The method whose stream is a lease.
const ACQUIRE: &str = "/valetkey.v1.LeaseService/AcquireLease";
/// The services whose methods ask the gate themselves.
const OWN_SERVICES: &str = "/valetkey.v1.";
/// How long a call may take to its first answer, its message included: what a peer sends half and then
/// holds back is kept no longer than this.
const CALL_TIME_MAX: Duration = Duration::from_secs(15);
const CLIENT_MAX: usize = 200;
const DETAIL_MAX: usize = 1024;
