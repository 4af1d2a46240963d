//! From a filter to SQL. The text of the SQL is made of the constants here alone; everything that a
//! person wrote is a parameter.

use rusqlite::types::Value;
use valetkey_core::{AuditScope, PublicId, Reason};

use crate::code::Code;
use crate::filter::Filter;
use crate::term::{Pattern, Span, Term, Test};
use crate::usage::Subject;

/// A condition on `records r LEFT JOIN outcomes o`, and its parameters.
pub(crate) struct Condition {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Condition {
    /// What a filter asks of a record.
    pub(crate) fn of(filter: &Filter) -> Self {
        let mut whole = Self { sql: "TRUE".to_owned(), values: Vec::new() };
        for Term { negated, test } in filter.terms() {
            let Self { sql, values } = Self::of_test(test);
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
    pub(crate) fn about(subject: &Subject) -> Self {
        match subject {
            Subject::Everybody => Self { sql: "TRUE".to_owned(), values: Vec::new() },
            Subject::Agent(name) => Self::of_test(&Test::Agent(Pattern::exact(name))),
            Subject::Tool(name) => Self::of_test(&Test::Tool(Pattern::exact(name))),
            Subject::Vault(name) => Self::of_test(&Test::Vault(Pattern::exact(name).lower_case())),
            Subject::Item(name) => Self::of_test(&Test::Item(Pattern::exact(name).lower_case())),
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

    fn of_test(test: &Test) -> Self {
        match test {
            Test::Agent(name) => text("r.agent", name),
            Test::Tool(name) => text("r.tool", name),
            Test::Caller(name) => text("r.caller", name),
            Test::Person(name) => text("r.on_behalf_of", name),
            Test::Credential(id) => text("r.credential", id),
            Test::Vault(name) => {
                either(text_any_case("r.vault_name", name), text_any_case("r.vault_id", name))
            }
            Test::Item(name) => either(text_any_case("r.item_name", name), text_any_case("r.item_id", name)),
            Test::Policy(name) => policy(name),
            Test::Reason(code) => either(reason(code), text("o.reason", code)),
            Test::Decision(ruling) => number("r.ruling", ruling.code()),
            Test::Kind(kind) => number("r.kind", kind.code()),
            Test::Request(id) => bytes("r.request", id),
            Test::Lease(id) => bytes("r.lease", id),
            Test::Handle(id) => bytes("r.handle", id),
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

fn bytes(column: &str, id: &PublicId) -> Condition {
    Condition { sql: format!("{column} = ?"), values: vec![Value::Blob(id.as_bytes().to_vec())] }
}

/// The texts are looked up once for the query, in their own small table, and not for each record.
fn interned(column: &str, texts: &str, value: String) -> Condition {
    Condition {
        sql: format!("{column} IN (SELECT id FROM strings WHERE {texts})"),
        values: vec![Value::Text(value)],
    }
}

fn text(column: &str, pattern: &Pattern) -> Condition {
    if pattern.any_before || pattern.any_after {
        interned(column, "text GLOB ?", glob(pattern))
    } else {
        interned(column, "text = ?", pattern.text.clone())
    }
}

/// Names are stored in lower case and the pattern is in lower case; `lower` is for ids, which are ASCII.
fn text_any_case(column: &str, pattern: &Pattern) -> Condition {
    interned(column, "lower(text) GLOB ?", glob(pattern))
}

/// One line of the list.
fn policy(pattern: &Pattern) -> Condition {
    interned("r.policies", "char(10) || text || char(10) GLOB ?", format!("*\n{}\n*", glob(pattern)))
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

/// The pattern in SQLite's words, with everything in the text standing for itself.
fn glob(pattern: &Pattern) -> String {
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
