//! What reports count: from the index as far as it goes, and from the records behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;

use rusqlite::{Connection, OptionalExtension, params};
use valetkey_core::{AuditScope, OutcomeResult, Reason, RecordId, RecordKind, Timestamp};

use super::tally::Group;
use super::{Dimension, things};
use crate::code::Code;
use crate::read::{ReadError, Snapshot};
use crate::recount::{self, Part};
use crate::term::Pattern;
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

#[derive(Clone, Copy)]
struct Counts {
    count: u64,
    last: RecordId,
    last_time: Timestamp,
}

impl Counts {
    const NONE: Self = Self { count: 0, last: RecordId(0), last_time: Timestamp::from_micros(0) };

    fn add(&mut self, other: Self) {
        self.count += other.count;
        if other.last > self.last {
            (self.last, self.last_time) = (other.last, other.last_time);
        }
    }
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
    let groups = groups(snapshot, subject, &texts)?;
    let sums = sum_days(snapshot, days, &groups)?;
    bounded(sums.len())?;
    for (number, counts) in sums {
        let Some(group) = groups.get(&number) else { continue };
        let Some(result) = result(group)? else { continue };
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

/// Which groups a report is about.
enum Wanted {
    All,
    /// By agent there is an index; for all others, the groups are looked through.
    Agent(i64),
    Tool(i64),
    Vaults(HashSet<i64>),
    Items(HashSet<i64>),
}

impl Wanted {
    /// `None` where the log does not know what it is about.
    fn of(connection: &Connection, subject: &Subject) -> rusqlite::Result<Option<Self>> {
        let string = |text: &str| {
            connection
                .query_row("SELECT id FROM strings WHERE text = ?1", [text], |row| row.get::<_, i64>(0))
                .optional()
        };
        let things = |dimension, name: &str| {
            let things = things::matching(connection, dimension, &Pattern::exact(name).lower_case())?;
            Ok::<_, rusqlite::Error>(things.into_iter().collect())
        };
        Ok(match subject {
            Subject::Everybody => Some(Self::All),
            Subject::Agent(name) => string(name)?.map(Self::Agent),
            Subject::Tool(name) => string(name)?.map(Self::Tool),
            Subject::Vault(name) => Some(Self::Vaults(things(Dimension::Vault, name)?)),
            Subject::Item(name) => Some(Self::Items(things(Dimension::Item, name)?)),
        })
    }

    fn takes(&self, group: &Group) -> bool {
        match self {
            Self::All => true,
            Self::Agent(agent) => group.agent == *agent,
            Self::Tool(tool) => group.tool == *tool,
            Self::Vaults(vaults) => vaults.contains(&group.vault),
            Self::Items(items) => items.contains(&group.item),
        }
    }
}

/// The groups that a report is about, within the scope.
fn groups(
    snapshot: &Snapshot<'_>,
    subject: &Subject,
    texts: &Texts<'_>,
) -> Result<HashMap<i64, Group>, ReadError> {
    let connection = snapshot.connection();
    let Some(wanted) = Wanted::of(connection, subject)? else { return Ok(HashMap::new()) };
    let agent = if let Wanted::Agent(agent) = wanted { Some(agent) } else { None };
    let mut statement = connection.prepare(match agent {
        Some(_) => {
            "SELECT grp, agent, tool, vault, item, kind, reason, result FROM idx.groups WHERE agent = ?1"
        }
        None => "SELECT grp, agent, tool, vault, item, kind, reason, result FROM idx.groups WHERE ?1 IS NULL",
    })?;
    let mut rows = statement.query([agent])?;
    let mut groups = HashMap::new();
    while let Some(row) = rows.next()? {
        let group = Group {
            agent: row.get(1)?,
            tool: row.get(2)?,
            vault: row.get(3)?,
            item: row.get(4)?,
            kind: row.get(5)?,
            reason: row.get(6)?,
            result: row.get(7)?,
        };
        if wanted.takes(&group) && texts.within(group.vault) {
            groups.insert(row.get(0)?, group);
        }
        bounded(groups.len())?;
    }
    Ok(groups)
}

/// Sums some groups over some days.
fn sum_days(
    snapshot: &Snapshot<'_>,
    days: &Days,
    groups: &HashMap<i64, Group>,
) -> Result<HashMap<i64, Counts>, ReadError> {
    let mut sums = HashMap::<i64, Counts>::with_capacity(groups.len());
    let mut add = |group: i64, row: &rusqlite::Row<'_>| {
        let counts = Counts {
            count: row.get(0)?,
            last: RecordId(row.get(1)?),
            last_time: Timestamp::from_micros(row.get(2)?),
        };
        sums.entry(group).or_insert(Counts::NONE).add(counts);
        Ok::<_, rusqlite::Error>(())
    };
    let present = days_present(snapshot, days)?;
    if groups.len().saturating_mul(present.len()) <= LOOK_UPS_MAX {
        let mut statement = snapshot
            .connection()
            .prepare("SELECT count, last, last_us FROM idx.days WHERE day = ?1 AND grp = ?2")?;
        for day in present {
            for group in groups.keys() {
                let mut rows = statement.query(params![day, group])?;
                if let Some(row) = rows.next()? {
                    add(*group, row)?;
                }
            }
        }
        return Ok(sums);
    }
    let mut statement = snapshot
        .connection()
        .prepare("SELECT count, last, last_us, grp FROM idx.days WHERE day >= ?1 AND day < ?2")?;
    let mut rows = statement.query([days.start.0, days.end.0])?;
    while let Some(row) = rows.next()? {
        let group = row.get(3)?;
        if groups.contains_key(&group) {
            add(group, row)?;
        }
    }
    Ok(sums)
}

/// The days of the log among these.
fn days_present(snapshot: &Snapshot<'_>, days: &Days) -> Result<Vec<i64>, ReadError> {
    let mut statement =
        snapshot.connection().prepare("SELECT min(day) FROM idx.days WHERE day >= ?1 AND day < ?2")?;
    let mut present = Vec::new();
    let mut from = days.start.0;
    while let Some(day) = statement.query_row([from, days.end.0], |row| row.get::<_, Option<i64>>(0))? {
        present.push(day);
        from = day + 1;
    }
    Ok(present)
}

/// Texts and things by their numbers, each read once.
struct Texts<'a> {
    connection: &'a Connection,
    strings: HashMap<i64, String>,
    things: HashMap<i64, Thing>,
    /// The vaults of the scope; `None` for all.
    vaults: Option<HashSet<i64>>,
}

