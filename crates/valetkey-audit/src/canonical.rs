//! The canonical form of a record: one line of JSON as RFC 8785 (JCS) writes it, and the digests that a leaf of the tree
//! is made of.
//!
//! ```text
//! record  = SHA-256(the line without `record_id` and `outcome`)
//! outcome = SHA-256(the outcome's object), or 32 zero bytes where there is none
//! leaf    = SHA-256(0x00 || record || outcome)              as RFC 6962 hashes a leaf
//! ```
//!
//! It is made of texts, never of the numbers that stand for them in the database, so it covers the table of strings
//! too, and an export is verified without the database. A record's number is its place in the tree, not part of its
//! leaf. Keys are in alphabetical order, absent fields are left out, numbers are whole.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use valetkey_core::{AuditOutcome, AuditRecord, Provenance, Redeemer, Ruling};

use crate::code::ruling_name;
use crate::row::{TargetTexts, micros, policy_lines};
use crate::stored::{StoredOutcome, StoredRecord, StoredTarget};
use crate::tree::Hash;

/// What a leaf is made of: a record's digest, or that of its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartDigest(pub(crate) [u8; 32]);

/// The RFC 6962 hash of a leaf.
#[must_use]
pub(crate) fn leaf_hash(record: PartDigest, outcome: Option<PartDigest>) -> Hash {
    Hash::leaf([&record.0, &outcome.map_or([0; 32], |outcome| outcome.0)])
}

/// The digest of a record that is about to be written.
pub(crate) fn digest_record(record: &AuditRecord) -> PartDigest {
    let AuditRecord {
        time,
        kind,
        ruling,
        reason,
        detail,
        request,
        trace,
        credential,
        on_behalf_of,
        caller,
        client,
        agent,
        tool,
        reference,
        target,
        policies,
        revision,
        purpose,
        session,
        destination,
        lease,
        handle,
        ttl,
        uses,
        redeemer,
    } = record;
    let target = TargetTexts::of(target.as_deref());
    let policies = policies.as_deref().and_then(policy_lines);
    digest(&Line {
        agent: agent.as_ref().map(|agent| agent.0.as_str().into()),
        caller: caller.as_ref().map(|caller| caller.to_string().into()),
        client: client.as_deref().map(Into::into),
        create_time: time.to_string(),
        credential: credential.as_deref().map(Into::into),
        decision: decision(*ruling),
        destination: destination.as_deref().map(Into::into),
        detail: detail.as_deref().map(Into::into),
        handle_id: handle.as_ref().map(|id| id.to_string().into()),
        kind: kind.as_str(),
        lease_id: lease.as_ref().map(|id| id.to_string().into()),
        on_behalf_of: on_behalf_of.as_ref().map(|person| person.0.as_str().into()),
        outcome: None,
        policy_ids: policies.as_deref().map_or_else(Vec::new, |lines| lines.split('\n').collect()),
        policy_revision: revision.map(|revision| revision.digest_text().into()),
        purpose: purpose.as_deref().map(Into::into),
        reason: reason.as_str(),
        record_id: None,
        redeemer: redeemer.map(redeemer_name),
        reference: reference.as_deref().map(Into::into),
        request_id: request.as_ref().map(|id| id.to_string().into()),
        session: session.as_deref().map(Into::into),
        target: TargetPart::of_new(&target),
        tool: tool.as_ref().map(|tool| tool.0.as_str().into()),
        trace_id: trace.as_ref().map(|id| id.to_string().into()),
        ttl_micros: ttl.map(micros),
        uses: *uses,
    })
}

/// The digest of an outcome that is about to be written.
pub(crate) fn digest_outcome(outcome: &AuditOutcome) -> PartDigest {
    let AuditOutcome { time, result, reason, detail, provenance, value_digest } = outcome;
    let (source, item_version, age) = match provenance {
        None => (None, None, None),
        Some(Provenance { source, item_version, read_time }) => {
            (Some(&**source), *item_version, Some(micros(time.since(*read_time))))
        }
    };
    digest(&OutcomePart {
        create_time: time.to_string(),
        detail: detail.as_deref(),
        item_version: item_version.map(|version| version.min(i64::MAX as u64)),
        reason: *reason,
        result: result.as_str(),
        source,
        value_age_micros: age,
        value_digest: value_digest.map(|digest| digest.to_string()),
    })
}

/// Both digests of a record as it is stored.
pub(crate) fn digest_stored(record: &StoredRecord) -> (PartDigest, Option<PartDigest>) {
    let line = Line { outcome: None, record_id: None, ..Line::of(record) };
    (digest(&line), record.outcome.as_ref().map(|outcome| digest(&OutcomePart::of(outcome))))
}

/// A record as a line, without the line feed.
#[must_use]
pub(crate) fn line(record: &StoredRecord) -> String {
    serde_json::to_string(&Line::of(record)).unwrap_or_default()
}

