//! The only place where an error becomes a `tonic::Status`: what the caller may read is chosen here.
//!
//! Every status carries `ErrorInfo` with a stable reason; docs/errors.md is the catalogue, and a test
//! holds it against [`CATALOGUE`].

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};
use valetkey_core::{Fault, LeaseId, RecordId, Refusal, ResolveError, approval_message};

use crate::config::ApprovalLink;
use crate::convert::Violation;

/// The domain of every `ErrorInfo`.
pub(crate) const DOMAIN: &str = "valetkey";

/// Every reason, its code, and what the caller does next.
pub(crate) const CATALOGUE: &[(&str, Code, &str)] = &[
    (
        "ACCESS_DENIED",
        Code::PermissionDenied,
        "Read the advice in the message, or show the record id to a reviewer.",
    ),
    (
        "AGENT_UNAUTHENTICATED",
        Code::Unauthenticated,
        "Send `authorization: Bearer` with a token that the broker knows; the record says what is wrong with it.",
    ),
    ("AMBIGUOUS_REFERENCE", Code::FailedPrecondition, "Name the vault, item, section or field by its id."),
    (
        "APPROVAL_LIMIT",
        Code::ResourceExhausted,
        "Have a person decide what waits, or wait: QuotaFailure names the bound.",
    ),
    (
        "APPROVAL_NOT_FOUND",
        Code::NotFound,
        "It is decided already, or has waited too long: have the agent ask again.",
    ),
    (
        "APPROVAL_REQUIRED",
        Code::FailedPrecondition,
        "Have a person approve `approval_id`, then ask again with the same tool and references.",
    ),
    ("AUDIT_UNAVAILABLE", Code::Unavailable, "Wait for the delay in RetryInfo. Nothing was done."),
    (
        "CALL_TIMED_OUT",
        Code::DeadlineExceeded,
        "Send the whole message at once; ask the operator where that was so.",
    ),
    (
        "DIGEST_KEY_MISSING",
        Code::FailedPrecondition,
        "Ask the operator: the configuration says `digest_key = false`.",
    ),
    (
        "EVENTS_NOT_SERVED",
        Code::FailedPrecondition,
        "Add `[events]` to the broker's configuration, and restart it.",
    ),
    ("FIELD_NOT_FOUND", Code::NotFound, "Check the field's label in the vault."),
    ("FIELD_NOT_OTP", Code::FailedPrecondition, "Leave `?attribute=otp` out."),
    ("FIELD_NOT_PRIVATE_KEY", Code::FailedPrecondition, "Leave `?ssh-format=openssh` out."),
    ("FILE_NOT_TEXT", Code::FailedPrecondition, "Only text files can be read."),
    (
        "HANDLE_NOT_ACTIVE",
        Code::FailedPrecondition,
        "Ask the agent for a fresh handle; the record says why this one is dead.",
    ),
    (
        "IDENTITY_LIMIT",
        Code::ResourceExhausted,
        "Wait for the delay in RetryInfo, and do less at once: QuotaFailure names the bound.",
    ),
    ("INTERNAL", Code::Internal, "Show the request id to the operator."),
    ("INVALID_APPROVAL_ID", Code::InvalidArgument, "Send the id as the refusal named it."),
    ("INVALID_DESTINATION", Code::InvalidArgument, "See the field violations."),
    ("INVALID_FILTER", Code::InvalidArgument, "See the field violations."),
    ("INVALID_FORMAT", Code::InvalidArgument, "Send one of the published formats."),
    ("INVALID_HANDLE", Code::InvalidArgument, "Send the handle whole: 61 characters."),
    ("INVALID_IDENTITY", Code::InvalidArgument, "See the field violations."),
    ("INVALID_LEASE_ID", Code::InvalidArgument, "Send the lease id as `opened` named it."),
    ("INVALID_MESSAGE", Code::InvalidArgument, "Use the published protos, and messages of at most 1 MiB."),
    ("INVALID_NAME", Code::InvalidArgument, "See the field violations."),
    ("INVALID_PAGE_SIZE", Code::InvalidArgument, "Send 0 to 1000."),
    ("INVALID_PAGE_TOKEN", Code::InvalidArgument, "Send the token of the page before, with the same filter."),
    ("INVALID_PERIOD", Code::InvalidArgument, "See the field violations."),
    ("INVALID_PURPOSE", Code::InvalidArgument, "See the field violations."),
    (
        "INVALID_RECORD_ID",
        Code::InvalidArgument,
        "Send a decimal sequence number, not beyond the newest record.",
    ),
    ("INVALID_SECRET_REFERENCE", Code::InvalidArgument, "See the field violations."),
    ("INVALID_SESSION", Code::InvalidArgument, "See the field violations."),
    ("INVALID_TOKEN_ID", Code::InvalidArgument, "Send the id alone: `vkt_` or `vke_` and 16 characters."),
    ("INVALID_TOKEN_USAGE", Code::InvalidArgument, "See the field violations."),
    ("INVALID_TOOL", Code::InvalidArgument, "See the field violations."),
    ("INVALID_TTL", Code::InvalidArgument, "See the field violations."),
    ("INVALID_VALUE", Code::InvalidArgument, "Send 1 byte to 64 KiB."),
    ("ITEM_NOT_ACTIVE", Code::FailedPrecondition, "Restore the item, or name another."),
    ("ITEM_NOT_FOUND", Code::NotFound, "Check the item's title in the vault."),
    ("LEASE_LIMIT", Code::ResourceExhausted, "End leases that are no longer needed."),
    ("LEASE_NOT_FOUND", Code::NotFound, "The lease has ended already."),
    ("METHOD_UNKNOWN", Code::Unimplemented, "Use the published protos."),
    ("OTP_SEED_MALFORMED", Code::FailedPrecondition, "Mend the one-time password in the vault."),
    (
        "PERSON_UNAUTHENTICATED",
        Code::Unauthenticated,
        "Send one signed token of the person as `x-valetkey-on-behalf-of`, fresh from its issuer, or none.",
    ),
    ("POLICY_IN_FLUX", Code::Unavailable, "Ask again: the policies changed while this was decided."),
    ("PRIVATE_KEY_MALFORMED", Code::FailedPrecondition, "Read the key without `?ssh-format=openssh`."),
    ("QUERY_LIMIT", Code::ResourceExhausted, "Ask again with a narrower filter."),
    (
        "RECORD_CHANGED",
        Code::DataLoss,
        "Run `valetkey audit verify`: the log is not what was signed. Keep the database as it is.",
    ),
    ("RECORD_NOT_FOUND", Code::NotFound, "Check the record id."),
    ("RECORD_NOT_SIGNED", Code::FailedPrecondition, "Ask again after the next checkpoint, in a minute."),
    ("REFERENCE_CHANGED", Code::Unavailable, "Ask again: the item was changed while it was read."),
    (
        "RESOLVER_CREDENTIALS_REFUSED",
        Code::Unavailable,
        "Tell the operator: the source does not accept the broker's credentials.",
    ),
    ("RESOLVER_RATE_LIMITED", Code::ResourceExhausted, "Wait for the delay in RetryInfo."),
    ("RESOLVER_UNAVAILABLE", Code::Unavailable, "Wait for the delay in RetryInfo."),
    ("SECTION_NOT_FOUND", Code::NotFound, "Check the section's label in the vault."),
    ("SHUTTING_DOWN", Code::Unavailable, "Connect to another broker, or wait for this one to come back."),
    (
        "TOKEN_CONFIGURED",
        Code::FailedPrecondition,
        "Take the token out of the configuration, and restart the broker.",
    ),
    ("TOKEN_LIMIT", Code::ResourceExhausted, "Revoke tokens that are no longer needed."),
    ("TOKEN_NOT_FOUND", Code::NotFound, "Check the id; the token may be revoked already."),
    ("VAULT_NOT_FOUND", Code::NotFound, "Check the vault's name."),
];

