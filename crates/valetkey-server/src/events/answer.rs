//! One request to the Events API, from its head to its answer. The one place that chooses what a caller reads there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::{Code, Status};
use valetkey_audit::TokenUsage;
use valetkey_core::{AuditRecord, Call, Reason, RecordKind, RequestId, scrub};

use super::ask::Ask;
use super::form::{Version, uuid};
use super::key::Signed;
use super::page::Page;
use super::{Events, Feature};
use crate::identity::bearers::{Shown, Unshown};
use crate::identity::evidence::{Evidence, Peer};
use crate::identity::{Unidentified, client, trace};
use crate::limits::{Exceeded, Source, What};
use crate::review::unreadable;

type Answer = Response<Full<Bytes>>;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Introspect(Version),
    Read(Feature, Version),
}

/// Why there is no good answer.
struct Fault {
    status: StatusCode,
    message: String,
    retry_after: Option<Duration>,
}

impl Events {
    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let answered = tokio::time::timeout(ANSWER_MAX, self.try_answer(request, peer)).await;
        match answered {
            Ok(Ok(value)) => print(StatusCode::OK, &value),
            Ok(Err(fault)) => fault.print(),
            Err(_) => Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "no answer in time").print(),
        }
    }

    async fn try_answer(&self, request: Request<Incoming>, peer: &Peer) -> Result<Value, Fault> {
        let (head, body) = request.into_parts();
        let path = scrub(head.uri.path(), PATH_MAX);
        let (call, signed) = match self.identify(&head.headers, peer) {
            Ok(known) => known,
            Err(unidentified) => {
                unidentified.note(&path, &self.limiter).await;
                return Err(Fault::new(
                    StatusCode::UNAUTHORIZED,
                    "no valid Events API token came with the request",
                ));
            }
        };
        if let Err(exceeded) = self.admit(&call, peer) {
            let status = self.limiter.refuse(&call, &path, &exceeded).await;
            return Err(Fault { retry_after: Some(exceeded.retry_after), ..Fault::of(&status) });
        }
        let endpoint = match Endpoint::parse(&head.method, head.uri.path()) {
            Some(endpoint) => endpoint,
            None => {
                let fault =
                    Fault::new(StatusCode::NOT_FOUND, "there is no such path, or not with this method");
                return Err(self
                    .refuse(&call, RecordKind::Malformed, Reason::MessageInvalid, &path, fault)
                    .await);
            }
        };
        match endpoint {
            Endpoint::Introspect(version) => {
                self.review(&call, endpoint.word(), &format!("events {}", endpoint.word())).await?;
                Ok(self.introspect(version, &signed))
            }
            Endpoint::Read(feature, version) => {
                if !signed.features.contains(&feature) {
                    let message = format!("the token is not for `{}`", feature.as_str());
                    let fault = Fault::new(StatusCode::UNAUTHORIZED, &message);
                    let detail = format!("{path}: {message}");
                    return Err(self
                        .refuse(&call, RecordKind::ReadAudit, Reason::CallerKind, &detail, fault)
                        .await);
                }
                let Page { cursor, has_more, items } =
                    self.read(&call, feature, version, &path, body).await?;
                Ok(json!({"cursor": cursor, "has_more": has_more, "items": items}))
            }
        }
    }

    /// Who calls.
    fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<(Call, Signed), Unidentified> {
        let (client, trace) = (client(headers, Some(peer)), trace(headers));
        let found = self.show(headers, peer);
        let (Shown { identity, credential, claims }, signed) = found.map_err(|unshown| Unidentified {
            unshown,
            client: Arc::clone(&client),
            address: peer.address(),
            trace,
        })?;
        let id = RequestId::random();
        let call = Call { id, caller: identity, key: None, client, trace, credential, claims, behalf: None };
        Ok((call, signed))
    }

    fn show(&self, headers: &HeaderMap, peer: &Peer) -> Result<(Shown, Signed), Unshown> {
        let Evidence { peer: _, authorization } = Evidence::gather(headers, Some(peer))?;
        let text = str::from_utf8(authorization.ok_or(Reason::TokenMissing)?);
        let text = text.map_err(|_| Reason::TokenMalformed)?;
        let (scheme, token) = text.split_once(' ').ok_or(Reason::TokenMalformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Reason::TokenMalformed.into());
        }
        let signed = self.signer.verify(token)?;
        let shown = self.tokens.find(signed.id, signed.digest, TokenUsage::Events)?;
        Ok((shown, signed))
    }

    /// Counts the request as the token's, and it and its connection as the person's.
    fn admit(&self, call: &Call, peer: &Peer) -> Result<(), Exceeded> {
        peer.know(&call.caller, &self.limiter.identities)?;
        self.limiter.identities.request(&call.caller)?;
        self.rates.take(call.credential.id())
    }

    /// Decides, records, and reads.
    async fn read(
        &self,
        call: &Call,
        feature: Feature,
        version: Version,
        path: &str,
        body: Incoming,
    ) -> Result<Page, Fault> {
        let invalid = |message: &str| Fault::new(StatusCode::BAD_REQUEST, message);
        let body = match tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, BODY_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) | Err(_) => {
                let message = format!(
                    "the body must have at most {BODY_MAX} bytes and come within {} s",
                    BODY_TIME_MAX.as_secs()
                );
                let detail = format!("{path}: {message}");
                let kind = RecordKind::Malformed;
                return Err(self
                    .refuse(call, kind, Reason::MessageInvalid, &detail, invalid(&message))
                    .await);
            }
        };
        let ask = Ask::parse(&body, feature, self.broker.clock().now());
        let about = match &ask {
            Ok(Ask::On(cursor)) => format!(" after record {}", cursor.seen),
            Ok(Ask::Since { start, end: _, limit: _ }) => format!(" since {start}"),
            Err(_) => String::new(),
        };
        let review =
            self.review(call, feature.as_str(), &format!("events {}{about}", feature.as_str())).await?;
        let ask = match ask {
            Ok(ask) => self.within(ask).await.map_err(|error| Fault::of(&unreadable(error)))?,
            Err(message) => Err(message),
        };
        let ask = match ask {
            Ok(ask) => ask,
            Err(message) => {
                let detail = format!("{path}: {message}");
                let (kind, reason) = (RecordKind::Malformed, Reason::FieldInvalid);
                return Err(self.refuse(call, kind, reason, &detail, invalid(&message)).await);
            }
        };
        let page = self.page(&review, (feature, version), ask).await;
        page.map_err(|error| Fault::of(&unreadable(error)))
    }

    /// Writes a refusal down, or counts it.
    async fn refuse(
        &self,
        call: &Call,
        kind: RecordKind,
        reason: Reason,
        detail: &str,
        fault: Fault,
    ) -> Fault {
        let record =
            AuditRecord::refusal(self.broker.clock().now(), kind, reason).by(call).with_detail(detail);
        let source = Source::Identity(call.caller.clone());
        match self.limiter.repeats.note(&self.broker, What::Malformed, source, record).await {
            Ok(_) => fault,
            Err(_) => Fault::new(StatusCode::INTERNAL_SERVER_ERROR, AWAY),
        }
    }

    fn introspect(&self, version: Version, signed: &Signed) -> Value {
        let id = uuid(&["token", &signed.id.to_string()]);
        let issued = signed.issued.to_string();
        let features: Vec<_> = signed.features.iter().map(|feature| feature.as_str()).collect();
        match version {
            Version::V1 => json!({"UUID": id, "IssuedAt": issued, "Features": features}),
            Version::V2 => {
                let account = self.signer.account();
                json!({"uuid": id, "issued_at": issued, "features": features, "account_uuid": account})
            }
        }
    }
}

