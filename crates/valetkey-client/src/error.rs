//! Why a call failed, by who has to act, each with the next step.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use valetkey_proto::v1::EndCause;

use crate::address::page;

/// Why the broker did not do what was asked. Never holds a handle, a token or a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Policy refuses.
    #[error("access denied{}; {}{}", about(.reference), .advice.as_deref().unwrap_or("ask a reviewer for the reason"), record(.record_id))]
    Denied {
        /// The stable code.
        reason: String,
        /// What the caller can do, in the policy author's words.
        advice: Option<String>,
        /// The reference refused first, as asked.
        reference: Option<String>,
        /// The audit record.
        record_id: Option<String>,
    },
    /// Policy allows, but there is no such vault, item, field or record.
    #[error("{message}{}{}", look(.reference), record(.record_id))]
    NotFound {
        /// The stable code, such as `ITEM_NOT_FOUND`.
        reason: String,
        /// What the broker says.
        message: String,
        /// The reference, as asked.
        reference: Option<String>,
        /// The audit record.
        record_id: Option<String>,
    },
    /// Policy allows, but the reference cannot be given as asked: it is ambiguous, or no such kind.
    #[error("{message}{}", record(.record_id))]
    Precondition {
        /// The stable code, such as `AMBIGUOUS_REFERENCE`.
        reason: String,
        /// What the broker says.
        message: String,
        /// The reference, as asked.
        reference: Option<String>,
        /// The audit record.
        record_id: Option<String>,
    },
    /// Policy allows, once a person has approved it. That takes minutes: nothing is asked again by itself.
    #[error("a person has to approve this{}: {}; then ask again{}", about(.reference), approve(.approval_id, .url), record(.record_id))]
    ApprovalRequired {
        /// What the person approves, `vkl_…`; not a secret.
        approval_id: String,
        /// Where the person can do so, over TLS or on this machine, if the broker says.
        url: Option<String>,
        /// The first reference that needs it, as asked.
        reference: Option<String>,
        /// The audit record.
        record_id: Option<String>,
    },
    /// The handle is unknown, spent, expired, revoked or somebody else's; the broker does not say which.
    #[error("the handle is not active; ask the agent for a fresh one{}", record(.record_id))]
    HandleNotActive {
        /// The audit record, which says which.
        record_id: Option<String>,
    },
    /// What was shown is nobody's.
    #[error(
        "the broker does not know who calls; `valetkey doctor --connect` says what it was sent, and what to check"
    )]
    Unauthenticated,
    /// The token of the person whom the call was for is not good.
    #[error(
        "the broker does not take this token of the person on whose behalf; get a fresh one from its issuer"
    )]
    PersonUnauthenticated,
    /// The request breaks the rules.
    #[error("the request is invalid: {}{}", broken(.violations, .message), record(.record_id))]
    Invalid {
        /// The stable code, such as `INVALID_SECRET_REFERENCE`.
        reason: String,
        /// What the broker says.
        message: String,
        /// Each rule broken.
        violations: Vec<Violation>,
        /// The audit record.
        record_id: Option<String>,
    },
    /// A bound or a quota is reached.
    #[error("{message}; {}", retry(.retry_after))]
    LimitReached {
        /// The stable code, such as `LEASE_LIMIT`, `RESOLVER_RATE_LIMITED`.
        reason: String,
        /// What the broker says.
        message: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// The broker, its log or its source is away. Nothing was given out.
    #[error("{message}; {}", retry(.retry_after))]
    Unavailable {
        /// The stable code, such as `AUDIT_UNAVAILABLE`; empty where the connection itself failed.
        reason: String,
        /// What the broker or the connection says.
        message: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// No answer in time. Whether the broker did it is not known; a redeem may have spent a use.
    #[error("no answer within {} s; look into the audit log before asking again", .0.as_secs())]
    TimedOut(Duration),
    /// The stream of a lease closed without saying why: treat its handles as dead.
    #[error("the lease was lost ({0}); its handles are dead, acquire a new one")]
    LeaseLost(String),
    /// The lease, or its handle for this reference, has ended: the cause is the broker's.
    #[error("{}", ended(.0))]
    LeaseEnded(EndCause),
    /// What answers breaks HTTP/2, as a broker with TLS does where it is called in clear text.
    #[error("{message}; no broker answers so; one with TLS has an address that begins with `https://`")]
    NoBroker {
        /// What the connection says.
        message: String,
    },
    /// The broker failed.
    #[error("the broker failed: {message}; tell the operator{}", request(.request_id))]
    Internal {
        /// What the broker says.
        message: String,
        /// The call's id in the broker's log.
        request_id: Option<String>,
    },
}

/// One rule that a request breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, such as `references[2]`.
    pub field: String,
    /// The rule.
    pub description: String,
}