/// Nobody knows the caller. Why is for the record alone.
pub(crate) fn unauthenticated() -> Status {
    build("AGENT_UNAUTHENTICATED", "no valid token came with the request", None, ErrorDetails::new())
}

/// What the request is on behalf of is not proved. Why is for the record alone.
pub(crate) fn person_unauthenticated() -> Status {
    let message = "no valid token of a person came with `x-valetkey-on-behalf-of`";
    build("PERSON_UNAUTHENTICATED", message, None, ErrorDetails::new())
}

/// There is no such token to revoke.
pub(crate) fn token_not_found(record: RecordId) -> Status {
    build("TOKEN_NOT_FOUND", "there is no such token", Some(record), ErrorDetails::new())
}

/// The token is in the configuration, which is not the broker's to change.
pub(crate) fn token_configured(record: RecordId) -> Status {
    build("TOKEN_CONFIGURED", "the token stands in the configuration", Some(record), ErrorDetails::new())
}

/// Too many tokens.
pub(crate) fn token_limit(max: usize, record: RecordId) -> Status {
    let message = format!("there are {max} tokens already");
    let details = ErrorDetails::with_quota_failure_violation("tokens", message.clone());
    Facts::new("TOKEN_LIMIT", message).record(record).fact("max", &max.to_string()).build(details)
}

