//! From a filter to SQL. The text of the SQL is made of the constants here alone; everything that a
//! person wrote is a parameter.

use rusqlite::types::Value;
use valetkey_core::{AuditScope, Reason};

use crate::code::Code;
use crate::filter::Filter;
use crate::term::{Pattern, Span, Term, Test};
use crate::usage::Subject;

/// The records of which something is asked. Wildcards are matched against the texts of these records, never against
/// all texts of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seqs {
    /// From and to.
    Span(u64, u64),
    /// One by one.
    List(Vec<u64>),
}

impl Seqs {
    /// That a column is one of them. The numbers are ours; nobody wrote them.
    fn sql(&self, column: &str) -> String {
        match self {
            Self::Span(bottom, top) => format!("{column} BETWEEN {bottom} AND {top}"),
            Self::List(seqs) => {
                let seqs: Vec<String> = seqs.iter().map(u64::to_string).collect();
                format!("{column} IN ({})", seqs.join(","))
            }
        }
    }
}

/// A condition on `records r LEFT JOIN outcomes o`, and its parameters.
pub(crate) struct Condition {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Condition {
    /// What a filter and a scope ask of these records.
    pub(crate) fn whole(filter: &Filter, scope: &AuditScope, seqs: &Seqs) -> Self {
        Self::of(filter, seqs).and(Self::within(scope)).and_sql(&seqs.sql("r.seq"))
    }

    /// What a filter asks of a record, which is one of these.
    pub(crate) fn of(filter: &Filter, seqs: &Seqs) -> Self {
        let mut whole = Self { sql: "TRUE".to_owned(), values: Vec::new() };
        for Term { negated, test } in filter.terms() {
            let Self { sql, values } = Self::of_test(test, seqs);
            // What is absent does not match, so its opposite does.
            let holds = if *negated { "NOT coalesce" } else { "" };
            let otherwise = if *negated { ", FALSE" } else { "" };
            whole.sql.push_str(&format!(" AND {holds}(({sql}){otherwise})"));
            whole.values.extend(values);
        }
        whole
    }

    /// What a scope takes in, whatever is asked.
    pub(crate) fn within(scope: &AuditScope) -> Self {
        let vaults = match scope {
            AuditScope::Whole => return Self { sql: "TRUE".to_owned(), values: Vec::new() },
            AuditScope::Vaults(vaults) => vaults,
        };
        // Looked up once for the query. A text that is not there is NULL, which equals nothing.
        let id = "(SELECT id FROM strings WHERE text = ?)";
        let rows = vec![format!("({id}, {id})"); vaults.len()].join(", ");
        let texts = vaults.iter().flat_map(|vault| [&vault.id, &vault.name]);
        Self {
            sql: match vaults.is_empty() {
                true => "FALSE".to_owned(),
                false => format!("(r.vault_id, r.vault_name) IN (VALUES {rows})"),
            },
            values: texts.map(|text| Value::Text(text.to_string())).collect(),
        }
    }

    /// Whom or what a report is about; names of vaults and items in any case.
    pub(crate) fn about(subject: &Subject, seqs: &Seqs) -> Self {
        match subject {
            Subject::Everybody => Self { sql: "TRUE".to_owned(), values: Vec::new() },
            Subject::Agent(name) => Self::of_test(&Test::Agent(Pattern::exact(name)), seqs),
            Subject::Tool(name) => Self::of_test(&Test::Tool(Pattern::exact(name)), seqs),
            Subject::Vault(name) => Self::of_test(&Test::Vault(Pattern::exact(name).lower_case()), seqs),
            Subject::Item(name) => Self::of_test(&Test::Item(Pattern::exact(name).lower_case()), seqs),
        }
    }

    /// This and a condition without parameters.
    pub(crate) fn and_sql(self, sql: &str) -> Self {
        self.and(Self { sql: sql.to_owned(), values: Vec::new() })
    }

    /// Both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.sql = format!("({}) AND ({})", self.sql, other.sql);
        self.values.extend(other.values);
        self
    }

