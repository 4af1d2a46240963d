//! What is known of a source's vaults, and what may be asked to know more.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use valetkey_core::{
    Gap, Inventory, KnownItem, Located, Named, ResolveError, ResolveFailure, SecretReference, Target,
};

use super::selection::Selection;
use crate::catalogue::{Catalogue, Trace};
use crate::item::{ItemOutline, ItemState, Vault};
use crate::names::Names;
use crate::upstream::ItemSummary;

/// The directory of one source. Only vaults that its configuration names are in it.
pub(super) struct SourceDirectory {
    selection: Selection,
    /// How old what is known may be.
    age_max: Duration,
    /// How old it may be where it lacks a name that is asked for.
    refresh_interval: Duration,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    catalogue: Catalogue,
    /// Until then nothing is looked for again: the budget is small.
    patience: Duration,
}

/// Why there is something to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was never known, or that was too long ago.
    Unknown,
    /// A name was not there a while ago.
    Missing,
}

impl SourceDirectory {
    pub(super) fn new(selection: Selection, age_max: Duration, refresh_interval: Duration) -> Self {
        Self { selection, age_max, refresh_interval, known: RwLock::default() }
    }

    /// What a reference means, and what could be asked.
    pub(super) fn locate(&self, reference: &SecretReference, now: Duration) -> Located {
        let (trace, gap) = self.look(reference, now);
        Located { target: trace.target, gap: gap.map(|(gap, _)| gap) }
    }

    /// What could be asked about a reference, and why.
    pub(super) fn gap(&self, reference: &SecretReference, now: Duration) -> (Target, Option<(Gap, Cause)>) {
        let (trace, gap) = self.look(reference, now);
        (trace.target, gap)
    }

    /// Whether a vault with this id is served.
    pub(super) fn serves(&self, vault_id: &str) -> bool {
        self.read().catalogue.vaults().has(vault_id)
    }

    /// Whether another vault than the one with this id bears the name; `None` where that is not known.
    pub(super) fn bears(&self, name: &str, besides: &str) -> Option<bool> {
        let known = self.read();
        match known.catalogue.knows_vaults() {
            true => Some(known.catalogue.vaults().has_namesake(name, besides)),
            false => (!self.selection.may_mean(name)).then_some(false),
        }
    }

    /// Whether the source's vaults were ever listed.
    pub(super) fn knows_vaults(&self) -> bool {
        self.read().catalogue.knows_vaults()
    }

    /// A vault and an item of it, by their ids.
    pub(super) fn named(&self, vault_id: &str, item_id: &str) -> Result<(Named, Named), ResolveError> {
        self.read().catalogue.named(vault_id, item_id)
    }

    /// Takes the vaults that the source has.
    pub(super) fn put_vaults(&self, mut vaults: Vec<Vault>, known: Duration) -> Result<(), ResolveFailure> {
        vaults.retain(|vault| self.selection.has(vault));
        if vaults.len() > VAULTS_MAX {
            return Err(over(format!("the source serves more than {VAULTS_MAX} vaults")));
        }
        self.write().catalogue.put_vaults(&vaults, known);
        Ok(())
    }

    /// Takes the items that a vault has.
    pub(super) fn put_items(
        &self,
        vault_id: &str,
        items: &[ItemSummary],
        known: Duration,
    ) -> Result<(), ResolveFailure> {
        if items.len() > ITEMS_MAX {
            return Err(over(format!("the vault `{vault_id}` has more than {ITEMS_MAX} items")));
        }
        if items.len() + self.read().catalogue.items_beside(vault_id) > ITEMS_IN_ALL_MAX {
            return Err(over(format!("the source serves more than {ITEMS_IN_ALL_MAX} items")));
        }
        // Indexed before anybody has to wait for it, and the former index goes when nobody does.
        let mut names = Names::default();
        for ItemSummary { id, title, state } in items {
            names.insert(id, title, *state == ItemState::Active);
        }
        let former = self.write().catalogue.put_items(vault_id, names, known);
        drop(former);
        Ok(())
    }

