//! A filter and a scope in the words of the index.

use rusqlite::Connection;
use valetkey_core::{AuditScope, PublicId, Reason};

use super::{Dimension, Mark, mark_of_bytes, mark_of_string, things};
use crate::code::Code;
use crate::filter::Filter;
use crate::term::{Pattern, Span, Term, Test};

/// What the index can say of a filter and a scope.
pub(super) struct Terms {
    pub(super) terms: Vec<IndexTerm>,
    /// Times, each with whether it must not be then.
    pub(super) created: Vec<(bool, Span)>,
    /// Whether the rest says all of it. Otherwise what is found may still not match.
    pub(super) exact: bool,
}

/// One condition.
pub(super) enum IndexTerm {
    /// One of these values, which are in order, stands in the record; or none, where that is asked.
    AnyOf { negated: bool, values: Vec<(Dimension, i64)> },
    /// This mark may stand in the record.
    Marked { mark: Mark, bits: u32 },
}

/// What one test means.
enum Meaning {
    Values(Vec<(Dimension, i64)>),
    /// `None` where nothing has it.
    Marked(Mark, Option<u32>),
    Created(Span),
    /// Only the log can tell.
    Unknown,
}

impl Terms {
    /// Looks up what is asked. `None` where nothing in the index can match.
    pub(super) fn of(
        connection: &Connection,
        filter: &Filter,
        scope: &AuditScope,
    ) -> rusqlite::Result<Option<Self>> {
        let mut found = Self { terms: Vec::new(), created: Vec::new(), exact: true };
        if let Some(vaults) = things::of_scope(connection, scope)? {
            let values: Vec<_> = vaults.into_iter().map(|vault| (Dimension::Vault, vault)).collect();
            if values.is_empty() {
                return Ok(None);
            }
            found.terms.push(IndexTerm::AnyOf { negated: false, values });
        }
        for Term { negated, test } in filter.terms() {
            let negated = *negated;
            match Meaning::of(connection, test)? {
                Meaning::Values(values) if values.is_empty() && !negated => return Ok(None),
                Meaning::Values(values) => found.terms.push(IndexTerm::AnyOf { negated, values }),
                Meaning::Marked(_, None) if !negated => return Ok(None),
                Meaning::Marked(mark, Some(bits)) if !negated => {
                    found.terms.push(IndexTerm::Marked { mark, bits });
                    found.exact = false;
                }
                Meaning::Created(span) => found.created.push((negated, span)),
                Meaning::Marked(..) | Meaning::Unknown => found.exact = false,
            }
        }
        for term in &mut found.terms {
            if let IndexTerm::AnyOf { values, .. } = term {
                values.sort_unstable();
            }
        }
        // What is looked up with the least work first: where it is not in a chunk, the rest is not asked.
        found.terms.sort_by_key(|term| match term {
            IndexTerm::AnyOf { values, .. } => values.len(),
            IndexTerm::Marked { .. } => 1,
        });
        Ok(Some(found))
    }
}

impl Meaning {
    fn of(connection: &Connection, test: &Test) -> rusqlite::Result<Self> {
        let strings = |dimension, pattern| strings(connection, dimension, pattern);
        let things = |dimension, pattern| {
            let things = things::matching(connection, dimension, pattern)?;
            Ok::<_, rusqlite::Error>(Self::Values(with(dimension, things)))
        };
        let marked = |mark, pattern| marked(connection, mark, pattern);
        let code = |dimension, code| Ok(Self::Values(vec![(dimension, code)]));
        let id = |mark, id: &PublicId| Ok(Self::Marked(mark, mark_of_bytes(id.as_bytes())));
        match test {
            Test::Agent(name) => strings(Dimension::Agent, name),
            Test::Tool(name) => strings(Dimension::Tool, name),
            Test::Caller(name) => strings(Dimension::Caller, name),
            Test::Person(name) => strings(Dimension::Person, name),
            Test::Source(name) => strings(Dimension::Source, name),
            Test::Revision(digest) => strings(Dimension::Revision, digest),
            Test::Reference(text) => strings(Dimension::Reference, text),
            Test::Vault(name) => things(Dimension::Vault, name),
            Test::Item(name) => things(Dimension::Item, name),
            Test::Policy(name) => {
                let lists = things::policies_matching(connection, name)?;
                Ok(Self::Values(with(Dimension::Policies, lists)))
            }
            Test::Reason(pattern) => {
                let codes = Reason::ALL.iter().filter(|reason| pattern.matches(reason.as_str()));
                let mut values = with(Dimension::Reason, codes.map(|reason| reason.code()).collect());
                let texts = things::strings_matching(connection, Dimension::OutcomeReason, pattern)?;
                values.extend(with(Dimension::OutcomeReason, texts));
                Ok(Self::Values(values))
            }
            Test::Decision(ruling) => code(Dimension::Ruling, ruling.code()),
            Test::Kind(kind) => code(Dimension::Kind, kind.code()),
            Test::Outcome(Some(result)) => code(Dimension::Result, result.code()),
            Test::Outcome(None) => code(Dimension::Result, OPEN),
            Test::Request(request) => id(Mark::Request, request),
            Test::Lease(lease) => id(Mark::Lease, lease),
            Test::Handle(handle) => id(Mark::Handle, handle),
            Test::ValueDigest(digest) => Ok(Self::Marked(Mark::ValueDigest, mark_of_bytes(&digest.0))),
            Test::Credential(id) => marked(Mark::Credential, id),
            Test::Session(text) => marked(Mark::Session, text),
            Test::Destination(text) => marked(Mark::Destination, text),
            Test::Client(text) => marked(Mark::Client, text),
            Test::Created(span) => Ok(Self::Created(*span)),
            Test::Record(_) | Test::Detail(_) => Ok(Self::Unknown),
        }
    }
}

fn strings(connection: &Connection, dimension: Dimension, pattern: &Pattern) -> rusqlite::Result<Meaning> {
    Ok(Meaning::Values(with(dimension, things::strings_matching(connection, dimension, pattern)?)))
}

/// One whole text has one number; of a part of a text, the marks say nothing.
fn marked(connection: &Connection, mark: Mark, pattern: &Pattern) -> rusqlite::Result<Meaning> {
    if pattern.any_before || pattern.any_after {
        return Ok(Meaning::Unknown);
    }
    // An exact text does not depend on the dimension.
    let string = things::strings_matching(connection, Dimension::Agent, pattern)?.pop();
    Ok(Meaning::Marked(mark, string.map(mark_of_string)))
}

fn with(dimension: Dimension, values: Vec<i64>) -> Vec<(Dimension, i64)> {
    values.into_iter().map(|value| (dimension, value)).collect()
}

/// The result of what was allowed and has none.
pub(super) const OPEN: i64 = -1;
