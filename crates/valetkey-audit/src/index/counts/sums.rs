//! Sums of the groups of an index over days.
//!
//! A day's counts lie in the order of their groups. The groups that are wanted are held in the same order, so that a day
//! is summed by going through both in step: a month of a large log has nearly a million counts.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, params};
use valetkey_core::{RecordId, Timestamp};

use super::bounded;
use super::texts::Texts;
use crate::index::tally::Group;
use crate::index::{Dimension, things};
use crate::read::{ReadError, Snapshot};
use crate::term::Pattern;
use crate::usage::{Days, Subject};

/// How often something was, and when last.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) count: u64,
    pub(super) last: RecordId,
    pub(super) last_time: Timestamp,
}

impl Counts {
    pub(super) const NONE: Self = Self { count: 0, last: RecordId(0), last_time: Timestamp::from_micros(0) };

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            count: row.get(0)?,
            last: RecordId(row.get(1)?),
            last_time: Timestamp::from_micros(row.get(2)?),
        })
    }

    pub(super) fn add(&mut self, other: Self) {
        self.count += other.count;
        if other.last > self.last {
            (self.last, self.last_time) = (other.last, other.last_time);
        }
    }
}

/// A group that is wanted, by its number.
struct Sum {
    number: i64,
    group: Group,
    counts: Counts,
}

/// What the groups that a report is about, within the scope, sum up to on some days; where they do not occur, they are
/// left out.
pub(super) fn sum(
    snapshot: &Snapshot<'_>,
    days: &Days,
    subject: &Subject,
    texts: &Texts<'_>,
) -> Result<Vec<(Group, Counts)>, ReadError> {
    let mut sums = wanted(snapshot.connection(), subject, texts)?;
    let present = days_present(snapshot, days)?;
    if sums.len().saturating_mul(present.len()) <= LOOK_UPS_MAX {
        look_up(snapshot, &present, &mut sums)?;
    } else {
        go_through(snapshot, &present, &mut sums)?;
    }
    let occurring = sums.into_iter().filter(|sum| sum.counts.count > 0);
    Ok(occurring.map(|Sum { group, counts, number: _ }| (group, counts)).collect())
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

/// The groups in the order of their numbers, with nothing counted.
fn wanted(connection: &Connection, subject: &Subject, texts: &Texts<'_>) -> Result<Vec<Sum>, ReadError> {
    let Some(wanted) = Wanted::of(connection, subject)? else { return Ok(Vec::new()) };
    let (condition, agent) = match wanted {
        Wanted::Agent(agent) => ("agent = ?1", Some(agent)),
        Wanted::All | Wanted::Tool(_) | Wanted::Vaults(_) | Wanted::Items(_) => ("?1 IS NULL", None),
    };
    let sql = format!(
        "SELECT agent, tool, vault, item, kind, reason, result, grp FROM idx.groups WHERE {condition} ORDER BY grp"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([agent])?;
    let mut sums = Vec::new();
    while let Some(row) = rows.next()? {
        let group = Group {
            agent: row.get(0)?,
            tool: row.get(1)?,
            vault: row.get(2)?,
            item: row.get(3)?,
            kind: row.get(4)?,
            reason: row.get(5)?,
            result: row.get(6)?,
        };
        if wanted.takes(&group) && texts.within(group.vault) {
            sums.push(Sum { number: row.get(7)?, group, counts: Counts::NONE });
        }
        bounded(sums.len())?;
    }
    Ok(sums)
}

/// Looks up each group on each day.
fn look_up(snapshot: &Snapshot<'_>, days: &[i64], sums: &mut [Sum]) -> Result<(), ReadError> {
    let mut statement = snapshot
        .connection()
        .prepare("SELECT count, last, last_us FROM idx.days WHERE day = ?1 AND grp = ?2")?;
    for day in days {
        for sum in &mut *sums {
            let mut rows = statement.query(params![day, sum.number])?;
            if let Some(row) = rows.next()? {
                sum.counts.add(Counts::from_row(row)?);
            }
        }
    }
    Ok(())
}

/// Goes through all counts of each day, and through the sums beside them.
fn go_through(snapshot: &Snapshot<'_>, days: &[i64], sums: &mut [Sum]) -> Result<(), ReadError> {
    let mut statement = snapshot
        .connection()
        .prepare("SELECT count, last, last_us, grp FROM idx.days WHERE day = ?1 ORDER BY grp")?;
    for day in days {
        let mut rows = statement.query([day])?;
        let mut ahead = sums.iter_mut().peekable();
        while let Some(row) = rows.next()? {
            let number = row.get(3)?;
            while ahead.next_if(|sum| sum.number < number).is_some() {}
            if let Some(sum) = ahead.next_if(|sum| sum.number == number) {
                sum.counts.add(Counts::from_row(row)?);
            }
        }
    }
    Ok(())
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

/// Days of groups that are looked up one by one. Few in tests, so that they go both ways.
const LOOK_UPS_MAX: usize = if cfg!(test) { 40 } else { 50_000 };
