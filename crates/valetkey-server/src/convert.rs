//! Between the proto and the domain. Every field is named: a field added to the proto breaks the build.

mod token;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Timestamp as WireTimestamp;
use valetkey_core::{
    Acquire, AgentId, Binding, Call, Check, CheckAnswer, Destination, EndCause, Issued, LeaseEvent, LeaseId,
    Life, Name, Purpose, Redeemer, SecretReference, Session, TextError, Timestamp, ToolId, scrub,
};
use valetkey_proto::v1;

pub(crate) use self::token::{NewTokenAsk, TokenPurpose, token, token_id};

/// A field that breaks its rules.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// The field's path, such as `references[3]`.
    pub(crate) field: String,
    /// What is wrong, as the rest of a sentence that begins with the field.
    pub(crate) problem: String,
    /// `ErrorInfo.reason`.
    pub(crate) reason: &'static str,
    /// What came, for the record: scrubbed, and only of fields that are not secret.
    pub(crate) came: Option<String>,
}

impl Violation {
    /// A violation whose text is not worth recording.
    pub(crate) fn new(field: impl Into<String>, reason: &'static str, problem: impl ToString) -> Self {
        Self { field: field.into(), problem: problem.to_string(), reason, came: None }
    }
}

impl fmt::Display for Violation {
    /// As the record says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, problem, reason: _, came } = self;
        match came {
            Some(came) => write!(f, "{field} {problem}, came as `{came}`"),
            None => write!(f, "{field} {problem}"),
        }
    }
}

/// The bounds of what may be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskLimits {
    pub(crate) ttl_usual: Duration,
    pub(crate) ttl_max: Duration,
}

/// Parses a request for a lease.
pub(crate) fn acquire(
    message: v1::AcquireLeaseRequest,
    call: Arc<Call>,
    agent: AgentId,
    limits: AskLimits,
) -> Result<Acquire, Vec<Violation>> {
    let v1::AcquireLeaseRequest { tool, references, purpose, ttl, partial, session, destination } = message;
    let mut faults = Faults::default();
    let tool = faults.tool(&tool);
    let references = faults.references(&references);
    let purpose = faults.take("purpose", "INVALID_PURPOSE", Purpose::parse(&purpose));
    let life = faults.life(ttl, limits);
    let session = faults.session(&session);
    let destination = faults.destination(&destination);
    match (tool, purpose, life) {
        (Some(tool), Some(purpose), Some(life)) if faults.0.is_empty() => {
            Ok(Acquire { call, agent, tool, references, purpose, life, partial, session, destination })
        }
        _ => Err(faults.0),
    }
}

/// Parses a dry run.
pub(crate) fn check(
    message: v1::CheckAccessRequest,
    call: Arc<Call>,
    agent: AgentId,
    limits: AskLimits,
) -> Result<Check, Vec<Violation>> {
    let v1::CheckAccessRequest { tool, reference, ttl, session, destination } = message;
    let mut faults = Faults::default();
    let tool = faults.tool(&tool);
    let reference = faults.reference(&reference);
    let life = faults.life(ttl, limits);
    let session = faults.session(&session);
    let destination = faults.destination(&destination);
    match (tool, reference, life) {
        (Some(tool), Some(reference), Some(life)) if faults.0.is_empty() => {
            Ok(Check { call, agent, tool, reference, life, session, destination })
        }
        _ => Err(faults.0),
    }
}

/// Parses an optional destination.
pub(crate) fn destination(text: &str) -> Result<Option<Destination>, Vec<Violation>> {
    let mut faults = Faults::default();
    let destination = faults.destination(text);
    if faults.0.is_empty() { Ok(destination) } else { Err(faults.0) }
}

/// Parses a lease id.
pub(crate) fn lease_id(text: &str) -> Result<LeaseId, Vec<Violation>> {
    LeaseId::parse(text).map_err(|_| {
        vec![Violation::new("lease_id", "INVALID_LEASE_ID", "must be `vkl_` and 16 characters of `0-9 a-v`")]
    })
}

