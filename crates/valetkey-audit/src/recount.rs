//! Counting from the records themselves: of a log without an index, of what an index does not cover yet, and as the
//! measure of what an index says.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use valetkey_core::{AuditScope, OutcomeResult, Reason, RecordId, RecordKind, Ruling, Timestamp};

use crate::code::word;
use crate::query::{Condition, Seqs};
use crate::usage::{Days, FirstUse, LastUse, PolicyUse, Refusals, Subject, Thing, Usage, UsageResult};

/// The records that are counted.
pub(crate) struct Part<'a> {
    /// Numbers, from and to.
    pub(crate) seqs: (u64, u64),
    pub(crate) scope: &'a AuditScope,
}

/// Use on some days.
pub(crate) fn usage(
    connection: &Connection,
    part: &Part<'_>,
    days: &Days,
    subject: &Subject,
) -> rusqlite::Result<Vec<Usage>> {
    let condition = part
        .on(days)
        .and(Condition::about(subject, &part.numbers()))
        .and_sql("r.kind <= 3 AND r.ruling <= 2");
    let columns = "r.kind, r.ruling, CASE r.ruling WHEN 2 THEN r.reason END AS reason, o.result";
    groups(connection, columns, condition, |row| {
        let result = match word(row, "ruling")? {
            Ruling::Deny => UsageResult::Refused(word(row, "reason")?),
            Ruling::Allow | Ruling::Event => UsageResult::Allowed(outcome(row)?),
        };
        let Group { agent, tool, vault, item, count, last, last_time } = Group::from_row(row)?;
        Ok(Usage { agent, tool, vault, item, kind: word(row, "kind")?, result, count, last, last_time })
    })
}

/// What was refused on some days.
pub(crate) fn refusals(
    connection: &Connection,
    part: &Part<'_>,
    days: &Days,
    agent: Option<&str>,
) -> rusqlite::Result<Vec<Refusals>> {
    let subject = agent.map_or(Subject::Everybody, |agent| Subject::Agent(agent.to_owned()));
    let condition = part.on(days).and(Condition::about(&subject, &part.numbers())).and_sql("r.ruling = 2");
    groups(connection, "r.kind, r.ruling, r.reason, NULL AS result", condition, |row| {
        let (kind, reason): (RecordKind, Reason) = (word(row, "kind")?, word(row, "reason")?);
        let Group { agent, tool, vault, item, count, last, last_time } = Group::from_row(row)?;
        Ok(Refusals { agent, tool, vault, item, kind, reason, count, last, last_time })
    })
}

/// The first uses of these records, whenever that was.
pub(crate) fn first_uses(connection: &Connection, part: &Part<'_>) -> rusqlite::Result<Vec<FirstUse>> {
    let used =
        part.condition().and_sql("o.result = 1 AND r.agent NOTNULL AND r.tool NOTNULL AND r.item_id NOTNULL");
    uses(connection, "min", "r.agent, r.tool, r.vault_id, r.item_id", used, |row| {
        let LastUse { agent, vault, item, record, time } = used_from(row)?;
        Ok(FirstUse { agent, tool: row.get("tool")?, vault, item, record, time })
    })
}

/// The last uses of these records.
pub(crate) fn last_uses(connection: &Connection, part: &Part<'_>) -> rusqlite::Result<Vec<LastUse>> {
    let used = part.condition().and_sql("o.result <= 2 AND r.agent NOTNULL AND r.item_id NOTNULL");
    uses(connection, "max", "r.agent, r.vault_id, r.item_id", used, used_from)
}

/// What policies determined on some days; in the order of their ids.
pub(crate) fn policy_uses(
    connection: &Connection,
    part: &Part<'_>,
    days: &Days,
) -> rusqlite::Result<Vec<PolicyUse>> {
    let Condition { sql, values } = part.on(days).and_sql("r.policies NOTNULL");
    let sql = format!(
        "SELECT (SELECT text FROM strings WHERE id = g.policies), g.n, g.last, g.time_us
         FROM (SELECT r.policies, count(*) AS n, max(r.seq) AS last, r.time_us
               FROM records r LEFT JOIN outcomes o ON o.seq = r.seq WHERE {sql} GROUP BY r.policies) g"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut uses = std::collections::BTreeMap::<String, PolicyUse>::new();
    while let Some(row) = rows.next()? {
        let lines: String = row.get(0)?;
        let (count, last, last_time) =
            (row.get::<_, u64>(1)?, RecordId(row.get(2)?), Timestamp::from_micros(row.get(3)?));
        // A list that names one twice has one record all the same.
        for policy in lines.split('\n').collect::<std::collections::BTreeSet<_>>() {
            let use_ = uses.entry(policy.to_owned()).or_insert_with(|| PolicyUse {
                policy: policy.to_owned(),
                count: 0,
                last,
                last_time,
            });
            use_.count += count;
            if last > use_.last {
                (use_.last, use_.last_time) = (last, last_time);
            }
        }
    }
    Ok(uses.into_values().collect())
}

impl Part<'_> {
    fn numbers(&self) -> Seqs {
        Seqs::Span(self.seqs.0, self.seqs.1)
    }

    fn condition(&self) -> Condition {
        let number = |seq: u64| Value::Integer(i64::try_from(seq).unwrap_or(i64::MAX));
        let (from, to) = self.seqs;
        Condition { sql: "r.seq BETWEEN ? AND ?".to_owned(), values: vec![number(from), number(to)] }
            .and(Condition::within(self.scope))
    }

    fn on(&self, days: &Days) -> Condition {
        let bounds = [days.start, days.end].map(|day| Value::Integer(day.start_us()));
        self.condition()
            .and(Condition { sql: "r.time_us >= ? AND r.time_us < ?".to_owned(), values: bounds.into() })
    }
}

