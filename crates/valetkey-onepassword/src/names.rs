//! Things of one kind, by id and by name: who bears which name, and what a word of a reference means.

use std::collections::HashMap;
use std::sync::Arc;

use valetkey_core::{Named, ResolveError};

use crate::item::{is_id, is_sayable};

/// Vaults, or the items of one vault. A change of one thing costs the same whatever their number.
#[derive(Default)]
pub(crate) struct Names {
    by_id: HashMap<Arc<str>, Entry>,
    /// The ids of all that are in use, by their name in lower case.
    bearers: HashMap<Arc<str>, Vec<Arc<str>>>,
}

/// One thing.
struct Entry {
    /// In lower case.
    name: Arc<str>,
    in_use: bool,
    /// Some foreign letters, like the Kelvin sign, have an ASCII letter as their lower case. They count as
    /// the same name where policies name it, but no reference may reach them so.
    is_ascii: bool,
    /// Whether the name, if nothing else bears it, stands for this thing.
    can_stand_alone: bool,
}

/// A thing that was found.
pub(crate) struct Found {
    pub(crate) named: Named,
    /// Whether it is neither archived nor deleted.
    pub(crate) in_use: bool,
}

/// Why a word of a reference leads to no one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    Nothing,
    Several,
}

impl Names {
    /// Puts a thing in, or another in the place of the one with its id.
    pub(crate) fn insert(&mut self, id: &Arc<str>, name: &str, in_use: bool) {
        self.remove(id);
        let lower: Arc<str> = name.to_lowercase().into();
        let can_stand_alone = in_use && is_sayable(name) && !is_id(&lower);
        if in_use {
            self.bearers.entry(Arc::clone(&lower)).or_default().push(Arc::clone(id));
        }
        let entry = Entry { name: lower, in_use, is_ascii: name.is_ascii(), can_stand_alone };
        self.by_id.insert(Arc::clone(id), entry);
    }

    /// Takes a thing out.
    pub(crate) fn remove(&mut self, id: &str) {
        self.retire(id);
        self.by_id.remove(id);
    }

    /// Takes a thing out of use: its name leads nowhere from now on.
    pub(crate) fn retire(&mut self, id: &str) {
        let Some(entry) = self.by_id.get_mut(id) else { return };
        entry.in_use = false;
        entry.can_stand_alone = false;
        if let Some(bearers) = self.bearers.get_mut(&entry.name) {
            bearers.retain(|bearer| **bearer != *id);
            if bearers.is_empty() {
                self.bearers.remove(&entry.name);
            }
        }
    }

    /// The one thing that `word` means. An id beats a name that equals it, and counts only as it stands; a
    /// name counts in any case.
    pub(crate) fn find(&self, word: &str) -> Result<Found, Miss> {
        if let Some(found) = self.by_id(word) {
            return Ok(found);
        }
        let bearers = self.bearers.get(word.to_ascii_lowercase().as_str());
        let sayable = |id: &&Arc<str>| self.by_id.get(*id).is_some_and(|entry| entry.is_ascii);
        let mut hits = bearers.into_iter().flatten().filter(sayable);
        match (hits.next(), hits.next()) {
            (Some(id), None) => self.by_id(id).ok_or(Miss::Nothing),
            (Some(_), Some(_)) => Err(Miss::Several),
            (None, _) => Err(Miss::Nothing),
        }
    }

    /// The thing with this id.
    pub(crate) fn by_id(&self, id: &str) -> Option<Found> {
        let (id, entry) = self.by_id.get_key_value(id)?;
        let is_alone = self.bearers.get(&entry.name).is_some_and(|bearers| bearers.len() == 1);
        let name_is_unique = entry.can_stand_alone && is_alone;
        let named = Named { id: Arc::clone(id), name: Arc::clone(&entry.name), name_is_unique };
        Some(Found { named, in_use: entry.in_use })
    }

    /// All that are in use, as they are known.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = Named> {
        let found = self.by_id.keys().filter_map(|id| self.by_id(id));
        found.filter(|found| found.in_use).map(|found| found.named)
    }

    /// Whether something that is in use, other than the thing with this id, bears this name, in lower case.
    pub(crate) fn has_namesake(&self, name: &str, id: &str) -> bool {
        self.bearers.get(name).is_some_and(|bearers| bearers.iter().any(|bearer| **bearer != *id))
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

impl Miss {
    pub(crate) fn or(self, nothing: ResolveError, several: ResolveError) -> ResolveError {
        match self {
            Self::Nothing => nothing,
            Self::Several => several,
        }
    }
}