/// Parses the id of what waits for an approval.
pub(crate) fn approval_id(text: &str) -> Result<LeaseId, Vec<Violation>> {
    let problem = "must be `vkl_` and 16 characters of `0-9 a-v`";
    LeaseId::parse(text).map_err(|_| vec![Violation::new("approval_id", "INVALID_APPROVAL_ID", problem)])
}

/// Prints the answer to a dry run.
pub(crate) fn check_answer(answer: CheckAnswer) -> v1::CheckAccessResponse {
    match answer {
        CheckAnswer::Allow { terms, record, needs_approval } => v1::CheckAccessResponse {
            decision: v1::Decision::Allow.into(),
            advice: String::new(),
            record_id: record.to_string(),
            ttl_max: terms.ttl_max.and_then(duration),
            uses: terms.uses,
            redeemer: redeemer(terms.redeemer).into(),
            certificate_bound: terms.binding == Binding::Certificate,
            approval_required: needs_approval,
        },
        CheckAnswer::Deny(denial) => v1::CheckAccessResponse {
            decision: v1::Decision::Deny.into(),
            advice: denial.advice.as_deref().unwrap_or_default().to_owned(),
            record_id: denial.record.to_string(),
            ttl_max: None,
            uses: 0,
            redeemer: v1::Redeemer::Unspecified.into(),
            certificate_bound: false,
            approval_required: false,
        },
    }
}

/// Prints an event of a lease.
pub(crate) fn lease_event(event: LeaseEvent) -> v1::AcquireLeaseResponse {
    use v1::acquire_lease_response::Event;
    let event = match event {
        LeaseEvent::Opened { lease, references } => Event::Opened(v1::LeaseOpened {
            lease_id: lease.to_string(),
            references: references.iter().map(|reference| reference.as_ref().to_owned()).collect(),
        }),
        LeaseEvent::Issued(it) => Event::Issued(issued(it)),
        LeaseEvent::Refused { reference, reason, message, record } => Event::Refused(v1::ReferenceRefused {
            reference: reference.as_ref().to_owned(),
            reason: reason.to_owned(),
            message,
            record_id: record.to_string(),
        }),
        LeaseEvent::Renewed { issued: it, previous } => Event::Renewed(v1::HandleRenewed {
            issued: Some(issued(it)),
            previous_handle_id: previous.to_string(),
        }),
        LeaseEvent::Revoked { reference, handle, cause } => Event::Revoked(v1::HandleRevoked {
            reference: reference.as_ref().to_owned(),
            handle_id: handle.to_string(),
            cause: end_cause(cause).into(),
        }),
        LeaseEvent::Draining { end_time } => {
            Event::Draining(v1::LeaseDraining { end_time: Some(timestamp(end_time)) })
        }
        LeaseEvent::Ended(cause) => Event::Ended(v1::LeaseEnded { cause: end_cause(cause).into() }),
    };
    v1::AcquireLeaseResponse { event: Some(event) }
}

fn issued(it: Issued) -> v1::HandleIssued {
    let Issued { reference, handle, expire_time, terms, record } = it;
    v1::HandleIssued {
        reference: reference.as_ref().to_owned(),
        handle: std::mem::take(&mut *handle.expose_secret()),
        handle_id: handle.id().to_string(),
        expire_time: Some(timestamp(expire_time)),
        uses: terms.uses,
        redeemer: redeemer(terms.redeemer).into(),
        record_id: record.to_string(),
        certificate_bound: terms.binding == Binding::Certificate,
    }
}

/// Prints who can redeem.
pub(crate) fn redeemer(redeemer: Redeemer) -> v1::Redeemer {
    match redeemer {
        Redeemer::Tool => v1::Redeemer::Tool,
        Redeemer::Agent => v1::Redeemer::Agent,
    }
}

fn end_cause(cause: EndCause) -> v1::EndCause {
    match cause {
        EndCause::Caller => v1::EndCause::Caller,
        EndCause::Disconnect => v1::EndCause::Disconnect,
        EndCause::Policy => v1::EndCause::Policy,
        EndCause::Expiry => v1::EndCause::Expiry,
        EndCause::Shutdown => v1::EndCause::Shutdown,
        EndCause::Stalled => v1::EndCause::Stalled,
        EndCause::Unavailable => v1::EndCause::Unavailable,
        EndCause::Credential => v1::EndCause::Credential,
    }
}

