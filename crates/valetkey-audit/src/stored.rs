//! Records as they are read back, in plain types.

use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError};
use valetkey_core::{
    HandleId, LeaseId, OutcomeResult, PublicId, Reason, RecordId, RecordKind, Redeemer, RequestId, Ruling,
    Timestamp, TraceId, ValueDigest,
};

use crate::code::Code;

/// What was written down about one request or event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place in the log.
    pub id: RecordId,
    /// When it was decided.
    pub time: Timestamp,
    /// What kind of request or event.
    pub kind: RecordKind,
    /// What was decided.
    pub ruling: Ruling,
    /// Why.
    pub reason: Reason,
    /// The call: `vkr_…`.
    pub request: Option<String>,
    /// The caller's trace: 32 hexadecimal digits.
    pub trace: Option<String>,
    /// What the caller showed, by an id such as `vkt_<id>`.
    pub credential: Option<String>,
    /// The name of the person on whose behalf.
    pub on_behalf_of: Option<String>,
    /// Who called: `agent:travel-bot`.
    pub caller: Option<String>,
    /// The client as it said itself. Untrusted.
    pub client: Option<String>,
    /// The agent concerned.
    pub agent: Option<String>,
    /// The tool concerned.
    pub tool: Option<String>,
    /// The reference as asked.
    pub reference: Option<String>,
    /// What it means; absent where nothing of it was known.
    pub target: Option<StoredTarget>,
    /// The policies that determined the decision.
    pub policies: Vec<String>,
    /// The policy set: 16 hexadecimal digits.
    pub revision: Option<String>,
    /// The agent's own name for its run. Untrusted.
    pub session: Option<String>,
    /// Where the secret was to be sent. Untrusted.
    pub destination: Option<String>,
    /// The lease: `vkl_…`.
    pub lease: Option<String>,
    /// The handle: `vkh_<id>`.
    pub handle: Option<String>,
    /// The life granted, or asked for where it was refused.
    pub ttl: Option<Duration>,
    /// The uses granted.
    pub uses: Option<u32>,
    /// Who can redeem.
    pub redeemer: Option<Redeemer>,
    /// The agent's reason. Untrusted.
    pub purpose: Option<String>,
    /// More about the reason, for the reviewer.
    pub detail: Option<String>,
    /// What came of it; absent while it is under way, and for records that have none.
    pub outcome: Option<StoredOutcome>,
}

/// What a reference meant, as far as it was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTarget {
    /// The vault's id.
    pub vault_id: Option<String>,
    /// The vault's name then, in lower case.
    pub vault_name: Option<String>,
    /// The item's id.
    pub item_id: Option<String>,
    /// The item's title then, in lower case.
    pub item_name: Option<String>,
    /// The field's id; with `?otp`, `?seed` or `?openssh_key` for what is made from it.
    pub field_id: Option<String>,
    /// Why the reference leads nowhere: a stable code such as `ITEM_NOT_FOUND`.
    pub error: Option<String>,
}

/// What came of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOutcome {
    /// When.
    pub time: Timestamp,
    /// What.
    pub result: OutcomeResult,
    /// Why, where it failed or was withheld: a stable code.
    pub reason: Option<String>,
    /// The source that the value came from.
    pub source: Option<String>,
    /// The item's version there.
    pub item_version: Option<u64>,
    /// How old the value was then.
    pub value_age: Option<Duration>,
    /// More for the reviewer.
    pub detail: Option<String>,
    /// What recognises the value that was released.
    pub value_digest: Option<ValueDigest>,
}

impl StoredRecord {
    /// Reads a row of [`SELECT`].
    pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut columns = Columns { row, next: 0 };
        let columns = &mut columns;
        Ok(Self {
            id: RecordId(columns.take()?),
            time: Timestamp::from_micros(columns.take()?),
            kind: columns.word()?,
            ruling: columns.word()?,
            reason: columns.word()?,
            request: columns.id(|id| RequestId(id).to_string())?,
            trace: columns.take::<Option<[u8; 16]>>()?.map(|id| TraceId(id).to_string()),
            credential: columns.take()?,
            on_behalf_of: columns.take()?,
            caller: columns.take()?,
            client: columns.take()?,
            agent: columns.take()?,
            tool: columns.take()?,
            reference: columns.take()?,
            target: StoredTarget::from_columns(columns)?,
            policies: columns
                .take::<Option<String>>()?
                .map_or_else(Vec::new, |lines| lines.split('\n').map(str::to_owned).collect()),
            revision: columns.take()?,
            session: columns.take()?,
            destination: columns.take()?,
            lease: columns.id(|id| LeaseId(id).to_string())?,
            handle: columns.id(|id| HandleId(id).to_string())?,
            ttl: columns.take::<Option<u64>>()?.map(Duration::from_micros),
            uses: columns.take()?,
            redeemer: columns.word_opt()?,
            purpose: columns.take()?,
            detail: columns.take()?,
            outcome: StoredOutcome::from_columns(columns)?,
        })
    }
}