/// There is no Events API that a token could be for.
pub(crate) fn events_not_served(record: RecordId) -> Status {
    let message = "the broker serves no Events API";
    build("EVENTS_NOT_SERVED", message, Some(record), ErrorDetails::new())
}

/// The kind of caller has no business with this call.
pub(crate) fn wrong_caller(record: RecordId) -> Status {
    build("ACCESS_DENIED", "policy does not allow this", Some(record), ErrorDetails::new())
}

/// Fields break their rules; all of them are named, the first gives the reason.
pub(crate) fn invalid(violations: &[Violation], record: RecordId) -> Status {
    let fields: Vec<_> = violations
        .iter()
        .take(VIOLATIONS_MAX)
        .map(|violation| FieldViolation::new(violation.field.clone(), violation.problem.clone()))
        .collect();
    let message =
        violations.first().map_or_else(String::new, |first| format!("`{}` {}", first.field, first.problem));
    let reason = violations.first().map_or("INVALID_MESSAGE", |first| first.reason);
    build(reason, &message, Some(record), ErrorDetails::with_bad_request(fields))
}

/// The message could not be read at all.
pub(crate) fn invalid_message(record: Option<RecordId>) -> Status {
    build("INVALID_MESSAGE", "the message cannot be read", record, ErrorDetails::new())
}

/// The call took too long to its first answer.
pub(crate) fn timed_out(record: Option<RecordId>) -> Status {
    build("CALL_TIMED_OUT", "the call took too long", record, ErrorDetails::new())
}

/// There is no such method.
pub(crate) fn unknown_method(record: Option<RecordId>) -> Status {
    build("METHOD_UNKNOWN", "there is no such method", record, ErrorDetails::new())
}

/// The caller is over a bound of its own. The record is absent where it is one of many.
pub(crate) fn identity_limit(
    limit: &str,
    max: u64,
    retry_after: Duration,
    record: Option<RecordId>,
) -> Status {
    let message = format!("too much at once: {limit} may be at most {max}");
    let mut details = ErrorDetails::with_quota_failure_violation(limit, message.clone());
    details.set_retry_info(Some(retry_after));
    let facts = Facts::new("IDENTITY_LIMIT", message).fact("limit", limit).fact("max", &max.to_string());
    match record {
        Some(record) => facts.record(record),
        None => facts,
    }
    .build(details)
}

/// The log cannot be written, or read.
pub(crate) fn audit_unavailable() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_SOON));
    build("AUDIT_UNAVAILABLE", "the audit log is not available; nothing was done", None, details)
}

/// The query costs too much, or too many are under way.
pub(crate) fn query_limit(problem: &str) -> Status {
    build("QUERY_LIMIT", problem, None, ErrorDetails::with_retry_info(Some(RETRY_SOON)))
}

/// Values leave no digest here, so none can be found.
pub(crate) fn digest_key_missing(record: RecordId) -> Status {
    let message = "this broker keeps no digests of values";
    build("DIGEST_KEY_MISSING", message, Some(record), ErrorDetails::new())
}

/// There is no such record.
pub(crate) fn record_not_found() -> Status {
    build("RECORD_NOT_FOUND", "there is no such record", None, ErrorDetails::new())
}

/// No checkpoint covers it yet; one will within `[audit] checkpoint_seconds`.
pub(crate) fn record_not_signed() -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_SOON));
    build("RECORD_NOT_SIGNED", "no checkpoint covers the record yet", None, details)
}

/// The record, or what is around it, is not what was signed.
pub(crate) fn record_changed() -> Status {
    build("RECORD_CHANGED", "the record is not what was signed", None, ErrorDetails::new())
}

/// The broker stops.
pub(crate) fn shutting_down(record: Option<RecordId>) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_SOON));
    build("SHUTTING_DOWN", "the broker is about to stop", record, details)
}

/// Our fault. The cause is in our log.
pub(crate) fn internal(request: &str) -> Status {
    build("INTERNAL", "the broker failed", None, ErrorDetails::with_request_info(request, ""))
}

