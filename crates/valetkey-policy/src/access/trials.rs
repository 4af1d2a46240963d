//! The requests that some policies can tell apart, and a decision on each.
//!
//! Every part of a request takes each value that the policies compare with, one that they do not know, and none where
//! it may be absent. That finds whatever policies permit by equality, membership and presence; of patterns and sums, it
//! finds what holds at, or right beside, the texts and numbers that stand there.

use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{EntityTypeName, EntityUid, RestrictedExpression};
use valetkey_core::{Claim, Destination, Facet, FieldTarget, KnownItem, Session, Target, ToolId};

use super::hints::Hints;
use super::secret_parts;
use crate::entities::{self, Action, Facts, Names, Resource, TYPES};
use crate::links::Links;
use crate::snapshot::{Reading, Snapshot};

/// All that some policies can tell apart.
pub(super) struct World {
    tools: Vec<EntityUid>,
    persons: Vec<Option<EntityUid>>,
    lives: Vec<i64>,
    sessions: Vec<Option<Session>>,
    destinations: Vec<Option<Destination>>,
    claims: Vec<Vec<Claim>>,
    fields: Vec<String>,
    sections: Vec<String>,
    facets: Vec<Facet>,
    /// Secrets that the policies name whole.
    secrets: Vec<EntityUid>,
    /// Everything that the policies can compare with, agents and items apart.
    relevant: HashSet<EntityUid>,
    /// Whether the conditions of all could be seen.
    is_known: bool,
    /// Agents and items by what is seen of them, numbered.
    kinds: HashMap<Vec<EntityUid>, usize>,
    kinds_of_items: HashMap<usize, usize>,
    answers: HashMap<(Action, usize, ItemKind), Option<bool>>,
}

/// What is seen of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ItemKind {
    number: usize,
    /// Whether the names of vault and item stand for them alone.
    unique: (bool, bool),
}

/// Tools and persons by what they are in: those who are in the same, and say no more of themselves, are alike.
pub(super) struct Cast {
    by_group: HashMap<EntityUid, Vec<EntityUid>>,
    with_attributes: Vec<EntityUid>,
}

impl Cast {
    pub(super) fn new(links: &Links) -> Self {
        let mut cast = Self { by_group: HashMap::new(), with_attributes: Vec::new() };
        let mut known: HashSet<Vec<EntityUid>> = HashSet::new();
        for uid in links.uids().filter(|uid| [&TYPES.tool, &TYPES.person].contains(&uid.type_name())) {
            if links.has_attributes(uid) {
                cast.with_attributes.push(uid.clone());
                continue;
            }
            let mut groups: Vec<_> = links.within([uid]).into_iter().filter(|group| group != uid).collect();
            groups.sort_unstable();
            if known.insert(groups.clone()) {
                for group in groups {
                    cast.by_group.entry(group).or_default().push(uid.clone());
                }
            }
        }
        cast
    }

    /// One of each kind that the policies can tell apart, and one that they do not know.
    fn kinds(
        &self,
        links: &Links,
        relevant: &HashSet<EntityUid>,
        type_name: &EntityTypeName,
    ) -> Vec<EntityUid> {
        let named = relevant.iter().chain(&self.with_attributes);
        let mut chosen: BTreeSet<EntityUid> = named.cloned().collect();
        let mut seen: HashSet<Vec<EntityUid>> = HashSet::new();
        for uid in relevant.iter().filter_map(|group| self.by_group.get(group)).flatten() {
            let within = links.within([uid]);
            let mut groups: Vec<_> = within.into_iter().filter(|group| relevant.contains(group)).collect();
            groups.sort_unstable();
            if seen.insert(groups) {
                chosen.insert(uid.clone());
            }
        }
        chosen.insert(entities::uid(type_name, STRANGER));
        chosen.retain(|uid| uid.type_name() == type_name);
        chosen.into_iter().collect()
    }
}