impl StoredTarget {
    fn from_columns(columns: &mut Columns<'_>) -> rusqlite::Result<Option<Self>> {
        let target = Self {
            vault_id: columns.take()?,
            vault_name: columns.take()?,
            item_id: columns.take()?,
            item_name: columns.take()?,
            field_id: columns.take()?,
            error: columns.take()?,
        };
        // Whatever is there belongs to the record's leaf, also what no broker writes.
        let Self { vault_id, vault_name, item_id, item_name, field_id, error } = &target;
        let any =
            [vault_id, vault_name, item_id, item_name, field_id, error].into_iter().any(Option::is_some);
        Ok(any.then_some(target))
    }
}

impl StoredOutcome {
    fn from_columns(columns: &mut Columns<'_>) -> rusqlite::Result<Option<Self>> {
        let Some(result) = columns.word_opt()? else { return Ok(None) };
        Ok(Some(Self {
            result,
            time: Timestamp::from_micros(columns.take()?),
            reason: columns.take()?,
            source: columns.take()?,
            item_version: columns.take()?,
            detail: columns.take()?,
            value_age: columns.take::<Option<u64>>()?.map(Duration::from_micros),
            value_digest: columns.take::<Option<[u8; 16]>>()?.map(ValueDigest),
        }))
    }
}

/// The columns of one row, from left to right.
struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl Columns<'_> {
    fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let column = self.next;
        self.next += 1;
        self.row.get(column)
    }

    fn id(&mut self, print: impl Fn(PublicId) -> String) -> rusqlite::Result<Option<String>> {
        Ok(self.take::<Option<[u8; 10]>>()?.map(|bytes| print(PublicId::from_bytes(bytes))))
    }

    fn word<T: Code>(&mut self) -> rusqlite::Result<T> {
        self.word_opt()?.ok_or_else(|| FromSqlError::InvalidType.into())
    }

    fn word_opt<T: Code>(&mut self) -> rusqlite::Result<Option<T>> {
        let Some(code) = self.take::<Option<i64>>()? else { return Ok(None) };
        T::of(code).map(Some).ok_or_else(|| FromSqlError::OutOfRange(code).into())
    }
}

/// Reads records with their texts and outcomes; a condition, an order and a limit follow. In the order of
/// [`StoredRecord::from_row`]. The look-ups are done for the rows that are returned only.
pub(crate) const SELECT: &str = "
    SELECT r.seq, r.time_us, r.kind, r.ruling, r.reason, r.request, r.trace,
        (SELECT text FROM strings WHERE id = r.credential),
        (SELECT text FROM strings WHERE id = r.on_behalf_of),
        (SELECT text FROM strings WHERE id = r.caller),
        (SELECT text FROM strings WHERE id = r.client),
        (SELECT text FROM strings WHERE id = r.agent),
        (SELECT text FROM strings WHERE id = r.tool),
        (SELECT text FROM strings WHERE id = r.reference),
        (SELECT text FROM strings WHERE id = r.vault_id),
        (SELECT text FROM strings WHERE id = r.vault_name),
        (SELECT text FROM strings WHERE id = r.item_id),
        (SELECT text FROM strings WHERE id = r.item_name),
        (SELECT text FROM strings WHERE id = r.field_id),
        (SELECT text FROM strings WHERE id = r.target_error),
        (SELECT text FROM strings WHERE id = r.policies),
        (SELECT text FROM strings WHERE id = r.revision),
        (SELECT text FROM strings WHERE id = r.session),
        (SELECT text FROM strings WHERE id = r.destination),
        r.lease, r.handle, r.ttl_us, r.uses, r.redeemer, r.purpose, r.detail,
        o.result, o.time_us,
        (SELECT text FROM strings WHERE id = o.reason),
        (SELECT text FROM strings WHERE id = o.source),
        o.item_version, o.detail, o.value_age_us, o.value_digest
    FROM records r LEFT JOIN outcomes o ON o.seq = r.seq";

/// The same for those who prove something: an id whose text is gone is no text, and not the same as none. Such a row
/// cannot be read.
pub(crate) static SELECT_STRICT: LazyLock<String> = LazyLock::new(|| {
    TEXTS.iter().fold(SELECT.to_owned(), |sql, column| {
        let text = format!("(SELECT text FROM strings WHERE id = {column})");
        // Bytes are no text.
        sql.replace(&text, &format!("iif({column} IS NULL, NULL, ifnull({text}, x''))"))
    })
});

/// The columns that hold ids of texts.
const TEXTS: [&str; 19] = [
    "r.credential",
    "r.on_behalf_of",
    "r.caller",
    "r.client",
    "r.agent",
    "r.tool",
    "r.reference",
    "r.vault_id",
    "r.vault_name",
    "r.item_id",
    "r.item_name",
    "r.field_id",
    "r.target_error",
    "r.policies",
    "r.revision",
    "r.session",
    "r.destination",
    "o.reason",
    "o.source",
];

#[cfg(test)]
mod tests;