/// Prints a moment.
pub(crate) fn timestamp(moment: Timestamp) -> WireTimestamp {
    let micros = moment.as_micros();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000)).unwrap_or_default() * 1000;
    WireTimestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

/// Prints a duration; `None` where the wire has no room for it.
pub(crate) fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// A duration that is none below zero. By hand, because prost's own conversion overflows at the least one.
fn positive(duration: prost_types::Duration) -> Option<Duration> {
    let prost_types::Duration { seconds, nanos } = duration;
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// A duration within bounds, or what is wrong with it.
fn within(ttl: prost_types::Duration, min: Duration, max: Duration) -> Result<Duration, String> {
    let wrong = || format!("must be between {} s and {} s", min.as_secs(), max.as_secs());
    positive(ttl).filter(|ttl| (min..=max).contains(ttl)).ok_or_else(wrong)
}

/// Collects what is wrong, so that all of it is said at once.
#[derive(Default)]
struct Faults(Vec<Violation>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, reason: &'static str, problem: impl ToString) {
        self.0.push(Violation::new(field, reason, problem));
    }

    /// The same, of a field whose text a reviewer wants to see.
    fn add_text(
        &mut self,
        field: impl Into<String>,
        reason: &'static str,
        problem: impl ToString,
        text: &str,
    ) {
        let came = Some(scrub(text, CAME_MAX));
        self.0.push(Violation { came, ..Violation::new(field, reason, problem) });
    }

    fn take<T, E: ToString>(&mut self, field: &str, reason: &'static str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(field, reason, error)).ok()
    }

    fn tool(&mut self, text: &str) -> Option<ToolId> {
        self.take("tool", "INVALID_TOOL", Name::parse(text)).map(ToolId)
    }

    fn reference(&mut self, text: &str) -> Option<SecretReference> {
        let parsed = SecretReference::parse(text);
        parsed.map_err(|error| self.add_text("reference", INVALID_REFERENCE, error, text)).ok()
    }

    fn references(&mut self, texts: &[String]) -> Vec<SecretReference> {
        if texts.is_empty() || texts.len() > REFERENCES_MAX {
            let problem = format!("must have 1 to {REFERENCES_MAX} entries, has {}", texts.len());
            self.add("references", INVALID_REFERENCE, problem);
            return Vec::new();
        }
        let mut seen = HashSet::with_capacity(texts.len());
        let mut references = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            let field = || format!("references[{place}]");
            match SecretReference::parse(text) {
                Ok(reference) => references.push(reference),
                Err(error) => self.add_text(field(), INVALID_REFERENCE, error, text),
            }
            if !seen.insert(text) {
                self.add(field(), INVALID_REFERENCE, "must not repeat an entry before it");
            }
        }
        references
    }

    fn life(&mut self, ttl: Option<prost_types::Duration>, limits: AskLimits) -> Option<Life> {
        let Some(ttl) = ttl else { return Some(Life::Usual(limits.ttl_usual)) };
        self.take("ttl", INVALID_TTL, within(ttl, TTL_MIN, limits.ttl_max)).map(Life::Asked)
    }

    fn session(&mut self, text: &str) -> Option<Session> {
        self.optional("session", "INVALID_SESSION", text, Session::parse)
    }

    fn destination(&mut self, text: &str) -> Option<Destination> {
        self.optional("destination", "INVALID_DESTINATION", text, Destination::parse)
    }

    fn optional<T>(
        &mut self,
        field: &str,
        reason: &'static str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, TextError>,
    ) -> Option<T> {
        if text.is_empty() { None } else { self.take(field, reason, parse(text)) }
    }
}

const INVALID_TTL: &str = "INVALID_TTL";
const INVALID_REFERENCE: &str = "INVALID_SECRET_REFERENCE";
/// References of one request.
const REFERENCES_MAX: usize = 64;
/// What of a malformed text is recorded, in bytes.
const CAME_MAX: usize = 100;
const TTL_MIN: Duration = Duration::from_secs(1);