impl CallError {
    /// The stable code of the broker; empty where it gave none.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Denied { reason, .. }
            | Self::NotFound { reason, .. }
            | Self::Precondition { reason, .. }
            | Self::Invalid { reason, .. }
            | Self::LimitReached { reason, .. }
            | Self::Unavailable { reason, .. } => reason,
            Self::ApprovalRequired { .. } => APPROVAL_REQUIRED,
            Self::HandleNotActive { .. } => HANDLE_NOT_ACTIVE,
            Self::PersonUnauthenticated => PERSON_UNAUTHENTICATED,
            Self::Unauthenticated
            | Self::TimedOut(_)
            | Self::LeaseLost(_)
            | Self::LeaseEnded(_)
            | Self::NoBroker { .. }
            | Self::Internal { .. } => "",
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| printable(&info.reason)).unwrap_or_default();
        let message = printable(status.message());
        let record_id = metadata(&details, "record_id");
        let reference = metadata(&details, "reference");
        let retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        match status.code() {
            Code::PermissionDenied => {
                Self::Denied { reason, advice: metadata(&details, "advice"), reference, record_id }
            }
            Code::NotFound => Self::NotFound { reason, message, reference, record_id },
            Code::FailedPrecondition if reason == HANDLE_NOT_ACTIVE => Self::HandleNotActive { record_id },
            Code::FailedPrecondition if reason == APPROVAL_REQUIRED => match approval_id(&details) {
                Some(approval_id) => {
                    Self::ApprovalRequired { approval_id, url: page_of(&details), reference, record_id }
                }
                None => Self::Precondition { reason, message, reference, record_id },
            },
            // Of a record that is not what was signed: the caller has to be told which reason it is.
            Code::DataLoss if !reason.is_empty() => {
                Self::Precondition { reason, message, reference, record_id }
            }
            Code::FailedPrecondition => Self::Precondition { reason, message, reference, record_id },
            Code::Unauthenticated if reason == PERSON_UNAUTHENTICATED => Self::PersonUnauthenticated,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::InvalidArgument | Code::OutOfRange => {
                Self::Invalid { reason, message, violations: violations_of(&details), record_id }
            }
            Code::ResourceExhausted => Self::LimitReached { reason, message, retry_after },
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => {
                Self::Unavailable { reason, message, retry_after }
            }
            // A connection that breaks in mid-call has no better code, and no details.
            Code::Unknown if details.error_info().is_none() => {
                Self::Unavailable { reason, message, retry_after }
            }
            // Likewise: what the broker says itself always has them.
            Code::Internal if details.error_info().is_none() => Self::NoBroker { message },
            Code::Ok
            | Code::Unknown
            | Code::AlreadyExists
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Internal {
                message,
                request_id: details.request_info().map(|info| printable(&info.request_id)),
            },
        }
    }
}

fn metadata(details: &ErrorDetails, key: &str) -> Option<String> {
    let text = details.error_info()?.metadata.get(key)?;
    (!text.is_empty()).then(|| printable(text))
}