/// What the broker refuses.
pub(crate) fn refused(refusal: &Refusal, request: &str) -> Status {
    match refusal {
        Refusal::Denied { denial, reference } => {
            let mut status = Facts::new("ACCESS_DENIED", denial.message()).record(denial.record);
            if let Some(advice) = &denial.advice {
                status = status.fact("advice", advice);
            }
            if let Some(reference) = reference {
                status = status.fact("reference", reference);
            }
            status.build(ErrorDetails::new())
        }
        Refusal::ApprovalRequired { id, reference, record } => {
            approval_required(*id, reference, *record, None)
        }
        Refusal::AskLimit { full, record } => {
            let message = full.to_string();
            let details = ErrorDetails::with_quota_failure_violation(full.limit, message.clone());
            Facts::new("APPROVAL_LIMIT", message)
                .record(*record)
                .fact("limit", full.limit)
                .fact("max", &full.max.to_string())
                .build(details)
        }
        Refusal::AskNotFound { record } => {
            build("APPROVAL_NOT_FOUND", "nothing waits under this id", Some(*record), ErrorDetails::new())
        }
        Refusal::Unresolved { error, reference, record } => unresolved(error, reference, *record),
        Refusal::HandleMalformed { record } => build(
            "INVALID_HANDLE",
            "`handle` is not whole: it has 61 characters and ends in a checksum",
            Some(*record),
            ErrorDetails::with_bad_request_violation(
                "handle",
                "is not whole: it has 61 characters and ends in a checksum",
            ),
        ),
        Refusal::HandleNotActive { record } => {
            build("HANDLE_NOT_ACTIVE", "the handle cannot be redeemed", Some(*record), ErrorDetails::new())
        }
        Refusal::LeaseNotFound { record } => {
            build("LEASE_NOT_FOUND", "there is no such lease", Some(*record), ErrorDetails::new())
        }
        Refusal::LeaseLimit { full, record } => {
            let message = format!("too many leases: {} may be at most {}", full.limit, full.max);
            let details = ErrorDetails::with_quota_failure_violation(full.limit, message.clone());
            Facts::new("LEASE_LIMIT", message)
                .record(*record)
                .fact("limit", full.limit)
                .fact("max", &full.max.to_string())
                .build(details)
        }
        // Whoever keeps the records of these makes their status too.
        Refusal::AgentLimit { full } => {
            identity_limit(full.limit, u64::try_from(full.max).unwrap_or(u64::MAX), RETRY_SOON, None)
        }
        Refusal::PolicyInFlux => build(
            "POLICY_IN_FLUX",
            "the policies changed while this was decided",
            None,
            ErrorDetails::with_retry_info(Some(RETRY_SOON)),
        ),
        Refusal::Draining { record } => shutting_down(Some(*record)),
        Refusal::CredentialRevoked => unauthenticated(),
        Refusal::AuditUnavailable(error) => {
            tracing::error!(%error, request, "refused: the decision cannot be written down");
            audit_unavailable()
        }
        Refusal::Broken => {
            tracing::error!(request, "refused: an invariant does not hold");
            internal(request)
        }
    }
}

/// Policy allows it once a person has approved it. `link` is the page to do so at.
pub(crate) fn approval_required(
    id: LeaseId,
    reference: &str,
    record: RecordId,
    link: Option<&ApprovalLink>,
) -> Status {
    let details = link.map_or_else(ErrorDetails::new, |link| {
        ErrorDetails::with_help_link("approve it or reject it, as a person", link.to(id))
    });
    Facts::new("APPROVAL_REQUIRED", approval_message(id))
        .record(record)
        .fact("approval_id", &id.to_string())
        .fact("reference", reference)
        .build(details)
}

/// An allowed agent may know that a reference names nothing; the message is the core's own text.
fn unresolved(error: &ResolveError, reference: &str, record: RecordId) -> Status {
    let details = match (error.retry_after(), error.fault()) {
        (Some(wait), _) => ErrorDetails::with_retry_info(Some(wait)),
        (None, Fault::Unavailable) => ErrorDetails::with_retry_info(Some(RETRY_SOON)),
        (None, _) => ErrorDetails::new(),
    };
    Facts::new(error.code(), format!("`{reference}`: {error}"))
        .record(record)
        .fact("reference", reference)
        .build(details)
}

fn build(reason: &'static str, message: &str, record: Option<RecordId>, details: ErrorDetails) -> Status {
    let facts = Facts::new(reason, message.to_owned());
    match record {
        Some(record) => facts.record(record),
        None => facts,
    }
    .build(details)
}

