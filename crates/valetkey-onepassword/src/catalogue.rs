//! What exists, without values, as far as it is known: finds the one thing that a reference means.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use valetkey_core::{Facet, FieldTarget, Named, ResolveError, SecretReference, Target};

use crate::item::{FieldKind, FieldOutline, ItemOutline, ItemState, Vault};
use crate::matching;
use crate::names::Names;

/// Vaults, their items and the outlines of these, each with the moment from which it is known.
///
/// A target is put together from what was found, never from the text of the reference; so all spellings
/// of one secret give equal targets. Moments are [`valetkey_core::Clock::monotonic`]'s; a catalogue that
/// knows all there is from the start has no use for them.
#[derive(Default)]
pub(crate) struct Catalogue {
    vaults: Names,
    vaults_known: Option<Duration>,
    /// By vault id.
    shelves: HashMap<Arc<str>, Shelf>,
    /// The outlines in the order in which they came, so that the oldest can go.
    arrivals: VecDeque<Arrival>,
}

/// The items of one vault.
#[derive(Default)]
struct Shelf {
    items: Names,
    items_known: Option<Duration>,
    /// By item id.
    outlines: HashMap<Arc<str>, (Sketch, Duration)>,
}

/// What was found where an item was looked for.
enum Sketch {
    Outline(Arc<ItemOutline>),
    /// It cannot be had, whether or not a list of items has it.
    Gone(ResolveError),
}

struct Arrival {
    vault_id: Arc<str>,
    item_id: Arc<str>,
    known: Duration,
}

/// What a reference means as far as it is known, and since when what was looked at is known: `None` where
/// it is not known, or was not looked at.
pub(crate) struct Trace {
    pub(crate) target: Target,
    pub(crate) vaults_known: Option<Duration>,
    pub(crate) items_known: Option<Duration>,
    pub(crate) fields_known: Option<Duration>,
}

/// Where a reference ends without a field.
struct DeadEnd {
    vault: Option<Named>,
    item: Option<Named>,
    error: ResolveError,
}

impl Catalogue {
    /// All there is. Ids are unique; items of unknown vaults are left out.
    pub(crate) fn new(vaults: &[Vault], outlines: Vec<ItemOutline>) -> Self {
        let mut catalogue = Self::default();
        catalogue.put_vaults(vaults, Duration::ZERO);
        for shelf in catalogue.shelves.values_mut() {
            shelf.items_known = Some(Duration::ZERO);
        }
        for outline in outlines {
            if let Some(shelf) = catalogue.shelves.get_mut(&outline.vault_id) {
                shelf.put(outline.into(), Duration::ZERO);
            }
        }
        catalogue
    }

    /// Takes a new list of vaults; what is known of those that are in it no more is forgotten.
    pub(crate) fn put_vaults(&mut self, vaults: &[Vault], known: Duration) {
        self.vaults = Names::default();
        for Vault { id, name } in vaults {
            self.vaults.insert(id, name, true);
            self.shelves.entry(Arc::clone(id)).or_default();
        }
        self.vaults_known = Some(known);
        let vaults = &self.vaults;
        self.shelves.retain(|id, _| vaults.has(id));
    }

    /// Takes a new list of the items of a vault, where the vault is known; what is known of items that are
    /// in it no more is forgotten. Returns the former list, to be dropped where nobody waits.
    pub(crate) fn put_items(&mut self, vault_id: &str, items: Names, known: Duration) -> Option<Names> {
        let shelf = self.shelves.get_mut(vault_id)?;
        shelf.outlines.retain(|id, _| items.has(id));
        shelf.items_known = Some(known);
        Some(std::mem::replace(&mut shelf.items, items))
    }