/// A line that was read from an export: its record's number, and both digests.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_line(line: &str) -> Result<(u64, PartDigest, Option<PartDigest>), &'static str> {
    let value: Value = serde_json::from_str(line).map_err(|_| "is no JSON")?;
    let Value::Object(mut object) = value else { return Err("is no JSON object") };
    let id = object.remove("record_id");
    let id = id.as_ref().and_then(Value::as_str).and_then(|id| id.parse().ok()).filter(|id| *id > 0);
    let id = id.ok_or("has no `record_id`")?;
    let outcome = object.remove("outcome");
    let sorted = |mut value: Value| {
        value.sort_all_objects();
        digest(&value)
    };
    Ok((id, sorted(Value::Object(object)), outcome.map(sorted)))
}

/// A record. The fields are in alphabetical order, because that is how JCS writes them.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Cow<'a, str>>,
    create_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle_id: Option<Cow<'a, str>>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomePart<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policy_ids: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_revision: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Cow<'a, str>>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redeemer: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetPart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_micros: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<u32>,
}

/// What a reference meant.
#[derive(Serialize)]
struct TargetPart<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault_name: Option<&'a str>,
}

/// What came of it.
#[derive(Serialize)]
struct OutcomePart<'a> {
    create_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_age_micros: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_digest: Option<String>,
}

impl<'a> Line<'a> {
    fn of(record: &'a StoredRecord) -> Self {
        let StoredRecord {
            id,
            time,
            kind,
            ruling,
            reason,
            request,
            trace,
            credential,
            on_behalf_of,
            caller,
            client,
            agent,
            tool,
            reference,
            target,
            policies,
            revision,
            session,
            destination,
            lease,
            handle,
            ttl,
            uses,
            redeemer,
            purpose,
            detail,
            outcome,
        } = record;
        let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        Self {
            agent: text(agent),
            caller: text(caller),
            client: text(client),
            create_time: time.to_string(),
            credential: text(credential),
            decision: decision(*ruling),
            destination: text(destination),
            detail: text(detail),
            handle_id: text(handle),
            kind: kind.as_str(),
            lease_id: text(lease),
            on_behalf_of: text(on_behalf_of),
            outcome: outcome.as_ref().map(OutcomePart::of),
            policy_ids: policies.iter().map(String::as_str).collect(),
            policy_revision: text(revision),
            purpose: text(purpose),
            reason: reason.as_str(),
            record_id: Some(id.to_string()),
            redeemer: redeemer.map(redeemer_name),
            reference: text(reference),
            request_id: text(request),
            session: text(session),
            target: target.as_ref().map(TargetPart::of),
            tool: text(tool),
            trace_id: text(trace),
            ttl_micros: ttl.map(micros),
            uses: *uses,
        }
    }
}

impl<'a> TargetPart<'a> {
    fn of_new(target: &'a TargetTexts<'a>) -> Option<Self> {
        let TargetTexts { vault, item, field_id, error } = target;
        (vault.is_some() || error.is_some()).then(|| Self {
            error: *error,
            field_id: field_id.as_deref(),
            item_id: item.map(|item| &*item.id),
            item_name: item.map(|item| &*item.name),
            vault_id: vault.map(|vault| &*vault.id),
            vault_name: vault.map(|vault| &*vault.name),
        })
    }

    fn of(target: &'a StoredTarget) -> Self {
        let StoredTarget { vault_id, vault_name, item_id, item_name, field_id, error } = target;
        Self {
            error: error.as_deref(),
            field_id: field_id.as_deref(),
            item_id: item_id.as_deref(),
            item_name: item_name.as_deref(),
            vault_id: vault_id.as_deref(),
            vault_name: vault_name.as_deref(),
        }
    }
}

impl<'a> OutcomePart<'a> {
    fn of(outcome: &'a StoredOutcome) -> Self {
        let StoredOutcome { time, result, reason, source, item_version, value_age, detail, value_digest } =
            outcome;
        Self {
            create_time: time.to_string(),
            detail: detail.as_deref(),
            item_version: *item_version,
            reason: reason.as_deref(),
            result: result.as_str(),
            source: source.as_deref(),
            value_age_micros: value_age.map(micros),
            value_digest: value_digest.map(|digest| digest.to_string()),
        }
    }
}

/// These structures cannot fail to serialise: their keys are texts, their values texts and whole numbers. What could,
/// would have the digest of nothing, which no record has.
fn digest(part: &impl Serialize) -> PartDigest {
    let bytes = serde_json::to_vec(part).unwrap_or_default();
    PartDigest(Sha256::digest(bytes).into())
}

/// Events decide nothing.
pub(crate) fn decision(ruling: Ruling) -> Option<&'static str> {
    (ruling != Ruling::Event).then(|| ruling_name(ruling))
}

pub(crate) fn redeemer_name(redeemer: Redeemer) -> &'static str {
    match redeemer {
        Redeemer::Tool => "tool",
        Redeemer::Agent => "agent",
    }
}