impl World {
    /// The world of these policies, whose hints are there, for any tool or this one.
    pub(super) fn new(
        snapshot: &Snapshot,
        cast: &Cast,
        hints: &HashMap<usize, Option<Hints>>,
        (policies, tool): &(Vec<usize>, Option<ToolId>),
    ) -> Self {
        let (mut known, mut is_known) = (Hints::default(), true);
        for number in policies {
            match hints.get(number) {
                Some(Some(hints)) => known.add(hints),
                Some(None) | None => is_known = false,
            }
        }
        let found = policies.iter().filter_map(|number| snapshot.policies.get(*number));
        let literals: Vec<&EntityUid> = found.flat_map(|candidate| &candidate.literals).collect();
        let mut relevant: HashSet<EntityUid> = literals.iter().map(|uid| (*uid).clone()).collect();
        for entity in snapshot.links.reachable(literals.iter().copied()) {
            relevant.insert(entity.uid());
            entity.attrs().filter_map(|(_, value)| value.ok()).for_each(|value| known.add_value(&value));
        }
        let tools = match tool {
            Some(tool) => vec![entities::tool(tool)],
            None => cast.kinds(&snapshot.links, &relevant, &TYPES.tool),
        };
        let persons = match known.looks_at("on_behalf_of") {
            true => cast.kinds(&snapshot.links, &relevant, &TYPES.person),
            false => Vec::new(),
        };
        // What tools and persons lead to can be compared with as well.
        for entity in snapshot.links.reachable(tools.iter().chain(&persons)) {
            relevant.insert(entity.uid());
        }
        let secrets = literals.into_iter().filter(|uid| *uid.type_name() == TYPES.secret).cloned().collect();
        Self {
            tools,
            persons: std::iter::once(None).chain(persons.into_iter().map(Some)).collect(),
            lives: lives(&known),
            sessions: either(&known, "id", |text| Session::parse(text).ok()),
            destinations: either(&known, "destination", |text| {
                Destination::parse(text).ok().filter(|host| host.as_str() == text)
            }),
            claims: claims(&known),
            fields: labels(&known, "field", STRANGER),
            sections: labels(&known, "section", ""),
            facets: facets(&known),
            secrets,
            relevant,
            is_known,
            kinds: HashMap::new(),
            kinds_of_items: HashMap::new(),
            answers: HashMap::new(),
        }
    }

    /// A number for what these policies can see of an agent; and what the agent leads to by itself.
    pub(super) fn agent_kind(&mut self, links: &Links, agent: &EntityUid) -> (usize, HashSet<EntityUid>) {
        let within = links.within([agent]);
        if within.iter().any(|uid| links.has_attributes(uid)) {
            let reached = links.reachable([agent]);
            return (self.kind(vec![agent.clone()]), reached.iter().map(cedar_policy::Entity::uid).collect());
        }
        let seen = self.seen_of(&within, &HashSet::new());
        (self.kind(seen), HashSet::new())
    }

    /// A number for what these policies, and the agent that leads to `besides`, can see of an item.
    pub(super) fn item_kind(
        &mut self,
        place: usize,
        item: &KnownItem,
        within: &HashSet<EntityUid>,
        besides: &HashSet<EntityUid>,
    ) -> ItemKind {
        let unique = (item.vault.name_is_unique, item.item.name_is_unique);
        if let Some(kind) = self.kinds_of_items.get(&place).filter(|_| besides.is_empty()) {
            return ItemKind { number: *kind, unique };
        }
        let seen = match self.secrets_of(item).next() {
            Some(_) => {
                vec![entities::secret(&Target::Field(field_of(item, STRANGER, STRANGER, "", Facet::Value)))]
            }
            None => self.seen_of(within, besides),
        };
        let kind = self.kind(seen);
        if besides.is_empty() {
            self.kinds_of_items.insert(place, kind);
        }
        ItemKind { number: kind, unique }
    }

    /// The answer for a kind of agent and item; made where it is not there.
    pub(super) fn answer(
        &mut self,
        key: (Action, usize, ItemKind),
        make: impl FnOnce(&Self) -> Option<bool>,
    ) -> Option<bool> {
        if let Some(answer) = self.answers.get(&key) {
            return *answer;
        }
        let answer = make(self);
        self.answers.insert(key, answer);
        answer
    }

