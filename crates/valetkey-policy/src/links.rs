//! The entities of `entities.json` and the schema's actions, and what leads from one to another.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Entities, Entity, EntityUid, EvalResult, RestrictedExpression};

/// Every entity with the entities that it leads to, worked out once per snapshot.
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<EntityUid, Node>);

#[derive(Debug)]
struct Node {
    entity: Entity,
    ancestors: Vec<EntityUid>,
    /// What its attributes and tags name.
    named: Vec<EntityUid>,
}

impl Links {
    pub(crate) fn new(entities: &Entities) -> Self {
        let node = |entity: &Entity| {
            let uid = entity.uid();
            let ancestors =
                entities.ancestors(&uid).map(|found| found.cloned().collect()).unwrap_or_default();
            (uid, Node { entity: entity.clone(), ancestors, named: named_by(entity) })
        };
        Self(entities.iter().map(node).collect())
    }

    /// All that these are in, and these.
    pub(crate) fn within<'a>(&'a self, uids: impl IntoIterator<Item = &'a EntityUid>) -> HashSet<EntityUid> {
        let mut found = HashSet::new();
        for uid in uids {
            found.extend(self.0.get(uid).into_iter().flat_map(|node| &node.ancestors).cloned());
            found.insert(uid.clone());
        }
        found
    }

    /// Every entity that is known.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &EntityUid> {
        self.0.keys()
    }

    /// Whether an entity says more of itself than what it is in.
    pub(crate) fn has_attributes(&self, uid: &EntityUid) -> bool {
        self.0
            .get(uid)
            .is_some_and(|node| node.entity.attrs().next().is_some() || node.entity.tags().next().is_some())
    }

    /// The attributes of these, the first's before the others'.
    pub(crate) fn attributes<'a>(
        &self,
        uids: impl IntoIterator<Item = &'a EntityUid>,
    ) -> HashMap<String, RestrictedExpression> {
        let mut found = HashMap::new();
        for node in uids.into_iter().filter_map(|uid| self.0.get(uid)) {
            let (_, attributes, _) = node.entity.clone().into_inner();
            attributes.into_iter().for_each(|(name, value)| _ = found.entry(name).or_insert(value));
        }
        found
    }

    /// Every entity that a policy can reach from these: by `in`, by attributes, by tags, at any depth.
    pub(crate) fn reachable<'a>(&'a self, roots: impl IntoIterator<Item = &'a EntityUid>) -> Vec<Entity> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        let mut waiting: Vec<&EntityUid> = roots.into_iter().collect();
        while let Some(uid) = waiting.pop() {
            if !seen.insert(uid) {
                continue;
            }
            // What `entities.json` does not know has no parents and no attributes, as Cedar has it too.
            if let Some(Node { entity, ancestors, named }) = self.0.get(uid) {
                found.push(entity.clone());
                waiting.extend(ancestors.iter().chain(named));
            }
        }
        found
    }
}

/// The entities that an entity's attributes and tags name.
pub(crate) fn named_by(entity: &Entity) -> Vec<EntityUid> {
    let mut found = Vec::new();
    for (_, value) in entity.attrs().chain(entity.tags()) {
        // Only partial evaluation knows attributes without a value, and it is compiled out.
        if let Ok(value) = value {
            collect(&value, &mut found);
        }
    }
    found
}

fn collect(value: &EvalResult, found: &mut Vec<EntityUid>) {
    match value {
        EvalResult::EntityUid(uid) => found.push(uid.clone()),
        EvalResult::Set(set) => set.iter().for_each(|member| collect(member, found)),
        EvalResult::Record(record) => record.iter().for_each(|(_, member)| collect(member, found)),
        EvalResult::Bool(_) | EvalResult::Long(_) | EvalResult::String(_) | EvalResult::ExtensionValue(_) => {
        }
    }
}