impl<'a> Texts<'a> {
    fn new(snapshot: &'a Snapshot<'_>, scope: &AuditScope) -> Result<Self, ReadError> {
        let connection = snapshot.connection();
        let vaults = things::of_scope(connection, scope)?.map(|vaults| vaults.into_iter().collect());
        Ok(Self { connection, strings: HashMap::new(), things: HashMap::new(), vaults })
    }

    fn within(&self, vault: i64) -> bool {
        self.vaults.as_ref().is_none_or(|vaults| vaults.contains(&vault))
    }

    fn string(&mut self, number: i64) -> Result<String, ReadError> {
        if let Some(text) = self.strings.get(&number) {
            return Ok(text.clone());
        }
        let text: String = self
            .connection
            .prepare_cached("SELECT text FROM strings WHERE id = ?1")?
            .query_row([number], |row| row.get(0))?;
        self.strings.insert(number, text.clone());
        Ok(text)
    }

    fn string_opt(&mut self, number: i64) -> Result<Option<String>, ReadError> {
        if number == 0 { Ok(None) } else { self.string(number).map(Some) }
    }

    fn thing(&mut self, number: i64) -> Result<Option<Thing>, ReadError> {
        if number == 0 {
            return Ok(None);
        }
        if let Some(thing) = self.things.get(&number) {
            return Ok(Some(thing.clone()));
        }
        let (id, name): (i64, i64) = self
            .connection
            .prepare_cached("SELECT id, name FROM idx.things WHERE thing = ?1")?
            .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let thing = Thing { id: self.string(id)?, name: self.string(name)? };
        self.things.insert(number, thing.clone());
        Ok(Some(thing))
    }

    /// A vault of the scope and an item.
    fn things(&mut self, vault: i64, item: i64) -> Result<Option<(Thing, Thing)>, ReadError> {
        if !self.within(vault) {
            return Ok(None);
        }
        Ok(self.thing(vault)?.zip(self.thing(item)?))
    }
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

fn bounded(rows: usize) -> Result<(), ReadError> {
    if rows > ROWS_MAX { Err(ReadError::TooLong) } else { Ok(()) }
}

/// Rows of an answer, and groups that are held to make it.
const ROWS_MAX: usize = 1_000_000;
/// Days of groups that are looked up one by one.
const LOOK_UPS_MAX: usize = 50_000;