/// It stands in a command that a person may copy, so it is nothing but an id.
fn approval_id(details: &ErrorDetails) -> Option<String> {
    metadata(details, "approval_id").filter(|id| is_id(id))
}

/// The id in the message of a reference that waits, in a lease that asked for `partial`: it has no field of its own.
pub(crate) fn approval_in(message: &str) -> Option<String> {
    let words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.into_iter().find(|word| word.starts_with("vkl_") && is_id(word)).map(str::to_owned)
}

fn is_id(id: &str) -> bool {
    id.len() <= ID_LENGTH_MAX && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

fn page_of(details: &ErrorDetails) -> Option<String> {
    page(&details.help()?.links.first()?.url)
}

fn violations_of(details: &ErrorDetails) -> Vec<Violation> {
    let Some(request) = details.bad_request() else { return Vec::new() };
    let violation = |rule: &tonic_types::FieldViolation| Violation {
        field: printable(&rule.field),
        description: printable(&rule.description),
    };
    request.field_violations.iter().take(VIOLATIONS_MAX).map(violation).collect()
}

/// A text from the network, fit for a terminal and a log.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).take(TEXT_MAX).collect()
}

/// Whether a character ends a line, or turns the direction of what follows (Unicode, annex 9, section 2).
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn about(reference: &Option<String>) -> String {
    reference.as_ref().map(|reference| format!(" for `{reference}`")).unwrap_or_default()
}

fn approve(id: &str, url: &Option<String>) -> String {
    let command = format!("`valetkey approval approve {id}`");
    url.as_ref().map_or(format!("by {command}"), |url| format!("at {url}, or by {command}"))
}

/// A record or a lease is no vault's.
fn look(reference: &Option<String>) -> &'static str {
    if reference.is_some() { "; check it against the vault" } else { "" }
}

fn record(id: &Option<String>) -> String {
    id.as_ref().map(|id| format!(" (audit record {id})")).unwrap_or_default()
}

fn request(id: &Option<String>) -> String {
    id.as_ref().map(|id| format!(" its request id {id}")).unwrap_or_default()
}

fn ended(cause: &EndCause) -> &'static str {
    match cause {
        EndCause::Caller => "the lease was ended by its holder or an operator; its handles are dead",
        EndCause::Policy => "policy no longer allows it; its handles are dead, ask a reviewer for the reason",
        EndCause::Expiry => "no handle of the lease is alive any more; acquire a new one",
        EndCause::Credential => {
            "the token that the lease was opened with was revoked or has had its time; acquire with another"
        }
        EndCause::Shutdown => "the broker stopped; its handles are dead, acquire a new one",
        EndCause::Unavailable => {
            "a handle could not be renewed because the log or the source was away; acquire a new one"
        }
        EndCause::Disconnect => "the lease's connection was lost; its handles are dead, acquire a new one",
        EndCause::Stalled => "the lease's events were not read; its handles are dead, acquire a new one",
        EndCause::Unspecified => "the lease is over; acquire a new one",
    }
}

fn retry(after: &Option<Duration>) -> String {
    after.map_or("try again later".into(), |after| format!("try again in {} s", after.as_secs().max(1)))
}

fn broken(violations: &[Violation], message: &str) -> String {
    if violations.is_empty() {
        return message.to_owned();
    }
    let lines: Vec<_> = violations.iter().map(|v| format!("{} {}", v.field, v.description)).collect();
    lines.join("; ")
}

