//! The vaults that occur in the log, each with the names that it had: what a reviewer can be limited to.
//!
//! The index has them; what it does not cover is looked through once. What was found is kept: a vault never goes away,
//! although its records may.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::params;
use valetkey_core::{Named, RecordId};

use crate::index;
use crate::read::{ReadError, Snapshot};

/// The vaults of the log up to a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vaults {
    /// Each id with each name that it had; a name that two ids had stands for neither.
    pub vaults: Vec<Named>,
    /// Everything up to here was looked at.
    pub seen: RecordId,
}

/// What is known so far.
#[derive(Default)]
pub(crate) struct Known(Mutex<Found>);

#[derive(Default)]
struct Found {
    /// Id and name.
    pairs: BTreeSet<(String, String)>,
    seen: u64,
}

impl Known {
    /// Looks through the next part of the log. `None` where there is more after it.
    pub(crate) fn look_on(
        &self,
        snapshot: &Snapshot<'_>,
        scan_max: u64,
    ) -> Result<Option<Vaults>, ReadError> {
        let last = snapshot.last();
        if snapshot.extent().is_some() && self.lock().seen < snapshot.covered() {
            let pairs = index::vaults(snapshot.connection())?;
            let mut found = self.lock();
            found.pairs.extend(pairs);
            found.seen = found.seen.max(snapshot.covered());
        }
        let seen = self.lock().seen;
        let top = seen.saturating_add(scan_max).min(last);
        let mut statement = snapshot.connection().prepare_cached(
            "SELECT id.text, name.text
             FROM (SELECT DISTINCT vault_id, vault_name FROM records
                   WHERE seq BETWEEN ?1 AND ?2 AND vault_id IS NOT NULL) r
             JOIN strings id ON id.id = r.vault_id JOIN strings name ON name.id = r.vault_name",
        )?;
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let pairs: Vec<_> = statement
            .query_map(params![seen.saturating_add(1), top], pair)?
            .collect::<rusqlite::Result<_>>()?;
        let mut found = self.lock();
        found.pairs.extend(pairs);
        found.seen = found.seen.max(top);
        Ok((found.seen >= last).then(|| found.vaults()))
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    fn vaults(&self) -> Vaults {
        let mut ids_by_name: HashMap<&str, usize> = HashMap::new();
        for (_, name) in &self.pairs {
            *ids_by_name.entry(name).or_default() += 1;
        }
        let is_id = |name: &str| self.pairs.iter().any(|(id, _)| id == name);
        let vaults = self.pairs.iter().map(|(id, name)| Named {
            id: id.as_str().into(),
            name: name.as_str().into(),
            name_is_unique: ids_by_name.get(name.as_str()) == Some(&1)
                && !looks_like_id(name)
                && !is_id(name),
        });
        Vaults { vaults: vaults.collect(), seen: RecordId(self.seen) }
    }
}

/// 26 characters of `a-z 0-9`: the form of 1Password's ids.
fn looks_like_id(name: &str) -> bool {
    name.len() == 26 && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}
