//! Sums up what the log counts: the log tells what was asked and what came of it apart, and a thing's names of
//! different times; a report has one row for each agent, tool and item.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use valetkey_audit::{Refusals, Thing, Usage, UsageResult};
use valetkey_core::{OutcomeResult, Reason, RecordId, RecordKind, Timestamp};
use valetkey_proto::v1;

/// What one agent did with one item by one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) agent: Option<String>,
    pub(super) tool: Option<String>,
    /// As they were last called.
    pub(super) vault: Option<Thing>,
    pub(super) item: Option<Thing>,
    /// The last record of all, which has these names.
    last: RecordId,
    pub(super) last_use: Option<LastUse>,
    pub(super) last_refused: Option<Timestamp>,
    pub(super) issued: u64,
    pub(super) released: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
}

/// A handle that was issued, or a value that was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastUse {
    pub(super) record: RecordId,
    pub(super) time: Timestamp,
    pub(super) kind: RecordKind,
}

/// All of a report, the last used first.
pub(super) struct Tally {
    pub(super) rows: Vec<Used>,
    pub(super) totals: v1::ReportTotals,
}

/// Who and what, without the names of things.
type Key = (Option<String>, Option<String>, Option<String>, Option<String>);

impl Tally {
    pub(super) fn of(usages: Vec<Usage>, is_meant: impl Fn(&Usage) -> bool) -> Self {
        let mut rows: HashMap<Key, Used> = HashMap::new();
        for usage in usages.into_iter().filter(is_meant) {
            let key = key(&usage.agent, &usage.tool, usage.vault.as_ref(), usage.item.as_ref());
            rows.entry(key).or_insert_with(|| Used::unused(&usage)).add(usage);
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by_key(|row| Reverse((row.last_use.map(|last| last.record), row.last)));
        let totals = totals(&rows);
        Self { rows, totals }
    }

    /// Keeps the first rows; whether there were more.
    pub(super) fn cut(&mut self, max: usize) -> bool {
        super::cut(&mut self.rows, max)
    }
}

impl Used {
    fn unused(usage: &Usage) -> Self {
        Self {
            agent: usage.agent.clone(),
            tool: usage.tool.clone(),
            vault: usage.vault.clone(),
            item: usage.item.clone(),
            last: RecordId(0),
            last_use: None,
            last_refused: None,
            issued: 0,
            released: 0,
            refused: 0,
            failed: 0,
        }
    }

    fn add(&mut self, usage: Usage) {
        let Usage { agent: _, tool: _, vault, item, kind, result, count, last, last_time } = usage;
        if last >= self.last {
            (self.last, self.vault, self.item) = (last, vault, item);
        }
        let used = match result {
            UsageResult::Refused(_) => {
                self.refused += count;
                self.last_refused = self.last_refused.max(Some(last_time));
                return;
            }
            // Under way.
            UsageResult::Allowed(None) => return,
            UsageResult::Allowed(Some(OutcomeResult::Issued)) => &mut self.issued,
            UsageResult::Allowed(Some(OutcomeResult::Released)) => &mut self.released,
            UsageResult::Allowed(Some(
                OutcomeResult::Failed | OutcomeResult::Withheld | OutcomeResult::Interrupted,
            )) => {
                self.failed += count;
                return;
            }
        };
        *used += count;
        let uses = self.last_use.into_iter().chain([LastUse { record: last, time: last_time, kind }]);
        self.last_use = uses.max_by_key(|last| last.record);
    }
}

/// The most frequent first, without what reviewers asked themselves.
pub(super) fn refusals(rows: Vec<Refusals>) -> Vec<Refusals> {
    let mut by_key: HashMap<(Key, RecordKind, Reason), Refusals> = HashMap::new();
    let is_meant = |row: &Refusals| !matches!(row.kind, RecordKind::ReadAudit | RecordKind::FindValue);
    for row in rows.into_iter().filter(is_meant) {
        let key = key(&row.agent, &row.tool, row.vault.as_ref(), row.item.as_ref());
        match by_key.entry((key, row.kind, row.reason)) {
            std::collections::hash_map::Entry::Vacant(entry) => _ = entry.insert(row),
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let count = entry.get().count.saturating_add(row.count);
                if row.last > entry.get().last {
                    entry.insert(row);
                }
                entry.get_mut().count = count;
            }
        }
    }
    let mut rows: Vec<_> = by_key.into_values().collect();
    rows.sort_by_key(|row| Reverse((row.count, row.last)));
    rows
}