const APPROVAL_REQUIRED: &str = "APPROVAL_REQUIRED";
const HANDLE_NOT_ACTIVE: &str = "HANDLE_NOT_ACTIVE";
const PERSON_UNAUTHENTICATED: &str = "PERSON_UNAUTHENTICATED";
const ID_LENGTH_MAX: usize = 64;
const VIOLATIONS_MAX: usize = 128;
const TEXT_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn status(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
        let metadata: HashMap<_, _> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let details = ErrorDetails::with_error_info(reason, "valetkey", metadata);
        Status::with_error_details(code, "the message", details)
    }

    #[test]
    fn each_fault_says_what_to_do() {
        let check = |status: Status, says: &str| assert_eq!(CallError::from(status).to_string(), says);
        check(
            status(Code::PermissionDenied, "ACCESS_DENIED", &[("record_id", "7"), ("advice", "use navan")]),
            "access denied; use navan (audit record 7)",
        );
        check(
            status(Code::PermissionDenied, "ACCESS_DENIED", &[("reference", "op://a/b/c")]),
            "access denied for `op://a/b/c`; ask a reviewer for the reason",
        );
        check(
            status(Code::FailedPrecondition, HANDLE_NOT_ACTIVE, &[("record_id", "7")]),
            "the handle is not active; ask the agent for a fresh one (audit record 7)",
        );
        check(status(Code::FailedPrecondition, "AMBIGUOUS_REFERENCE", &[]), "the message");
        check(
            status(Code::NotFound, "ITEM_NOT_FOUND", &[("reference", "op://a/b/c"), ("record_id", "7")]),
            "the message; check it against the vault (audit record 7)",
        );
        check(status(Code::NotFound, "RECORD_NOT_FOUND", &[]), "the message");
        check(status(Code::Unavailable, "AUDIT_UNAVAILABLE", &[]), "the message; try again later");
        check(status(Code::Internal, "INTERNAL", &[]), "the broker failed: the message; tell the operator");
        check(
            Status::internal("h2 protocol error"),
            "h2 protocol error; no broker answers so; one with TLS has an address that begins with `https://`",
        );
        check(Status::unknown("h2 protocol error"), "h2 protocol error; try again later");
    }

    #[test]
    fn details_are_read() {
        let mut details = ErrorDetails::with_retry_info(Some(Duration::from_secs(9)));
        let status = Status::with_error_details(Code::ResourceExhausted, "quota", details.clone());
        assert_eq!(CallError::from(status).to_string(), "quota; try again in 9 s");
        details.add_bad_request_violation("tool", "must not be empty");
        details.add_bad_request_violation("ttl", "must be positive");
        let status = Status::with_error_details(Code::InvalidArgument, "bad", details);
        assert_eq!(
            CallError::from(status).to_string(),
            "the request is invalid: tool must not be empty; ttl must be positive"
        );
    }

    #[test]
    fn an_approval_says_who_has_to_do_what() {
        let check = |id: &str, link: Option<&str>, says: &str| {
            let mut details = ErrorDetails::with_error_info(
                APPROVAL_REQUIRED,
                "valetkey",
                HashMap::from([
                    ("approval_id".to_owned(), id.to_owned()),
                    ("record_id".to_owned(), "7".to_owned()),
                ]),
            );
            if let Some(link) = link {
                details.set_help(vec![tonic_types::HelpLink::new("approve", link)]);
            }
            let status = Status::with_error_details(Code::FailedPrecondition, "the message", details);
            assert_eq!(CallError::from(status).to_string(), says);
        };
        let by = "a person has to approve this: by `valetkey approval approve vkl_1`; then ask again (audit record 7)";
        check("vkl_1", None, by);
        check("vkl_1", Some("javascript:alert(1)"), by);
        check(
            "vkl_1",
            Some("https://ok.example/vkl_1"),
            "a person has to approve this: at https://ok.example/vkl_1, or by `valetkey approval approve vkl_1`; \
             then ask again (audit record 7)",
        );
        check("vkl_1; rm", None, "the message (audit record 7)");
        check("", None, "the message (audit record 7)");
    }

    #[test]
    fn hostile_text_is_harmless() {
        let text = CallError::from(Status::unavailable(format!("\u{1b}[2J{}", "a".repeat(9999)))).to_string();
        assert!(!text.contains('\u{1b}') && text.len() < 3000);
        let text = CallError::from(Status::unavailable("a\u{202e}b\u{2066}c\u{2028}d\u{61c}e")).to_string();
        assert_eq!(text, "a b c d e; try again later");
    }
}
