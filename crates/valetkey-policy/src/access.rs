//! What agents could acquire, whatever they ask: for reports.
//!
//! "Could" is proved by example: the policies that concern an agent and an item are decided on for as many requests
//! as they can tell apart, by the same code that decides on real ones. The first that is allowed proves access. What
//! they can tell apart stands in them: see `trials.rs`.
//!
//! Most agents and items are alike to the policies that concern them, so answers are shared: two pairs are alike where
//! the same policies concern them, and whatever these name has the same place around them.
//!
//! Not here: what really is in an item. A policy that permits a field counts although the item may have none of that
//! label.

mod hints;
mod trials;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::EntityUid;
use valetkey_core::{
    Access, AccessQuestion, AgentId, Among, KnownItem, Name, PolicyId, ResolveError, Target, ToolId,
};

use crate::entities::{self, Action, Names, TYPES};
use crate::index::{Place, Scope};
use crate::snapshot::Snapshot;
use hints::Hints;
use trials::{Cast, World};

/// Works out accesses on one snapshot.
struct Surveyor<'a> {
    snapshot: &'a Snapshot,
    cast: Cast,
    sites: Vec<Site>,
    /// The items that a policy's scope takes, by what it says of the resource. Whole secrets are beside.
    by_scope: HashMap<Scope, Vec<usize>>,
    /// Likewise by the ids of vault and item.
    by_ids: HashMap<(Arc<str>, Arc<str>), usize>,
    hints: HashMap<usize, Option<Hints>>,
    /// By the policies that concern somebody, and the tool.
    worlds: HashMap<(Vec<usize>, Option<ToolId>), World>,
    /// Requests that may still be decided on.
    trials_left: usize,
    exact: bool,
}

/// An item as policies see it.
struct Site {
    known: KnownItem,
    /// Its vault and itself by all their names, and what they are in.
    within: HashSet<EntityUid>,
}

/// The policies that concern an agent, by what they concern.
#[derive(Default)]
struct Concerns {
    everything: Vec<usize>,
    items: HashMap<usize, Vec<usize>>,
}

impl Snapshot {
    /// Which items each question's agent could acquire something of.
    pub(crate) fn access(&self, items: &[KnownItem], questions: &[AccessQuestion]) -> Access {
        let mut surveyor = Surveyor::new(self, items);
        let items = questions.iter().map(|question| surveyor.answer(question)).collect();
        Access { items, exact: surveyor.exact }
    }

    /// The agents in `entities.json`, and those that policies name.
    pub(crate) fn agents(&self) -> Vec<AgentId> {
        let literals = self.policies.iter().flat_map(|candidate| &candidate.literals);
        let named = self.links.uids().chain(literals).filter(|uid| *uid.type_name() == TYPES.agent);
        // What is no name can be nobody's.
        let agents = named.filter_map(|uid| Name::parse(uid.id().unescaped()).ok());
        agents.map(AgentId).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The policies' ids, in order.
    pub(crate) fn ids(&self) -> Vec<PolicyId> {
        let mut ids: Vec<_> = self.annotations.values().map(|own| own.id.clone()).collect();
        ids.sort_unstable();
        ids
    }
}

impl<'a> Surveyor<'a> {
    fn new(snapshot: &'a Snapshot, items: &[KnownItem]) -> Self {
        let (mut by_scope, mut by_ids) = (HashMap::<_, Vec<_>>::new(), HashMap::new());
        let mut sites = Vec::with_capacity(items.len());
        for (place, known) in items.iter().enumerate() {
            let parents = entities::parents(&target_of(known), Names { vault: true, item: true });
            let within = snapshot.links.within(&parents);
            for uid in &within {
                by_scope.entry(Scope::Within(uid.clone())).or_default().push(place);
            }
            by_ids.insert((Arc::clone(&known.vault.id), Arc::clone(&known.item.id)), place);
            sites.push(Site { known: known.clone(), within });
        }
        Self {
            snapshot,
            cast: Cast::new(&snapshot.links),
            sites,
            by_scope,
            by_ids,
            hints: HashMap::new(),
            worlds: HashMap::new(),
            trials_left: TRIALS_MAX,
            exact: true,
        }
    }

    fn answer(&mut self, question: &AccessQuestion) -> Vec<usize> {
        let AccessQuestion { agent, tool, among } = question;
        let agent = entities::agent(agent);
        let mut found: BTreeSet<usize> = BTreeSet::new();
        for action in [Action::Acquire, Action::AcquireSeed] {
            for (policies, mut places) in self.groups(&agent, action, among) {
                places.retain(|place| !found.contains(place));
                found.extend(self.may(&agent, tool.as_ref(), action, policies, places));
            }
        }
        found.into_iter().collect()
    }

