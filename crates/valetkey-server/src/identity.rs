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
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response, header};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use valetkey_core::{
    AdminAction, AdminRequest, AdminResource, AuditError, AuditRecord, Broker, Call, Identity, KeyThumbprint,
    Reason, RecordId, RecordKind, RequestId, TraceId, scrub,
};

use crate::limits::{Exceeded, Limiter, Meter, Source, What, metered};
use crate::status;

use self::bearers::{Bearers, Shown, Unshown};
use self::evidence::{Evidence, Peer};
use self::known::Known;

/// What the layer needs.
pub(crate) struct Identifier {
    pub(crate) known: Known,
    pub(crate) bearers: Bearers,
    pub(crate) broker: Arc<Broker>,
    pub(crate) limiter: Arc<Limiter>,
}

/// A request without an identity.
pub(crate) struct Unidentified {
    pub(crate) unshown: Unshown,
    pub(crate) client: Arc<str>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) trace: Option<TraceId>,
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone is not known to be ready; the one that is must be the one that is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let identifier = Arc::clone(&self.identifier);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let peer = request.extensions().get::<Peer>().cloned();
            let mut call = match identifier.identify(request.headers(), peer.as_ref()).await {
                Ok(call) => call,
                Err(unidentified) => return Ok(identifier.refuse(&path, unidentified).await.into_http()),
            };
            // Before another signature is looked at: it is counted as the caller's.
            if let Err(exceeded) = identifier.admit(&call, peer.as_ref()) {
                return Ok(identifier.limiter.refuse(&call, &path, &exceeded).await.into_http());
            }
            match identifier.bearers.behalf(request.headers()).await {
                Ok(behalf) => call.behalf = behalf,
                Err(unshown) => {
                    return Ok(identifier.refuse_behalf(&call, &path, &unshown).await.into_http());
                }
            }
            let call = Arc::new(call);
            let (mut request, meter) = identifier.measure(&call, request);
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
            let exceeded = meter.finish();
            let clock = Arc::clone(identifier.broker.clock());
            match (foreign_status(response.headers()), exceeded) {
                // A lease ends by itself, and says so.
                (None, _) if path == ACQUIRE => Ok(response),
                (None, _) => Ok(response.map(|body| cut::cut(body, call, clock))),
                (Some(_), Some(exceeded)) => {
                    Ok(identifier.limiter.refuse(&call, &path, &exceeded).await.into_http())
                }
                (Some(status), None) => Ok(identifier.own(&call, &path, &status).await.into_http()),
            }
        })
    }
}