    fn of_test(test: &Test, seqs: &Seqs) -> Self {
        let text = |column, pattern| text(column, pattern, seqs);
        let any_case = |column, pattern| text_any_case(column, pattern, seqs);
        match test {
            Test::Agent(name) => text("r.agent", name),
            Test::Tool(name) => text("r.tool", name),
            Test::Caller(name) => text("r.caller", name),
            Test::Person(name) => text("r.on_behalf_of", name),
            Test::Credential(id) => text("r.credential", id),
            Test::Client(name) => text("r.client", name),
            Test::Session(name) => text("r.session", name),
            Test::Destination(host) => text("r.destination", host),
            Test::Reference(reference) => text("r.reference", reference),
            Test::Revision(digest) => text("r.revision", digest),
            Test::Source(name) => text("o.source", name),
            Test::Vault(name) => either(any_case("r.vault_name", name), any_case("r.vault_id", name)),
            Test::Item(name) => either(any_case("r.item_name", name), any_case("r.item_id", name)),
            Test::Policy(name) => {
                interned("r.policies", "char(10) || text || char(10) GLOB ?", glob_of_line(name), seqs)
            }
            Test::Reason(code) => either(reason(code), text("o.reason", code)),
            Test::Detail(words) => either(plain("r.detail", words), plain("o.detail", words)),
            Test::Decision(ruling) => number("r.ruling", ruling.code()),
            Test::Kind(kind) => number("r.kind", kind.code()),
            Test::Request(id) => bytes("r.request", id.as_bytes()),
            Test::Lease(id) => bytes("r.lease", id.as_bytes()),
            Test::Handle(id) => bytes("r.handle", id.as_bytes()),
            Test::ValueDigest(digest) => bytes("o.value_digest", &digest.0),
            Test::Record(seq) => number("r.seq", i64::try_from(*seq).unwrap_or(i64::MAX)),
            Test::Outcome(Some(result)) => number("o.result", result.code()),
            Test::Outcome(None) => Self {
                sql: "o.seq IS NULL AND r.ruling = 1 AND r.kind BETWEEN 1 AND 3".to_owned(),
                values: vec![],
            },
            Test::Created(Span { start, end }) => Self {
                sql: "r.time_us >= ? AND r.time_us < ?".to_owned(),
                values: vec![Value::Integer(*start), Value::Integer(*end)],
            },
        }
    }
}

/// The one record that can match, where a filter names it.
pub(crate) fn only_record(filter: &Filter) -> Option<u64> {
    filter.terms().iter().find_map(|term| match term {
        Term { negated: false, test: Test::Record(seq) } => Some(*seq),
        _ => None,
    })
}

fn number(column: &str, value: i64) -> Condition {
    Condition { sql: format!("{column} = ?"), values: vec![Value::Integer(value)] }
}

fn bytes(column: &str, id: &[u8]) -> Condition {
    Condition { sql: format!("{column} = ?"), values: vec![Value::Blob(id.to_vec())] }
}

/// One text, looked up once for the query; and for a part of one, the texts that occur, each matched once.
fn text(column: &'static str, pattern: &Pattern, seqs: &Seqs) -> Condition {
    if pattern.any_before || pattern.any_after {
        return interned(column, "text GLOB ?", glob(pattern), seqs);
    }
    Condition {
        sql: format!("{column} = (SELECT id FROM strings WHERE text = ?)"),
        values: vec![Value::Text(pattern.text.clone())],
    }
}

/// Names are stored in lower case and the pattern is in lower case; `lower` is for ids, which are ASCII.
fn text_any_case(column: &'static str, pattern: &Pattern, seqs: &Seqs) -> Condition {
    interned(column, "lower(text) GLOB ?", glob(pattern), seqs)
}

/// The column's texts in these records, of which some are meant.
fn interned(column: &'static str, texts: &str, value: String, seqs: &Seqs) -> Condition {
    let table = if column.starts_with("o.") { "outcomes" } else { "records" };
    let (_, name) = column.split_once('.').unwrap_or(("", column));
    let part = seqs.sql("seq");
    Condition {
        sql: format!(
            "{column} IN (SELECT id FROM strings WHERE id IN (SELECT DISTINCT {name} FROM {table} WHERE {part})
                 AND {texts})"
        ),
        values: vec![Value::Text(value)],
    }
}

/// A text that stands in the row itself.
fn plain(column: &str, pattern: &Pattern) -> Condition {
    Condition { sql: format!("{column} GLOB ?"), values: vec![Value::Text(glob(pattern))] }
}

fn reason(pattern: &Pattern) -> Condition {
    let codes = Reason::ALL.iter().filter(|reason| pattern.matches(reason.as_str()));
    let values: Vec<_> = codes.map(|reason| Value::Integer(reason.code())).collect();
    Condition { sql: format!("r.reason IN ({})", vec!["?"; values.len()].join(", ")), values }
}

fn either(one: Condition, other: Condition) -> Condition {
    let values = one.values.into_iter().chain(other.values).collect();
    // A comparison with an absent text is NULL, which is no `true`: fine on either side of OR.
    Condition { sql: format!("({}) OR ({})", one.sql, other.sql), values }
}

/// The pattern of a list that has one line of this one.
pub(crate) fn glob_of_line(pattern: &Pattern) -> String {
    format!("*\n{}\n*", glob(pattern))
}

/// The pattern in SQLite's words, with everything in the text standing for itself.
pub(crate) fn glob(pattern: &Pattern) -> String {
    let mut glob = String::new();
    glob.push_str(if pattern.any_before { "*" } else { "" });
    for c in pattern.text.chars() {
        match c {
            '*' | '?' | '[' => glob.extend(['[', c, ']']),
            other => glob.push(other),
        }
    }
    glob.push_str(if pattern.any_after { "*" } else { "" });
    glob
}