    fn kind(&mut self, seen: Vec<EntityUid>) -> usize {
        let next = self.kinds.len();
        *self.kinds.entry(seen).or_insert(next)
    }

    fn seen_of(&self, within: &HashSet<EntityUid>, besides: &HashSet<EntityUid>) -> Vec<EntityUid> {
        let is_seen = |uid: &&EntityUid| self.relevant.contains(*uid) || besides.contains(*uid);
        let mut seen: Vec<_> = within.iter().filter(is_seen).cloned().collect();
        seen.sort_unstable();
        seen
    }

    /// Ids and facets of this item's fields that the policies name whole.
    fn secrets_of<'a>(&'a self, item: &'a KnownItem) -> impl Iterator<Item = (String, Facet)> + 'a {
        self.secrets.iter().filter_map(|uid| {
            let (vault, own, rest) = secret_parts(uid)?;
            (vault == &*item.vault.id && own == &*item.item.id).then(|| field_id(rest))
        })
    }

    /// Whether one of all requests is allowed. `None` where they are too many to try.
    pub(super) fn try_all(
        &self,
        snapshot: &Snapshot,
        agent: &EntityUid,
        action: Action,
        item: &KnownItem,
        trials_left: &mut usize,
    ) -> Option<bool> {
        let contexts = self.contexts();
        let targets = self.targets(action, item);
        let needed = contexts.checked_mul(targets.len())?;
        if !self.is_known || needed > TRIALS_MAX {
            return None;
        }
        for target in targets {
            if *trials_left < contexts {
                return None;
            }
            let (asked, allowed) = self.try_on(snapshot, agent, action, &Target::Field(target));
            *trials_left -= asked;
            if allowed {
                return Some(true);
            }
        }
        Some(false)
    }

    fn targets(&self, action: Action, item: &KnownItem) -> Vec<FieldTarget> {
        let fits = |facet: Facet| (facet == Facet::Seed) == (action == Action::AcquireSeed);
        let unnamed = self.facets.iter().map(|facet| (STRANGER.to_owned(), *facet));
        let mut targets = Vec::new();
        for (id, facet) in unnamed.chain(self.secrets_of(item)).filter(|(_, facet)| fits(*facet)) {
            for field in &self.fields {
                let sections = self.sections.iter();
                targets.extend(sections.map(|section| field_of(item, &id, field, section, facet)));
            }
        }
        targets
    }

    /// How many contexts there are.
    fn contexts(&self) -> usize {
        let Self { tools, persons, lives, sessions, destinations, claims, .. } = self;
        let counts =
            [tools.len(), persons.len(), lives.len(), sessions.len(), destinations.len(), claims.len()];
        counts.into_iter().fold(1, usize::saturating_mul)
    }

    /// Tries every context on one secret; how many, and whether one is allowed.
    fn try_on(
        &self,
        snapshot: &Snapshot,
        agent: &EntityUid,
        action: Action,
        target: &Target,
    ) -> (usize, bool) {
        let seen: Vec<_> =
            std::iter::once(agent).chain(&self.tools).chain(self.persons.iter().flatten()).collect();
        let readings: Result<Vec<Reading>, _> = Names::readings(target)
            .into_iter()
            .map(|names| snapshot.reading(agent, action, &Resource::secret(target, names), &seen))
            .collect();
        // What the schema does not take is denied.
        let Ok(readings) = readings else { return (1, false) };
        let mut asked = 0;
        for facts in self.facts(agent) {
            asked += 1;
            let uids = (agent.clone(), action.uid(), entities::secret(target));
            let ruling = facts.context().and_then(|context| snapshot.judge(uids, context, &readings));
            if matches!(ruling, Ok(Ok(_))) {
                return (asked, true);
            }
        }
        (asked, false)
    }