    /// Items by the policies that concern them, where one of these permits.
    fn groups(&self, agent: &EntityUid, action: Action, among: &Among) -> HashMap<Vec<usize>, Vec<usize>> {
        let concerns = self.concerns(agent, action);
        let is_permit = |number: &usize| self.snapshot.index.is_permit(*number);
        let places = match among {
            Among::All if concerns.everything.iter().any(is_permit) => (0..self.sites.len()).collect(),
            Among::All => concerns.items.keys().copied().collect(),
            Among::These(places) => places.clone(),
        };
        let mut groups: HashMap<Vec<usize>, Vec<usize>> = HashMap::new();
        for place in places {
            groups.entry(concerns.of(place)).or_default().push(place);
        }
        groups.retain(|policies, _| policies.iter().any(is_permit));
        groups
    }

    fn concerns(&self, agent: &EntityUid, action: Action) -> Concerns {
        let Snapshot { index, links, .. } = self.snapshot;
        let (actions, within) = (links.within([&action.uid()]), links.within([agent]));
        let mut concerns = Concerns::default();
        for (scope, number) in index.of_principal(&Place { uid: agent, within: &within }, &actions) {
            match scope {
                Scope::Any => concerns.everything.push(number),
                Scope::Type(name) if *name == TYPES.secret => concerns.everything.push(number),
                Scope::Type(_) => {}
                Scope::Within(uid) => {
                    let whole = self.by_scope.get(scope).into_iter().flatten().copied();
                    for place in whole.chain(self.item_of(uid)) {
                        concerns.items.entry(place).or_default().push(number);
                    }
                }
            }
        }
        concerns.everything.sort_unstable();
        concerns
    }

    /// The item of a secret that a policy names by its id.
    fn item_of(&self, uid: &EntityUid) -> Option<usize> {
        let (vault, item, _) = secret_parts(uid)?;
        self.by_ids.get(&(vault.into(), item.into())).copied()
    }

    /// Which of these, all of which the same policies concern.
    fn may(
        &mut self,
        agent: &EntityUid,
        tool: Option<&ToolId>,
        action: Action,
        policies: Vec<usize>,
        places: Vec<usize>,
    ) -> Vec<usize> {
        let Self { snapshot, cast, sites, hints, worlds, trials_left, exact, .. } = self;
        let key = (policies, tool.cloned());
        if !worlds.contains_key(&key) {
            // It costs about as much as that many trials.
            let Some(left) = trials_left.checked_sub(key.0.len()) else {
                *exact = false;
                return places;
            };
            *trials_left = left;
            for number in &key.0 {
                let candidate = snapshot.policies.get(*number);
                hints.entry(*number).or_insert_with(|| Hints::read(&candidate?.policy));
            }
            worlds.insert(key.clone(), World::new(snapshot, cast, hints, &key));
        }
        let Some(world) = worlds.get_mut(&key) else { return places };
        let (agent_kind, besides) = world.agent_kind(&snapshot.links, agent);
        let mut may = |place: &usize| {
            let Some(Site { known, within }) = sites.get(*place) else { return false };
            let item_kind = world.item_kind(*place, known, within, &besides);
            let tried = world.answer((action, agent_kind, item_kind), |world| {
                world.try_all(snapshot, agent, action, known, trials_left)
            });
            *exact &= tried.is_some();
            tried.unwrap_or(true)
        };
        places.into_iter().filter(|place| may(place)).collect()
    }
}

impl Concerns {
    /// The policies that concern one item, ascending, each once.
    fn of(&self, place: usize) -> Vec<usize> {
        let Some(own) = self.items.get(&place) else { return self.everything.clone() };
        let mut all: Vec<usize> = self.everything.iter().chain(own).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// An item without a field.
fn target_of(known: &KnownItem) -> Target {
    let KnownItem { vault, item } = known.clone();
    Target::Unresolved { vault: Some(vault), item: Some(item), error: ResolveError::FieldNotFound }
}

/// Vault, item and the rest of a secret's id. Ids of vaults and items have no `/`.
fn secret_parts(uid: &EntityUid) -> Option<(&str, &str, &str)> {
    let mut parts = uid.id().unescaped().splitn(3, '/');
    let parts = (parts.next()?, parts.next()?, parts.next()?);
    (*uid.type_name() == TYPES.secret).then_some(parts)
}

/// Some seconds of deciding.
const TRIALS_MAX: usize = 300_000;

#[cfg(test)]
mod tests;