/// A status in the making: everything dynamic in the message stands in the metadata too.
struct Facts {
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
}

impl Facts {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message, metadata: HashMap::new() }
    }

    fn fact(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    fn record(self, record: RecordId) -> Self {
        self.fact("record_id", &record.to_string())
    }

    fn build(self, mut details: ErrorDetails) -> Status {
        let Self { reason, message, metadata } = self;
        let known = CATALOGUE.iter().find(|(known, _, _)| *known == reason);
        let code = known.map_or(Code::Internal, |(_, code, _)| *code);
        details.set_error_info(reason, DOMAIN, metadata);
        Status::with_error_details(code, message, details)
    }
}

/// When to ask again where nothing better is known.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// How many field violations a status names; a status must fit into the headers of HTTP/2.
const VIOLATIONS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resolve_error_is_in_the_catalogue() {
        use ResolveError::*;
        let all = [
            VaultNotFound,
            TooManyVaults,
            ItemNotFound,
            TooManyItems,
            NoMatchingSections,
            FieldNotFound,
            TooManyMatchingFields,
            IncompatibleTotpQueryParameterField,
            UnableToGenerateTotpCode,
            IncompatibleSshKeyQueryParameterField,
            UnableToFormatPrivateKey,
            UnsupportedFileFormat,
            ItemNotActive,
            RateLimited { retry_after: Duration::from_secs(9) },
            BudgetSpent { retry_after: Duration::from_secs(9) },
            Paused { error: CredentialsRefused.into(), retry_after: Duration::from_secs(9) },
            Unavailable,
            CredentialsRefused,
            Changed,
        ];
        for error in all {
            let status = unresolved(&error, "op://v/i/f", RecordId(7));
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (error.code(), DOMAIN));
            assert_eq!(info.metadata["record_id"], "7");
            assert_ne!(status.code(), Code::Internal, "{error}");
        }
    }

    #[test]
    fn whoever_has_to_wait_is_told_for_what_and_how_long() {
        use ResolveError::*;
        let nine = Duration::from_secs(9);
        let check = |error: ResolveError, reason: &str, message: &str, wait: Duration| {
            let status = unresolved(&error, "op://v/i/f", RecordId(7));
            assert_eq!(status.get_details_error_info().unwrap().reason, reason);
            assert_eq!(status.message(), format!("`op://v/i/f`: {message}"));
            assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(wait), "{error:?}");
        };
        let paused = |error: ResolveError| Paused { error: error.into(), retry_after: nine };
        let (limited, down) = ("the source limits its rate", "the source is not available");
        let refused = "the source does not accept the broker's credentials";
        let budget = "this broker's budget for the source is spent";
        check(RateLimited { retry_after: nine }, "RESOLVER_RATE_LIMITED", limited, nine);
        check(BudgetSpent { retry_after: nine }, "RESOLVER_RATE_LIMITED", budget, nine);
        check(Unavailable, "RESOLVER_UNAVAILABLE", down, RETRY_SOON);
        check(paused(Unavailable), "RESOLVER_UNAVAILABLE", down, nine);
        check(paused(CredentialsRefused), "RESOLVER_CREDENTIALS_REFUSED", refused, nine);
    }

    /// docs/errors.md is generated from the catalogue; UPDATE_GOLDEN=1 writes it.
    #[test]
    fn the_catalogue_is_documented() {
        let mut page = String::from(PAGE_TOP);
        for (reason, code, next) in CATALOGUE {
            page.push_str(&format!("| `{reason}` | `{}` | {next} |\n", code_name(*code)));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page, "run with UPDATE_GOLDEN=1");
        let mut sorted: Vec<_> = CATALOGUE.iter().map(|(reason, _, _)| reason).collect();
        sorted.dedup();
        assert!(sorted.is_sorted() && sorted.len() == CATALOGUE.len());
    }

    fn code_name(code: Code) -> String {
        let mut name = String::new();
        for c in format!("{code:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }

    const PAGE_TOP: &str = "# Errors\n\n\
Every error status carries `google.rpc.ErrorInfo` with the domain `valetkey` and one of these reasons, and the\n\
`record_id` of its audit record in the metadata wherever there is one. Whether a refused thing exists is never\n\
said; an agent that policy allows to use a reference may learn that it names nothing.\n\n\
| reason | code | what to do next |\n| --- | --- | --- |\n";
}
