//! From the domain to a row: every field of a record and of an outcome, by name.

use std::time::Duration;

use rusqlite::{CachedStatement, Connection, ErrorCode, params};
use valetkey_core::{
    AuditOutcome, AuditRecord, Facet, FieldTarget, Named, PolicyId, Provenance, Revision, Target,
};

use crate::code::Code;
use crate::strings::Strings;

/// Prepares the statement for [`insert_record`]; once for each transaction.
pub(crate) fn prepare_record(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(
        "INSERT INTO records (seq, time_us, kind, ruling, reason, request, trace, caller, client, agent, tool,
             reference, vault_id, vault_name, item_id, item_name, field_id, target_error, policies, revision,
             session, destination, lease, handle, ttl_us, uses, redeemer, purpose, detail, credential, on_behalf_of)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31)",
    )
}

/// Inserts a record at its place in the log.
pub(crate) fn insert_record(
    statement: &mut CachedStatement<'_>,
    connection: &Connection,
    strings: &mut Strings,
    seq: u64,
    record: &AuditRecord,
) -> rusqlite::Result<()> {
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
    let mut id = |text: Option<&str>| strings.id_opt(connection, text);
    let caller = caller.as_ref().map(ToString::to_string);
    let policies = policies.as_deref().and_then(policy_lines);
    // The generation counts the loads of one process and means nothing afterwards.
    let revision = revision.map(|revision: Revision| revision.digest_text());
    let target = TargetTexts::of(target.as_deref());
    one(statement.execute(params![
        seq,
        time.as_micros(),
        kind.code(),
        ruling.code(),
        reason.code(),
        request.as_ref().map(|id| id.0.as_bytes()),
        trace.as_ref().map(|id| id.0),
        id(caller.as_deref())?,
        id(client.as_deref())?,
        id(agent.as_ref().map(|agent| agent.0.as_str()))?,
        id(tool.as_ref().map(|tool| tool.0.as_str()))?,
        id(reference.as_deref())?,
        id(target.vault.map(|vault| &*vault.id))?,
        id(target.vault.map(|vault| &*vault.name))?,
        id(target.item.map(|item| &*item.id))?,
        id(target.item.map(|item| &*item.name))?,
        id(target.field_id.as_deref())?,
        id(target.error)?,
        id(policies.as_deref())?,
        id(revision.as_deref())?,
        id(session.as_deref())?,
        id(destination.as_deref())?,
        lease.as_ref().map(|id| id.0.as_bytes()),
        handle.as_ref().map(|id| id.0.as_bytes()),
        ttl.map(micros),
        uses,
        redeemer.map(Code::code),
        purpose.as_deref(),
        detail.as_deref(),
        id(credential.as_deref())?,
        id(on_behalf_of.as_ref().map(|person| person.0.as_str()))?,
    ])?)
}

/// Refuses an insert that did not happen: a trigger that is not ours can leave a row out without an error.
pub(crate) fn one(rows: usize) -> rusqlite::Result<()> {
    if rows == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(rows)) }
}

/// Whether the data is at fault, and not the disk.
pub(crate) fn breaks_rules(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => {
            matches!(code, ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
        }
        None => matches!(error, rusqlite::Error::ToSqlConversionFailure(_)),
    }
}

/// Inserts the outcome of a record.
pub(crate) fn insert_outcome(
    connection: &Connection,
    strings: &mut Strings,
    seq: u64,
    outcome: &AuditOutcome,
) -> rusqlite::Result<()> {
    let AuditOutcome { time, result, reason, detail, provenance, value_digest } = outcome;
    let (source, item_version, age) = match provenance {
        None => (None, None, None),
        Some(Provenance { source, item_version, read_time }) => {
            (Some(&**source), *item_version, Some(time.since(*read_time)))
        }
    };
    let rows = connection
        .prepare_cached(
            "INSERT INTO outcomes (seq, time_us, result, reason, source, item_version, detail, value_age_us, value_digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            seq,
            time.as_micros(),
            result.code(),
            strings.id_opt(connection, *reason)?,
            strings.id_opt(connection, source)?,
            item_version.map(|version| i64::try_from(version).unwrap_or(i64::MAX)),
            detail.as_deref(),
            age.map(micros),
            value_digest.map(|digest| digest.0),
        ])?;
    one(rows)
}

/// What is stored of a target. Labels are not: the field's id names it, and policies are judged by their
/// revision.
#[derive(Default)]
pub(crate) struct TargetTexts<'a> {
    pub(crate) vault: Option<&'a Named>,
    pub(crate) item: Option<&'a Named>,
    pub(crate) field_id: Option<String>,
    pub(crate) error: Option<&'static str>,
}

impl<'a> TargetTexts<'a> {
    pub(crate) fn of(target: Option<&'a Target>) -> Self {
        match target {
            None => Self::default(),
            Some(Target::Unresolved { vault, item, error }) => {
                Self { vault: vault.as_ref(), item: item.as_ref(), field_id: None, error: Some(error.code()) }
            }
            Some(Target::Unknown { vault, item, failure }) => Self {
                vault: vault.as_ref(),
                item: item.as_ref(),
                field_id: None,
                error: Some(failure.error.code()),
            },
            Some(Target::Field(FieldTarget { vault, item, field_id, field: _, section: _, facet })) => Self {
                vault: Some(vault),
                item: Some(item),
                field_id: Some(match facet {
                    Facet::Value => field_id.to_string(),
                    Facet::Otp | Facet::Seed | Facet::OpensshKey => format!("{field_id}?{}", facet.as_str()),
                }),
                error: None,
            },
        }
    }
}

/// The ids, one a line. An id is a line of a policy file, so it has no line break; one that had would be
/// read back as two.
pub(crate) fn policy_lines(policies: &[PolicyId]) -> Option<String> {
    let lines: Vec<&str> = policies.iter().map(|policy| &*policy.0).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
