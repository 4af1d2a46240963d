//! What a chunk adds to the counts that reports are made of.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use valetkey_core::{OutcomeResult, RecordKind, Ruling};

use super::chunk::Entry;
use crate::code::Code;
use crate::usage::Day;

/// The counts of one chunk.
#[derive(Default)]
pub(super) struct Tally {
    groups: HashMap<(i64, Group), Count>,
    policies: HashMap<(i64, i64, i64), Count>,
    /// By agent, tool, vault and item: the first record and its time.
    first_uses: HashMap<(i64, i64, i64, i64), (u64, i64)>,
    /// By agent, vault and item: the last.
    last_uses: HashMap<(i64, i64, i64), (u64, i64)>,
}

/// What records agree in that are counted together. 0 for what is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub(super) agent: i64,
    pub(super) tool: i64,
    pub(super) vault: i64,
    pub(super) item: i64,
    pub(super) kind: i64,
    /// Of a refusal alone.
    pub(super) reason: i64,
    /// Of what was allowed alone.
    pub(super) result: i64,
}

#[derive(Default)]
struct Count {
    count: u64,
    last: u64,
    last_us: i64,
}

impl Count {
    fn add(&mut self, seq: u64, time_us: i64) {
        self.count += 1;
        (self.last, self.last_us) = (seq, time_us);
    }
}

impl Tally {
    /// Counts a record; they come in the order of the log.
    pub(super) fn add(&mut self, seq: u64, entry: &Entry) {
        let Entry { time_us, agent, tool, vault, item, kind, ruling, reason, result, policies, .. } = *entry;
        let day = Day::of_us(time_us).0;
        let group = Group { agent, tool, vault, item, kind, reason: 0, result: 0 };
        let has_outcome = RecordKind::of(kind).is_some_and(RecordKind::has_outcome);
        if ruling == Ruling::Deny.code() {
            self.groups.entry((day, Group { reason, ..group })).or_default().add(seq, time_us);
        } else if ruling == Ruling::Allow.code() && has_outcome {
            self.groups.entry((day, Group { result: result.max(0), ..group })).or_default().add(seq, time_us);
        }
        if policies != 0 {
            self.policies.entry((day, policies, vault)).or_default().add(seq, time_us);
        }
        if agent == 0 || item == 0 {
            return;
        }
        let issued = result == OutcomeResult::Issued.code();
        if issued && tool != 0 {
            self.first_uses.entry((agent, tool, vault, item)).or_insert((seq, time_us));
        }
        if issued || result == OutcomeResult::Released.code() {
            self.last_uses.insert((agent, vault, item), (seq, time_us));
        }
    }

    /// Adds the counts to those of the chunks before.
    pub(super) fn write(self, index: &Connection, known: &mut Groups) -> rusqlite::Result<()> {
        let Self { groups, policies, first_uses, last_uses } = self;
        let mut add = index.prepare_cached(
            "INSERT INTO days (day, grp, count, last, last_us) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET count = count + excluded.count, last = excluded.last, last_us = excluded.last_us",
        )?;
        for ((day, group), Count { count, last, last_us }) in groups {
            add.execute(params![day, known.number(index, group)?, count, last, last_us])?;
        }
        let mut add = index.prepare_cached(
            "INSERT INTO policy_days (day, policies, vault, count, last, last_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET count = count + excluded.count, last = excluded.last, last_us = excluded.last_us",
        )?;
        for ((day, policies, vault), Count { count, last, last_us }) in policies {
            add.execute(params![day, policies, vault, count, last, last_us])?;
        }
        let mut add = index.prepare_cached(
            "INSERT OR IGNORE INTO first_uses (agent, tool, vault, item, seq, time_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for ((agent, tool, vault, item), (seq, time_us)) in first_uses {
            add.execute(params![agent, tool, vault, item, seq, time_us])?;
        }
        let mut add = index.prepare_cached(
            "INSERT INTO last_uses (agent, vault, item, seq, time_us) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET seq = excluded.seq, time_us = excluded.time_us",
        )?;
        for ((agent, vault, item), (seq, time_us)) in last_uses {
            add.execute(params![agent, vault, item, seq, time_us])?;
        }
        Ok(())
    }
}

/// The numbers of groups, as far as they are remembered.
#[derive(Default)]
pub(super) struct Groups(HashMap<Group, i64>);

impl Groups {
    fn number(&mut self, index: &Connection, group: Group) -> rusqlite::Result<i64> {
        if let Some(number) = self.0.get(&group) {
            return Ok(*number);
        }
        let Group { agent, tool, vault, item, kind, reason, result } = group;
        let key = params![agent, tool, vault, item, kind, reason, result];
        let known = index
            .prepare_cached(
                "SELECT grp FROM groups WHERE agent = ?1 AND tool = ?2 AND vault = ?3 AND item = ?4 AND kind = ?5
                     AND reason = ?6 AND result = ?7",
            )?
            .query_row(key, |row| row.get(0))
            .optional()?;
        let insert = "INSERT INTO groups (agent, tool, vault, item, kind, reason, result)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let number = match known {
            Some(number) => number,
            None => index.prepare_cached(insert)?.insert(key)?,
        };
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.insert(group, number);
        Ok(number)
    }

    /// Forgets everything: after a transaction that was rolled back.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

const REMEMBERED_MAX: usize = 131_072;