/// What all counts have in common.
struct Group {
    agent: Option<String>,
    tool: Option<String>,
    vault: Option<Thing>,
    item: Option<Thing>,
    count: u64,
    last: RecordId,
    last_time: Timestamp,
}

impl Group {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            agent: row.get("agent")?,
            tool: row.get("tool")?,
            vault: thing(row, "vault_id", "vault_name")?,
            item: thing(row, "item_id", "item_name")?,
            count: row.get("n")?,
            last: RecordId(row.get("last")?),
            last_time: Timestamp::from_micros(row.get("time_us")?),
        })
    }
}

/// Counts the records that agree in who, what and `columns`. Beside `max`, SQLite takes the other columns from the row
/// that has it.
fn groups<T>(
    connection: &Connection,
    columns: &str,
    Condition { sql, values }: Condition,
    from_row: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let sql = format!(
        "SELECT {TEXTS}, g.kind, g.ruling, g.reason, g.result, g.n, g.last, g.time_us
         FROM (SELECT r.agent, r.tool, r.vault_id, r.vault_name, r.item_id, r.item_name, {columns},
                   count(*) AS n, max(r.seq) AS last, r.time_us
               FROM records r LEFT JOIN outcomes o ON o.seq = r.seq WHERE {sql}
               GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10) g ORDER BY g.last"
    );
    let mut statement = connection.prepare(&sql)?;
    statement.query_map(params_from_iter(values), from_row)?.collect()
}

/// Finds the first or the last of the records that agree in `columns`.
fn uses<T>(
    connection: &Connection,
    which: &'static str,
    columns: &'static str,
    Condition { sql, values }: Condition,
    from_row: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let sql = format!(
        "SELECT {TEXTS}, g.seq, g.time_us
         FROM (SELECT r.agent, r.tool, r.vault_id, r.vault_name, r.item_id, r.item_name,
                   {which}(r.seq) AS seq, r.time_us
               FROM records r JOIN outcomes o ON o.seq = r.seq WHERE {sql}
               GROUP BY {columns}) g ORDER BY g.seq"
    );
    let mut statement = connection.prepare(&sql)?;
    statement.query_map(params_from_iter(values), from_row)?.collect()
}

fn used_from(row: &Row<'_>) -> rusqlite::Result<LastUse> {
    let thing = |id, name| Ok::<_, rusqlite::Error>(Thing { id: row.get(id)?, name: row.get(name)? });
    Ok(LastUse {
        agent: row.get("agent")?,
        vault: thing("vault_id", "vault_name")?,
        item: thing("item_id", "item_name")?,
        record: RecordId(row.get("seq")?),
        time: Timestamp::from_micros(row.get("time_us")?),
    })
}

fn thing(row: &Row<'_>, id: &str, name: &str) -> rusqlite::Result<Option<Thing>> {
    let (id, name): (Option<String>, Option<String>) = (row.get(id)?, row.get(name)?);
    Ok(id.zip(name).map(|(id, name)| Thing { id, name }))
}

fn outcome(row: &Row<'_>) -> rusqlite::Result<Option<OutcomeResult>> {
    row.get::<_, Option<i64>>("result")?.map(|_| word(row, "result")).transpose()
}

/// The texts of a group of ids.
const TEXTS: &str = "
    (SELECT text FROM strings WHERE id = g.agent) AS agent,
    (SELECT text FROM strings WHERE id = g.tool) AS tool,
    (SELECT text FROM strings WHERE id = g.vault_id) AS vault_id,
    (SELECT text FROM strings WHERE id = g.vault_name) AS vault_name,
    (SELECT text FROM strings WHERE id = g.item_id) AS item_id,
    (SELECT text FROM strings WHERE id = g.item_name) AS item_name";

#[cfg(test)]
mod tests;