    /// Takes the outline of an item.
    pub(super) fn put_outline(&self, outline: Arc<ItemOutline>, known: Duration) {
        self.write().catalogue.put_outline(outline, known);
    }

    /// Takes the news that an item cannot be had.
    pub(super) fn put_gone(&self, vault_id: &str, item_id: &str, error: &ResolveError, known: Duration) {
        self.write().catalogue.put_gone(vault_id, item_id, error, known);
    }

    /// Looks for nothing again for a while.
    pub(super) fn be_patient(&self, now: Duration) {
        self.write().patience = now.saturating_add(self.refresh_interval);
    }

    /// All items that are known, and what is not, or not freshly.
    pub(super) fn inventory(&self, now: Duration) -> Inventory {
        let known = self.read();
        let is_fresh =
            |since: Option<Duration>| since.is_some_and(|since| now.saturating_sub(since) <= self.age_max);
        let mut inventory = Inventory::default();
        let (mut vaults, mut unlisted) = (0_usize, 0_usize);
        for (vault, items_known, items) in known.catalogue.stock() {
            vaults += 1;
            unlisted += usize::from(!is_fresh(items_known));
            inventory.items.extend(items.map(|item| KnownItem { vault: vault.clone(), item }));
        }
        let age = format!("in the last {} min", self.age_max.as_secs().div_ceil(60));
        if !is_fresh(known.catalogue.vaults_known()) {
            inventory.gaps.push(format!("its vaults were not listed {age}"));
        } else if unlisted > 0 {
            inventory
                .gaps
                .push(format!("the items of {unlisted} of its {vaults} vaults were not listed {age}"));
        }
        inventory
    }

    fn look(&self, reference: &SecretReference, now: Duration) -> (Trace, Option<(Gap, Cause)>) {
        let known = self.read();
        let trace = known.catalogue.trace(reference);
        let gap = self.gap_of(&known, reference, &trace, now);
        (trace, gap)
    }

    /// The first level on the way to the field that is not known, or not freshly enough.
    fn gap_of(
        &self,
        known: &Known,
        reference: &SecretReference,
        trace: &Trace,
        now: Duration,
    ) -> Option<(Gap, Cause)> {
        let check = |gap, since: Option<Duration>, is_missing: bool| {
            let Some(age) = since.map(|since| now.saturating_sub(since)).filter(|age| *age <= self.age_max)
            else {
                return Some((gap, Cause::Unknown));
            };
            let is_due = is_missing && age > self.refresh_interval && now >= known.patience;
            is_due.then_some((gap, Cause::Missing))
        };
        let Trace { target, vaults_known, items_known, fields_known } = trace;
        let word = reference.vault();
        let is_dead_end = target.error().is_some();
        if target.vault().is_none() {
            let is_missing = self.selection.lacks(word, known.catalogue.vaults());
            let gap = check(Gap::Vaults, *vaults_known, is_missing);
            return gap.filter(|_| self.selection.may_mean(word));
        }
        let gap = check(Gap::Vaults, *vaults_known, false);
        let is_missing = target.item().is_none() || target.error() == Some(&ResolveError::ItemNotActive);
        let gap = gap.or_else(|| check(Gap::Items, *items_known, is_missing));
        if gap.is_some() || target.item().is_none() || self.is_inactive(known, target) {
            return gap;
        }
        check(Gap::Fields, *fields_known, is_dead_end)
    }

    /// Whether the list of items says that the item is archived or deleted: then it has no fields for us.
    fn is_inactive(&self, known: &Known, target: &Target) -> bool {
        let ids = target.vault().zip(target.item());
        ids.is_some_and(|(vault, item)| {
            known.catalogue.named(&vault.id, &item.id).err() == Some(ResolveError::ItemNotActive)
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn over(story: String) -> ResolveFailure {
    ResolveFailure { error: ResolveError::Unavailable, detail: Some(story.into()) }
}

const VAULTS_MAX: usize = 1_000;
const ITEMS_MAX: usize = 10_000;
const ITEMS_IN_ALL_MAX: usize = 100_000;