impl Endpoint {
    fn parse(method: &Method, path: &str) -> Option<Self> {
        match (method, path) {
            (&Method::GET, "/api/auth/introspect") => Some(Self::Introspect(Version::V1)),
            (&Method::GET, "/api/v2/auth/introspect") => Some(Self::Introspect(Version::V2)),
            (&Method::POST, path) => {
                let (version, word) = path.strip_prefix("/api/")?.split_once('/')?;
                let version = match version {
                    "v1" => Version::V1,
                    "v2" => Version::V2,
                    _ => return None,
                };
                Feature::parse(word).map(|feature| Self::Read(feature, version))
            }
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Introspect(_) => "introspect",
            Self::Read(feature, _) => feature.as_str(),
        }
    }
}

impl Fault {
    fn new(status: StatusCode, message: &str) -> Self {
        Self { status, message: message.to_owned(), retry_after: None }
    }

    /// What a status of ours is there: the published ones alone, which have no "forbidden".
    fn of(status: &Status) -> Self {
        let (code, retry_after) = match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => (StatusCode::UNAUTHORIZED, None),
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, Some(RETRY)),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        Self { status: code, message: status.message().to_owned(), retry_after }
    }

    /// In both published forms at once.
    fn print(&self) -> Answer {
        let Self { status, message, retry_after } = self;
        let body = json!({"status": status.as_u16(), "message": message, "Error": {"Message": message}});
        let mut answer = print(*status, &body);
        let headers = answer.headers_mut();
        if *status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = retry_after {
            // Whole seconds, and never too early.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
        }
        answer
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::of(&status)
    }
}

fn print(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

const AWAY: &str = "the audit log is not available; nothing was read";
const BODY_MAX: usize = 16 * 1024;
const BODY_TIME_MAX: Duration = Duration::from_secs(5);
/// A query waits for its turn, and then takes its time.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_secs(1);
const PATH_MAX: usize = 200;
