//! What exists, without values: finds the one thing that a reference means.

use std::collections::HashMap;
use std::sync::Arc;

use valetkey_core::{FieldTarget, Named, ResolveError, SecretReference, Target};

use crate::item::{FieldOutline, ItemOutline, ItemState, Vault, is_id, is_sayable};
use crate::matching;

/// Vaults and the outlines of their items, indexed by id and by name.
///
/// A target is put together from what was found, never from the text of the reference; so all spellings
/// of one secret give equal targets.
pub(crate) struct Catalogue {
    vaults: Vec<VaultEntry>,
    index: Index,
}

struct VaultEntry {
    named: Named,
    items: Vec<ItemEntry>,
    index: Index,
}

struct ItemEntry {
    named: Named,
    outline: ItemOutline,
}

/// Places by id and by name. An id beats a name that equals it.
struct Index {
    by_id: HashMap<Arc<str>, usize>,
    /// By the name in lower case; only ASCII names that are in use.
    by_name: HashMap<Arc<str>, Vec<usize>>,
}

/// Why a part of a reference leads to no one thing.
enum Miss {
    Nothing,
    Several,
}

/// Where a reference ends without a field.
struct DeadEnd<'a> {
    vault: Option<&'a Named>,
    item: Option<&'a Named>,
    error: ResolveError,
}

impl Catalogue {
    /// Indexes what exists. Ids are unique; items of unknown vaults are left out.
    pub(crate) fn new(vaults: &[Vault], outlines: Vec<ItemOutline>) -> Self {
        let mut by_vault: HashMap<Arc<str>, Vec<ItemOutline>> = HashMap::new();
        for outline in outlines {
            by_vault.entry(Arc::clone(&outline.vault_id)).or_default().push(outline);
        }
        let (names, index) = name_all(vaults.iter().map(|vault| (&vault.id, &*vault.name, true)));
        let vaults = names.into_iter().map(|named| {
            let outlines = by_vault.remove(&named.id).unwrap_or_default();
            VaultEntry::new(named, outlines)
        });
        Self { vaults: vaults.collect(), index }
    }

    /// What a reference means.
    pub(crate) fn locate(&self, reference: &SecretReference) -> Target {
        match self.find(reference) {
            Ok(target) => Target::Field(target),
            Err(DeadEnd { vault, item, error }) => {
                Target::Unresolved { vault: vault.cloned(), item: item.cloned(), error }
            }
        }
    }

    /// The field of a target, by ids alone.
    pub(crate) fn field(&self, target: &FieldTarget) -> Result<&FieldOutline, ResolveError> {
        let vault = self.index.by_id.get(&target.vault.id).and_then(|place| self.vaults.get(*place));
        let vault = vault.ok_or(ResolveError::VaultNotFound)?;
        let item = vault.index.by_id.get(&target.item.id).and_then(|place| vault.items.get(*place));
        let ItemEntry { outline, named: _ } = item.ok_or(ResolveError::ItemNotFound)?;
        if outline.state == ItemState::Inactive {
            return Err(ResolveError::ItemNotActive);
        }
        outline.fields.iter().find(|field| field.id == target.field_id).ok_or(ResolveError::FieldNotFound)
    }

    fn find(&self, reference: &SecretReference) -> Result<FieldTarget, DeadEnd<'_>> {
        let vault = self.index.find(&self.vaults, reference.vault()).map_err(|miss| DeadEnd {
            vault: None,
            item: None,
            error: miss.or(ResolveError::VaultNotFound, ResolveError::TooManyVaults),
        })?;
        let item = vault.index.find(&vault.items, reference.item()).map_err(|miss| DeadEnd {
            vault: Some(&vault.named),
            item: None,
            error: miss.or(ResolveError::ItemNotFound, ResolveError::TooManyItems),
        })?;
        item.target(vault, reference).map_err(|error| DeadEnd {
            vault: Some(&vault.named),
            item: Some(&item.named),
            error,
        })
    }
}

impl VaultEntry {
    fn new(named: Named, outlines: Vec<ItemOutline>) -> Self {
        let entries = outlines.iter().map(|item| (&item.id, &*item.title, item.state == ItemState::Active));
        let (names, index) = name_all(entries);
        let items = outlines.into_iter().zip(names).map(|(outline, named)| ItemEntry { named, outline });
        Self { named, items: items.collect(), index }
    }
}

impl ItemEntry {
    fn target(&self, vault: &VaultEntry, reference: &SecretReference) -> Result<FieldTarget, ResolveError> {
        if self.outline.state == ItemState::Inactive {
            return Err(ResolveError::ItemNotActive);
        }
        let field = matching::select(&self.outline, reference.section(), reference.field())?;
        let label = if field.label.is_empty() { &field.id } else { &field.label };
        Ok(FieldTarget {
            vault: vault.named.clone(),
            item: self.named.clone(),
            field_id: Arc::clone(&field.id),
            field: label.to_lowercase().into(),
            section: self.outline.section_label(field).to_lowercase().into(),
            facet: matching::facet(field.kind, reference.attribute())?,
        })
    }
}

impl Index {
    fn find<'a, T>(&self, entries: &'a [T], text: &str) -> Result<&'a T, Miss> {
        let place = match self.by_id.get(text) {
            Some(place) => *place,
            None => match self.by_name.get(text.to_ascii_lowercase().as_str()).map(Vec::as_slice) {
                Some([place]) => *place,
                Some([_, _, ..]) => return Err(Miss::Several),
                Some([]) | None => return Err(Miss::Nothing),
            },
        };
        entries.get(place).ok_or(Miss::Nothing)
    }
}

impl Miss {
    fn or(self, nothing: ResolveError, several: ResolveError) -> ResolveError {
        match self {
            Self::Nothing => nothing,
            Self::Several => several,
        }
    }
}

/// Names and indexes things of one kind, given as id, name and whether they are in use.
fn name_all<'a>(entries: impl Iterator<Item = (&'a Arc<str>, &'a str, bool)> + Clone) -> (Vec<Named>, Index) {
    let mut index = Index { by_id: HashMap::new(), by_name: HashMap::new() };
    let mut bearers: HashMap<Arc<str>, usize> = HashMap::new();
    for (place, (id, name, in_use)) in entries.clone().enumerate() {
        index.by_id.insert(Arc::clone(id), place);
        if !in_use {
            continue;
        }
        let lower: Arc<str> = name.to_lowercase().into();
        *bearers.entry(Arc::clone(&lower)).or_default() += 1;
        // Some foreign letters, like the Kelvin sign, have an ASCII letter as their lower case. They count
        // as the same name where policies name it, but no reference may reach them so.
        if name.is_ascii() {
            index.by_name.entry(lower).or_default().push(place);
        }
    }
    let named = entries.map(|(id, name, in_use)| {
        let lower: Arc<str> = name.to_lowercase().into();
        let is_alone = bearers.get(&lower) == Some(&1);
        let name_is_unique = in_use && is_alone && is_sayable(name) && !is_id(&lower);
        Named { id: Arc::clone(id), name: lower, name_is_unique }
    });
    (named.collect(), index)
}

#[cfg(test)]
mod tests;