impl Identifier {
    /// The call, on nobody's behalf yet, or why there is none.
    async fn identify(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Call, Unidentified> {
        let (client, trace) = (client(headers, peer), trace(headers));
        let address = peer.and_then(Peer::address);
        let (Shown { identity, credential, claims }, key) = match self.caller(headers, peer).await {
            Ok(found) => found,
            Err(unshown) => return Err(Unidentified { unshown, client, address, trace }),
        };
        let id = RequestId::random();
        Ok(Call { id, caller: identity, key, client, trace, credential, claims, behalf: None })
    }

    /// Who calls, and the caller's key.
    async fn caller(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<(Shown, Option<KeyThumbprint>), Unshown> {
        let Evidence { peer, authorization } = Evidence::gather(headers, peer)?;
        let by_header = match authorization {
            Some(authorization) => Some(self.bearers.identify(authorization).await?),
            None => None,
        };
        let shown = by_header.as_ref().map(|Shown { identity, credential, claims: _ }| {
            (Arc::clone(credential.id()), format!("its token is that of {identity}"))
        });
        self.known.identify(by_header, peer, self.broker.clock().now()).map_err(|reason| {
            let certificate = peer.and_then(|peer| peer.certificate.as_ref()).map(|certificate| {
                (certificate.credential_id().into(), format!("its certificate is that of {}", certificate.id))
            });
            let (credential, said) =
                [shown, certificate].into_iter().flatten().unzip::<_, _, Vec<_>, Vec<_>>();
            let said = (!said.is_empty()).then(|| said.join(", "));
            Unshown { reason, credential: credential.into_iter().next(), said }
        })
    }

    /// Counts the request and its connection as the caller's.
    fn admit(&self, call: &Call, peer: Option<&Peer>) -> Result<(), Exceeded> {
        let identities = &self.limiter.identities;
        if let Some(peer) = peer {
            peer.know(&call.caller, identities)?;
        }
        identities.request(&call.caller)
    }

    /// Counts the bytes of the message as the caller's, until the call is answered.
    fn measure(&self, call: &Call, request: Request<Body>) -> (Request<Body>, Meter) {
        let (parts, body) = request.into_parts();
        let (body, meter) = metered(body, self.limiter.identities.message(&call.caller));
        (Request::from_parts(parts, body), meter)
    }

    /// Refuses a caller without identity. Nothing is served either way, so a log that is away changes
    /// nothing about the answer.
    async fn refuse(&self, path: &str, unidentified: Unidentified) -> Status {
        unidentified.note(path, &self.limiter).await;
        status::unauthenticated()
    }

    /// Refuses a caller that is known, but not on whose behalf it says it is; likewise.
    async fn refuse_behalf(&self, call: &Call, path: &str, unshown: &Unshown) -> Status {
        let now = self.broker.clock().now();
        let what = match &unshown.credential {
            Some(id) => format!("{path} on behalf of somebody, by {id}"),
            None => format!("{path} on behalf of somebody"),
        };
        let record = AuditRecord::refusal(now, RecordKind::Unauthenticated, unshown.reason)
            .by(call)
            .with_detail(&unshown.detail(&what));
        let source = Source::Identity(call.caller.clone());
        if let Err(error) = self.limiter.repeats.note(&self.broker, What::Behalf, source, record).await {
            tracing::error!(%error, "a request on behalf of somebody was refused, but not written down");
        }
        status::person_unauthenticated()
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
        match self.note_malformed(call, record).await {
            Ok(record) => status::timed_out(record),
            Err(_) => status::audit_unavailable(),
        }
    }

    async fn note_malformed(&self, call: &Call, record: AuditRecord) -> Result<Option<RecordId>, AuditError> {
        let source = Source::Identity(call.caller.clone());
        self.limiter.repeats.note(&self.broker, What::Malformed, source, record).await
    }

    /// Turns a status of the transport's into one of ours, recorded.
    async fn own(&self, call: &Call, path: &str, foreign: &Status) -> Status {
        let record =
            AuditRecord::refusal(self.broker.clock().now(), RecordKind::Malformed, Reason::MessageInvalid)
                .by(call)
                .with_detail(&format!("{path}: {}", foreign.message()));
        let Ok(record) = self.note_malformed(call, record).await else { return status::audit_unavailable() };
        match foreign.code() {
            // It says Unimplemented to an encoding too, but then with a message.
            Code::Unimplemented if foreign.message().is_empty() => status::unknown_method(record),
            // tonic says Internal to a message it cannot decode and OutOfRange to one that is too large.
            _ => status::invalid_message(record),
        }
    }
}

impl Unidentified {
    /// Writes it down, or counts it.
    pub(crate) async fn note(self, path: &str, limiter: &Limiter) {
        let Self { unshown, client, address, trace } = self;
        let now = limiter.broker.clock().now();
        let record = AuditRecord::refusal(now, RecordKind::Unauthenticated, unshown.reason)
            .with_detail(&unshown.detail(path));
        let request = Some(RequestId::random());
        let credential = unshown.credential;
        let record = AuditRecord { request, client: Some(client), trace, credential, ..record };
        let source = Source::at(address);
        if let Err(error) = limiter.repeats.note(&limiter.broker, What::Unauthenticated, source, record).await
        {
            tracing::error!(%error, "a request without identity was refused, but not written down");
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
pub(crate) fn client(headers: &HeaderMap, peer: Option<&Peer>) -> Arc<str> {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unnamed");
    let mut client = scrub(agent, CLIENT_MAX);
    if let Some(peer) = peer {
        client.push(' ');
        client.push_str(&peer.origin.to_string());
    }
    client.into()
}

/// The trace id of a W3C `traceparent` header, version 00.
pub(crate) fn trace(headers: &HeaderMap) -> Option<TraceId> {
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
