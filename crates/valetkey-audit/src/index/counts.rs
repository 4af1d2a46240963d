//! What reports count: from the index as far as it goes, and from the records behind it.

mod sums;
mod texts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use valetkey_core::{AuditScope, OutcomeResult, Reason, RecordId, RecordKind, Timestamp};

use self::sums::Counts;
use self::texts::Texts;
use super::tally::Group;
use crate::code::Code;
use crate::read::{ReadError, Snapshot};
use crate::recount::{self, Part};
use crate::usage::{Day, Days, FirstUse, LastUse, PolicyUse, Refusals, Subject, Thing, Usage, UsageResult};

/// Use on some days; the last used at the end.
pub(crate) fn usage(
    snapshot: &Snapshot<'_>,
    scope: &AuditScope,
    days: &Days,
    subject: &Subject,
) -> Result<Vec<Usage>, ReadError> {
    let tail = recount::usage(snapshot.connection(), &behind(snapshot, scope), days, subject)?;
    let mut merged = Merged::default();
    for Usage { agent, tool, vault, item, kind, result, count, last, last_time } in tail {
        merged.add(Key { agent, tool, vault, item, kind, result }, Counts { count, last, last_time });
    }
    let of_group = |group: &Group| match group.reason {
        0 if group.result == 0 => Ok(Some(UsageResult::Allowed(None))),
        0 => Ok(Some(UsageResult::Allowed(Some(word::<OutcomeResult>(group.result)?)))),
        // Also asked of what leaves no use behind, such as a dry run.
        reason if word::<RecordKind>(group.kind)?.has_outcome() => {
            Ok(Some(UsageResult::Refused(word(reason)?)))
        }
        _ => Ok(None),
    };
    add_groups(snapshot, scope, days, subject, &mut merged, of_group)?;
    let row = |(Key { agent, tool, vault, item, kind, result }, counts)| {
        let Counts { count, last, last_time } = counts;
        Usage { agent, tool, vault, item, kind, result, count, last, last_time }
    };
    let mut rows: Vec<_> = merged.0.into_iter().map(row).collect();
    rows.sort_unstable_by_key(|row| row.last);
    Ok(rows)
}

/// Refusals on some days; the last refused at the end.
pub(crate) fn refusals(
    snapshot: &Snapshot<'_>,
    scope: &AuditScope,
    days: &Days,
    agent: Option<&str>,
) -> Result<Vec<Refusals>, ReadError> {
    let tail = recount::refusals(snapshot.connection(), &behind(snapshot, scope), days, agent)?;
    let mut merged = Merged::default();
    for Refusals { agent, tool, vault, item, kind, reason, count, last, last_time } in tail {
        merged.add(Key { agent, tool, vault, item, kind, result: reason }, Counts { count, last, last_time });
    }
    let subject = agent.map_or(Subject::Everybody, |agent| Subject::Agent(agent.to_owned()));
    let reason = |group: &Group| match group.reason {
        0 => Ok(None),
        reason => word::<Reason>(reason).map(Some),
    };
    add_groups(snapshot, scope, days, &subject, &mut merged, reason)?;
    let row = |(Key { agent, tool, vault, item, kind, result: reason }, counts)| {
        let Counts { count, last, last_time } = counts;
        Refusals { agent, tool, vault, item, kind, reason, count, last, last_time }
    };
    let mut rows: Vec<_> = merged.0.into_iter().map(row).collect();
    rows.sort_unstable_by_key(|row| row.last);
    Ok(rows)
}

/// First uses that fall into some days, oldest first.
pub(crate) fn first_uses(
    snapshot: &Snapshot<'_>,
    scope: &AuditScope,
    days: &Days,
) -> Result<Vec<FirstUse>, ReadError> {
    let mut uses = HashMap::new();
    if snapshot.extent().is_some() {
        let sql = "SELECT agent, tool, vault, item, seq, time_us FROM idx.first_uses ORDER BY seq";
        let mut texts = Texts::new(snapshot, scope)?;
        let mut statement = snapshot.connection().prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some((vault, item)) = texts.things(row.get(2)?, row.get(3)?)? else { continue };
            let (agent, tool) = (texts.string(row.get(0)?)?, texts.string(row.get(1)?)?);
            let (record, time) = (RecordId(row.get(4)?), Timestamp::from_micros(row.get(5)?));
            let first = FirstUse { agent, tool, vault, item, record, time };
            uses.entry(first_key(&first)).or_insert(first);
            bounded(uses.len())?;
        }
    }
    for first in recount::first_uses(snapshot.connection(), &behind(snapshot, scope))? {
        uses.entry(first_key(&first)).or_insert(first);
    }
    let within = |first: &FirstUse| days.contains(&Day::of_us(first.time.as_micros()));
    let mut uses: Vec<_> = uses.into_values().filter(within).collect();
    uses.sort_unstable_by_key(|first| first.record);
    Ok(uses)
}