    /// Takes the outline of an item, where its vault is known. Its title and state are taken where they are newer
    /// than the list's; where the list is newer and lacks the item, nothing is.
    pub(crate) fn put_outline(&mut self, outline: Arc<ItemOutline>, known: Duration) {
        let (vault_id, item_id) = (Arc::clone(&outline.vault_id), Arc::clone(&outline.id));
        let Some(shelf) = self.shelves.get_mut(&vault_id) else { return };
        if shelf.items_known.is_none_or(|listed| listed <= known) {
            shelf.put(outline, known);
        } else if shelf.items.has(&item_id) {
            shelf.outlines.insert(Arc::clone(&item_id), (Sketch::Outline(outline), known));
        } else {
            return;
        }
        self.arrive(Arrival { vault_id, item_id, known });
    }

    /// Takes the news that an item cannot be had, and why.
    pub(crate) fn put_gone(&mut self, vault_id: &str, item_id: &str, error: &ResolveError, known: Duration) {
        let Some((vault_id, _)) = self.shelves.get_key_value(vault_id) else { return };
        let arrival = Arrival { vault_id: Arc::clone(vault_id), item_id: item_id.into(), known };
        let Some(shelf) = self.shelves.get_mut(&arrival.vault_id) else { return };
        match error {
            ResolveError::ItemNotActive => shelf.items.retire(item_id),
            _ => shelf.items.remove(item_id),
        }
        let sketch = Sketch::Gone(error.clone());
        shelf.outlines.insert(Arc::clone(&arrival.item_id), (sketch, known));
        self.arrive(arrival);
    }

    /// How many items are known, apart from those of one vault.
    pub(crate) fn items_beside(&self, vault_id: &str) -> usize {
        let others = self.shelves.iter().filter(|(id, _)| ***id != *vault_id);
        others.map(|(_, shelf)| shelf.items.len()).sum()
    }

    /// Whether there ever was a list of vaults.
    pub(crate) fn knows_vaults(&self) -> bool {
        self.vaults_known.is_some()
    }

    /// The vaults.
    pub(crate) fn vaults(&self) -> &Names {
        &self.vaults
    }

    /// Every vault with the items of it that are in use, and since when these are known.
    pub(crate) fn stock(
        &self,
    ) -> impl Iterator<Item = (Named, Option<Duration>, impl Iterator<Item = Named>)> {
        self.vaults.in_use().filter_map(|vault| {
            let shelf = self.shelves.get(&vault.id)?;
            Some((vault, shelf.items_known, shelf.items.in_use()))
        })
    }

    /// Since when the list of vaults is known.
    pub(crate) fn vaults_known(&self) -> Option<Duration> {
        self.vaults_known
    }

    /// What a reference means.
    pub(crate) fn locate(&self, reference: &SecretReference) -> Target {
        self.trace(reference).target
    }

    /// What a reference means, and since when that is known.
    pub(crate) fn trace(&self, reference: &SecretReference) -> Trace {
        let mut trace = Trace {
            target: Target::Unresolved { vault: None, item: None, error: ResolveError::VaultNotFound },
            vaults_known: self.vaults_known,
            items_known: None,
            fields_known: None,
        };
        trace.target = match self.find(reference, &mut trace) {
            Ok(target) => Target::Field(target),
            Err(DeadEnd { vault, item, error }) => Target::Unresolved { vault, item, error },
        };
        trace
    }

    /// A vault and an item of it as they are known, by ids alone.
    pub(crate) fn named(&self, vault_id: &str, item_id: &str) -> Result<(Named, Named), ResolveError> {
        let vault = self.vaults.by_id(vault_id).ok_or(ResolveError::VaultNotFound)?;
        let shelf = self.shelves.get(vault_id).ok_or(ResolveError::VaultNotFound)?;
        let item = shelf.items.by_id(item_id).ok_or(ResolveError::ItemNotFound)?;
        match item.in_use {
            true => Ok((vault.named, item.named)),
            false => Err(ResolveError::ItemNotActive),
        }
    }

    /// The field of a target, by ids alone.
    pub(crate) fn field(&self, target: &FieldTarget) -> Result<&FieldOutline, ResolveError> {
        self.named(&target.vault.id, &target.item.id)?;
        let shelf = self.shelves.get(&target.vault.id).ok_or(ResolveError::VaultNotFound)?;
        match shelf.outlines.get(&target.item.id) {
            Some((Sketch::Outline(outline), _)) => {
                outline.field(&target.field_id).ok_or(ResolveError::FieldNotFound)
            }
            Some((Sketch::Gone(error), _)) => Err(error.clone()),
            None => Err(ResolveError::ItemNotFound),
        }
    }