fn key(agent: &Option<String>, tool: &Option<String>, vault: Option<&Thing>, item: Option<&Thing>) -> Key {
    let id = |thing: Option<&Thing>| thing.map(|thing| thing.id.clone());
    (agent.clone(), tool.clone(), id(vault), id(item))
}

fn totals(rows: &[Used]) -> v1::ReportTotals {
    let count = |of: fn(&Used) -> Option<(&str, &str)>| {
        let all: HashSet<_> = rows.iter().filter_map(of).collect();
        u32::try_from(all.len()).unwrap_or(u32::MAX)
    };
    let sum = |of: fn(&Used) -> u64| rows.iter().map(of).fold(0, u64::saturating_add);
    let used = |row: &Used| row.last_use.is_some();
    debug_assert!(rows.iter().all(|row| used(row) == (row.issued + row.released > 0)));
    v1::ReportTotals {
        agents: count(|row| row.agent.as_deref().filter(|_| row.last_use.is_some()).map(|agent| (agent, ""))),
        tools: count(|row| row.tool.as_deref().filter(|_| row.last_use.is_some()).map(|tool| (tool, ""))),
        vaults: count(|row| row.vault.as_ref().filter(|_| row.last_use.is_some()).map(|it| (&*it.id, ""))),
        items: count(|row| {
            let ids = row.vault.as_ref().zip(row.item.as_ref()).filter(|_| row.last_use.is_some());
            ids.map(|(vault, item)| (&*vault.id, &*item.id))
        }),
        issued: sum(|row| row.issued),
        released: sum(|row| row.released),
        refused: sum(|row| row.refused),
        failed: sum(|row| row.failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(record: u64, kind: RecordKind, name: &str, result: UsageResult, count: u64) -> Usage {
        let thing = |name: &str| Some(Thing { id: "id".into(), name: name.into() });
        Usage {
            agent: Some("bot".into()),
            tool: Some("tool".into()),
            vault: thing("vault"),
            item: thing(name),
            kind,
            result,
            count,
            last: RecordId(record),
            last_time: Timestamp::from_micros(i64::try_from(record).unwrap()),
        }
    }

    #[test]
    fn rows_of_one_item_are_one_under_its_last_name() {
        use OutcomeResult::{Failed, Interrupted, Issued, Released, Withheld};
        let allowed = |result| UsageResult::Allowed(Some(result));
        let rows = vec![
            usage(9, RecordKind::Acquire, "new", UsageResult::Refused(Reason::PolicyNoPermit), 2),
            usage(1, RecordKind::Acquire, "old", allowed(Issued), 3),
            usage(2, RecordKind::Renew, "old", allowed(Issued), 4),
            usage(5, RecordKind::Redeem, "old", allowed(Released), 5),
            usage(4, RecordKind::Acquire, "old", allowed(Failed), 1),
            usage(6, RecordKind::Acquire, "old", allowed(Withheld), 1),
            usage(7, RecordKind::Redeem, "old", allowed(Interrupted), 1),
            usage(8, RecordKind::Redeem, "old", UsageResult::Allowed(None), 1),
        ];
        let Tally { rows, totals } = Tally::of(rows, |_| true);
        let [row] = &rows[..] else { panic!("{rows:#?}") };
        assert_eq!(row.item.as_ref().unwrap().name, "new");
        assert_eq!((row.issued, row.released, row.refused, row.failed), (7, 5, 2, 3));
        let last = row.last_use.unwrap();
        assert_eq!((last.record, last.kind), (RecordId(5), RecordKind::Redeem));
        assert_eq!(row.last_refused, Some(Timestamp::from_micros(9)));
        assert_eq!((totals.agents, totals.items, totals.issued, totals.refused), (1, 1, 7, 2));
    }

    #[test]
    fn what_was_only_refused_was_not_used() {
        let refused = UsageResult::Refused(Reason::PolicyNoPermit);
        let totals = Tally::of(vec![usage(1, RecordKind::Acquire, "a", refused, 2)], |_| true).totals;
        assert_eq!((totals.agents, totals.tools, totals.vaults, totals.items), (0, 0, 0, 0));
    }
}