/// The last use of each item by each agent, oldest first.
pub(crate) fn last_uses(snapshot: &Snapshot<'_>, scope: &AuditScope) -> Result<Vec<LastUse>, ReadError> {
    let mut uses = HashMap::new();
    if snapshot.extent().is_some() {
        let sql = "SELECT agent, vault, item, seq, time_us FROM idx.last_uses ORDER BY seq";
        let mut texts = Texts::new(snapshot, scope)?;
        let mut statement = snapshot.connection().prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some((vault, item)) = texts.things(row.get(1)?, row.get(2)?)? else { continue };
            let agent = texts.string(row.get(0)?)?;
            let (record, time) = (RecordId(row.get(3)?), Timestamp::from_micros(row.get(4)?));
            let last = LastUse { agent, vault, item, record, time };
            uses.insert(last_key(&last), last);
            bounded(uses.len())?;
        }
    }
    for last in recount::last_uses(snapshot.connection(), &behind(snapshot, scope))? {
        uses.insert(last_key(&last), last);
    }
    let mut uses: Vec<_> = uses.into_values().collect();
    uses.sort_unstable_by_key(|last| last.record);
    Ok(uses)
}

/// What policies determined on some days, in the order of their ids.
pub(crate) fn policy_uses(
    snapshot: &Snapshot<'_>,
    scope: &AuditScope,
    days: &Days,
) -> Result<Vec<PolicyUse>, ReadError> {
    let mut uses = BTreeMap::<String, PolicyUse>::new();
    for tail in recount::policy_uses(snapshot.connection(), &behind(snapshot, scope), days)? {
        uses.insert(tail.policy.clone(), tail);
    }
    if snapshot.extent().is_some() {
        let sql =
            "SELECT policies, vault, count, last, last_us FROM idx.policy_days WHERE day >= ?1 AND day < ?2";
        let mut texts = Texts::new(snapshot, scope)?;
        let mut statement = snapshot.connection().prepare(sql)?;
        let mut rows = statement.query([days.start.0, days.end.0])?;
        while let Some(row) = rows.next()? {
            if !texts.within(row.get(1)?) {
                continue;
            }
            let lines = texts.string(row.get(0)?)?;
            let (count, last) = (row.get::<_, u64>(2)?, RecordId(row.get(3)?));
            let last_time = Timestamp::from_micros(row.get(4)?);
            for policy in lines.split('\n').collect::<BTreeSet<_>>() {
                let new = || PolicyUse { policy: policy.to_owned(), count: 0, last, last_time };
                let sum = uses.entry(policy.to_owned()).or_insert_with(new);
                sum.count += count;
                if last > sum.last {
                    (sum.last, sum.last_time) = (last, last_time);
                }
            }
        }
    }
    Ok(uses.into_values().collect())
}

/// The records that the index does not cover.
fn behind<'a>(snapshot: &Snapshot<'_>, scope: &'a AuditScope) -> Part<'a> {
    Part { seqs: (snapshot.covered() + 1, snapshot.last()), scope }
}

/// What records agree in that are counted together.
#[derive(PartialEq, Eq, Hash)]
struct Key<R> {
    agent: Option<String>,
    tool: Option<String>,
    vault: Option<Thing>,
    item: Option<Thing>,
    kind: RecordKind,
    result: R,
}

struct Merged<R>(HashMap<Key<R>, Counts>);

impl<R> Default for Merged<R> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<R: Eq + Hash> Merged<R> {
    fn add(&mut self, key: Key<R>, counts: Counts) {
        self.0.entry(key).or_insert(Counts::NONE).add(counts);
    }
}

/// Adds the groups of the index of which `result` is something.
fn add_groups<R: Eq + Hash>(
    snapshot: &Snapshot<'_>,
    scope: &AuditScope,
    days: &Days,
    subject: &Subject,
    merged: &mut Merged<R>,
    result: impl Fn(&Group) -> Result<Option<R>, ReadError>,
) -> Result<(), ReadError> {
    if snapshot.extent().is_none() {
        return Ok(());
    }
    let mut texts = Texts::new(snapshot, scope)?;
    for (group, counts) in sums::sum(snapshot, days, subject, &texts)? {
        let Some(result) = result(&group)? else { continue };
        let key = Key {
            agent: texts.string_opt(group.agent)?,
            tool: texts.string_opt(group.tool)?,
            vault: texts.thing(group.vault)?,
            item: texts.thing(group.item)?,
            kind: word(group.kind)?,
            result,
        };
        merged.add(key, counts);
    }
    Ok(())
}

fn first_key(first: &FirstUse) -> (String, String, String, String) {
    (first.agent.clone(), first.tool.clone(), first.vault.id.clone(), first.item.id.clone())
}

fn last_key(last: &LastUse) -> (String, String, String) {
    (last.agent.clone(), last.vault.id.clone(), last.item.id.clone())
}

fn word<T: Code>(code: i64) -> Result<T, ReadError> {
    T::of(code).ok_or_else(ReadError::damaged)
}

pub(super) fn bounded(rows: usize) -> Result<(), ReadError> {
    if rows > ROWS_MAX { Err(ReadError::TooLong) } else { Ok(()) }
}

/// Rows of an answer, and groups that are held to make it.
const ROWS_MAX: usize = 1_000_000;