    fn find(&self, reference: &SecretReference, trace: &mut Trace) -> Result<FieldTarget, DeadEnd> {
        let vault = self.vaults.find(reference.vault()).map_err(|miss| DeadEnd {
            vault: None,
            item: None,
            error: miss.or(ResolveError::VaultNotFound, ResolveError::TooManyVaults),
        })?;
        let vault = vault.named;
        let Some(shelf) = self.shelves.get(&vault.id) else {
            return Err(DeadEnd { vault: Some(vault), item: None, error: ResolveError::ItemNotFound });
        };
        trace.items_known = shelf.items_known;
        let item = match shelf.items.find(reference.item()) {
            Ok(item) => item,
            Err(miss) => {
                let error = miss.or(ResolveError::ItemNotFound, ResolveError::TooManyItems);
                return Err(DeadEnd { vault: Some(vault), item: None, error });
            }
        };
        let dead_end = |error| DeadEnd { vault: Some(vault.clone()), item: Some(item.named.clone()), error };
        if !item.in_use {
            return Err(dead_end(ResolveError::ItemNotActive));
        }
        let Some((sketch, known)) = shelf.outlines.get(&item.named.id) else {
            return Err(dead_end(ResolveError::FieldNotFound));
        };
        trace.fields_known = Some(*known);
        let field = match sketch {
            Sketch::Gone(error) => Err(error.clone()),
            Sketch::Outline(outline) => select(&vault, &item.named, outline, reference),
        };
        field.map_err(dead_end)
    }

    /// Notes an outline, and lets the oldest go.
    fn arrive(&mut self, arrival: Arrival) {
        self.arrivals.push_back(arrival);
        while self.arrivals.len() > OUTLINES_MAX {
            let Some(Arrival { vault_id, item_id, known }) = self.arrivals.pop_front() else { return };
            let Some(shelf) = self.shelves.get_mut(&vault_id) else { continue };
            // One that came again since then stays.
            if shelf.outlines.get(&item_id).is_some_and(|(_, newest)| *newest <= known) {
                shelf.outlines.remove(&item_id);
            }
        }
    }
}

impl Shelf {
    fn put(&mut self, outline: Arc<ItemOutline>, known: Duration) {
        self.items.insert(&outline.id, &outline.title, outline.state == ItemState::Active);
        self.outlines.insert(Arc::clone(&outline.id), (Sketch::Outline(outline), known));
    }
}

fn select(
    vault: &Named,
    item: &Named,
    outline: &ItemOutline,
    reference: &SecretReference,
) -> Result<FieldTarget, ResolveError> {
    let field = matching::select(outline, reference.section(), reference.field())?;
    let facet = matching::facet(field.kind, reference.attribute())?;
    Ok(aim(vault, item, outline, field, facet))
}

/// The target of a facet of a field.
pub(crate) fn aim(
    vault: &Named,
    item: &Named,
    outline: &ItemOutline,
    field: &FieldOutline,
    facet: Facet,
) -> FieldTarget {
    let label = if field.label.is_empty() { &field.id } else { &field.label };
    FieldTarget {
        vault: vault.clone(),
        item: item.clone(),
        field_id: Arc::clone(&field.id),
        field: label.to_lowercase().into(),
        section: outline.section_label(field).to_lowercase().into(),
        facet,
    }
}

/// Whether a field of this kind has this facet.
pub(crate) fn has_facet(kind: FieldKind, facet: Facet) -> bool {
    match facet {
        Facet::Value => kind != FieldKind::OneTimePassword,
        Facet::Otp | Facet::Seed => kind == FieldKind::OneTimePassword,
        Facet::OpensshKey => kind == FieldKind::PrivateKey,
    }
}

/// More items than a broker's leases live in; each outline has at most a thousand fields.
const OUTLINES_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