    /// Every combination.
    fn facts<'a>(&'a self, agent: &'a EntityUid) -> impl Iterator<Item = Facts<'a>> + 'a {
        let entity = |uid: &EntityUid| RestrictedExpression::new_entity_uid(uid.clone());
        let rest = self.lives.iter().flat_map(move |life| {
            let inner = self.sessions.iter().flat_map(move |session| {
                let inner = self.destinations.iter().flat_map(move |destination| {
                    self.claims.iter().map(move |claims| (session, destination, claims))
                });
                self.persons.iter().flat_map(move |person| inner.clone().map(move |rest| (person, rest)))
            });
            inner.map(move |rest| (*life, rest))
        });
        self.tools.iter().flat_map(move |tool| {
            rest.clone().map(move |(ttl_seconds, (person, (session, destination, claims)))| Facts {
                tool: entity(tool),
                agent: entity(agent),
                ttl_seconds,
                session: session.as_ref().map(Session::as_str),
                person: person.clone(),
                claims,
                destination: destination.as_ref().map(Destination::as_str),
            })
        })
    }
}

/// A usual life, and those at and beside every number.
fn lives(hints: &Hints) -> Vec<i64> {
    let mut lives = BTreeSet::from([60]);
    if hints.looks_at("ttl") {
        let numbers = hints.numbers.iter();
        lives
            .extend(numbers.flat_map(|number| [number.saturating_sub(1), *number, number.saturating_add(1)]));
    }
    lives.into_iter().filter(|life| (1..=LIFE_MAX).contains(life)).collect()
}

/// None, and where an attribute is looked at each text that can stand there, one of which the policies do not know.
fn either<T>(hints: &Hints, attribute: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<Option<T>> {
    let mut found = vec![None];
    if hints.looks_at(attribute) {
        let texts = hints.texts.iter().map(String::as_str).chain([STRANGER]);
        found.extend(texts.filter_map(parse).map(Some));
    }
    found
}

/// None, each by itself, and all together.
fn claims(hints: &Hints) -> Vec<Vec<Claim>> {
    let mut found = vec![Vec::new()];
    if hints.looks_at("claims") {
        let texts = hints.texts.iter().map(String::as_str).chain(["stranger=stranger"]);
        let all: Vec<_> = texts
            .filter_map(|text| text.split_once('='))
            .filter_map(|(name, value)| Claim::new(name, value))
            .collect();
        found.extend(all.iter().map(|claim| vec![claim.clone()]));
        found.push(all);
    }
    found
}

/// Labels are in lower case.
fn labels(hints: &Hints, attribute: &str, usual: &str) -> Vec<String> {
    let mut found = BTreeSet::from([usual.to_owned()]);
    if hints.looks_at(attribute) {
        let texts = hints.texts.iter().filter(|text| !text.is_empty() && text.to_lowercase() == **text);
        found.extend(texts.cloned().chain([STRANGER.to_owned()]));
    }
    found.into_iter().collect()
}

fn facets(hints: &Hints) -> Vec<Facet> {
    match hints.looks_at("kind") {
        true => vec![Facet::Value, Facet::Otp, Facet::OpensshKey, Facet::Seed],
        false => vec![Facet::Value, Facet::Seed],
    }
}

fn field_of(item: &KnownItem, id: &str, field: &str, section: &str, facet: Facet) -> FieldTarget {
    let KnownItem { vault, item } = item.clone();
    FieldTarget { vault, item, field_id: id.into(), field: field.into(), section: section.into(), facet }
}

/// The end of a secret's id, taken apart: the way back of `entities::secret`.
fn field_id(rest: &str) -> (String, Facet) {
    let (id, facet) = match rest.rsplit_once('?') {
        Some((id, "otp")) => (id, Facet::Otp),
        Some((id, "seed")) => (id, Facet::Seed),
        Some((id, "openssh")) => (id, Facet::OpensshKey),
        Some(_) | None => (rest, Facet::Value),
    };
    (id.replace("%3f", "?").replace("%25", "%"), facet)
}

/// What no policy names, unless its author is out to be misunderstood.
const STRANGER: &str = "stranger.invalid";
/// A day: no handle lives that long.
const LIFE_MAX: i64 = 24 * 60 * 60;
/// Requests for one kind of agent and item.
const TRIALS_MAX: usize = 20_000;
