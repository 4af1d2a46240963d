//! Which policies can concern a request, found by their scopes rather than by visiting them all.
//!
//! Every policy stands in one bucket, named by the principal and the resource of its scope. A request
//! visits the buckets of its principal, its resource and their ancestors. What is left out is exactly
//! what Cedar would find not to apply by scope alone; what is taken in is evaluated by Cedar, scope and
//! all, so the answer is Cedar's own over the whole set.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, Effect, EntityTypeName, EntityUid, Policy, PrincipalConstraint, ResourceConstraint,
};

use valetkey_core::Named;

use crate::entities::TYPES;

/// Policies by scope.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// By principal, then by resource: most principals have no bucket, and are done with at once.
    buckets: HashMap<Scope, HashMap<Scope, Vec<usize>>>,
    /// By the policy's number: what its scope says of the action. `None` takes any.
    actions: Vec<Option<Vec<EntityUid>>>,
    /// By the policy's number: what it does where its scope applies.
    effects: Vec<Standing>,
}

/// What a policy does where its scope applies.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// Permits, if its conditions hold.
    Permit,
    /// Forbids, if its conditions hold.
    ForbidSometimes,
    /// Forbids: it has no conditions.
    ForbidAlways,
}

/// The secrets that a reference may still turn out to mean.
pub(crate) enum Extent<'a> {
    /// Any.
    All,
    /// Those of one vault.
    Vault {
        /// The vault.
        vault: &'a Named,
        /// The vault by all its names, and what it is in.
        within: HashSet<EntityUid>,
    },
    /// Those of one item.
    Item {
        /// The beginning of their ids.
        prefix: String,
        /// The item and its vault by all their names, and what they are in.
        within: HashSet<EntityUid>,
    },
}

/// What a scope says of a principal or a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Any,
    Type(EntityTypeName),
    Within(EntityUid),
}

/// One side of a request: what it is, and all it is in.
pub(crate) struct Place<'a> {
    pub(crate) uid: &'a EntityUid,
    pub(crate) within: &'a HashSet<EntityUid>,
}

impl Index {
    pub(crate) fn new<'a>(policies: impl Iterator<Item = &'a Policy>) -> Self {
        let mut index = Self::default();
        for (number, policy) in policies.enumerate() {
            let resources = index.buckets.entry(principal_scope(policy)).or_default();
            resources.entry(resource_scope(policy)).or_default().push(number);
            index.effects.push(match policy.effect() {
                Effect::Permit => Standing::Permit,
                Effect::Forbid if policy.has_non_scope_constraint() => Standing::ForbidSometimes,
                Effect::Forbid => Standing::ForbidAlways,
            });
            index.actions.push(match policy.action_constraint() {
                ActionConstraint::Any => None,
                ActionConstraint::In(uids) => Some(uids),
                ActionConstraint::Eq(uid) => Some(vec![uid]),
            });
        }
        index
    }

    /// The numbers of the policies that can concern a request, ascending. `actions` is the request's
    /// action and the groups it is in.
    pub(crate) fn candidates(
        &self,
        principal: &Place<'_>,
        actions: &HashSet<EntityUid>,
        resource: &Place<'_>,
    ) -> Vec<usize> {
        let resources = scopes(resource);
        let mut found = Vec::new();
        for buckets in scopes(principal).iter().filter_map(|scope| self.buckets.get(scope)) {
            let buckets = resources.iter().filter_map(|scope| buckets.get(scope));
            found.extend(buckets.flatten().copied().filter(|number| self.takes(*number, actions)));
        }
        found.sort_unstable();
        found
    }

    /// Whether the scope of some permit takes the principal, the action and a secret of this extent, and no forbid
    /// without conditions takes them all. Conditions may still refuse.
    pub(crate) fn may_permit(
        &self,
        principal: &Place<'_>,
        actions: &HashSet<EntityUid>,
        extent: &Extent<'_>,
    ) -> bool {
        let buckets = scopes(principal).into_iter().filter_map(|scope| self.buckets.get(&scope)).flatten();
        let mut found = false;
        for (scope, numbers) in buckets {
            for number in numbers.iter().filter(|number| self.takes(**number, actions)) {
                match self.effects.get(*number) {
                    Some(Standing::Permit) => found |= extent.meets(scope),
                    Some(Standing::ForbidAlways) if extent.lies_in(scope) => return false,
                    Some(Standing::ForbidAlways | Standing::ForbidSometimes) | None => {}
                }
            }
        }
        found
    }

    /// The policies whose scope takes a principal and an action, and what it says of the resource.
    pub(crate) fn of_principal<'a>(
        &'a self,
        principal: &Place<'_>,
        actions: &'a HashSet<EntityUid>,
    ) -> impl Iterator<Item = (&'a Scope, usize)> {
        let buckets = scopes(principal).into_iter().filter_map(|scope| self.buckets.get(&scope)).flatten();
        let all = buckets.flat_map(|(scope, numbers)| numbers.iter().map(move |number| (scope, *number)));
        all.filter(|(_, number)| self.takes(*number, actions))
    }

    /// Whether a policy permits, if it concerns a request.
    pub(crate) fn is_permit(&self, number: usize) -> bool {
        matches!(self.effects.get(number), Some(Standing::Permit))
    }

    fn takes(&self, number: usize, actions: &HashSet<EntityUid>) -> bool {
        match self.actions.get(number) {
            Some(Some(wanted)) => wanted.iter().any(|uid| actions.contains(uid)),
            Some(None) | None => true,
        }
    }
}

impl Extent<'_> {
    /// Whether a scope may take one of them.
    fn meets(&self, scope: &Scope) -> bool {
        match (self, scope) {
            (Self::All, _) | (_, Scope::Any) => true,
            (Self::Vault { .. } | Self::Item { .. }, Scope::Type(name)) => *name == TYPES.secret,
            (Self::Item { prefix, within }, Scope::Within(uid)) => {
                within.contains(uid) || is_secret_of(uid, prefix)
            }
            (Self::Vault { vault, within }, Scope::Within(uid)) => {
                let id = uid.id().unescaped();
                let is_of_vault = id.strip_prefix(&*vault.name).is_some_and(|rest| rest.starts_with('/'));
                within.contains(uid)
                    || is_secret_of(uid, &format!("{}/", vault.id))
                    // An item's id does not say whose it is, and a kind of ours that is none of these may hold it.
                    || (*uid.type_name() == TYPES.item && (is_of_vault || !id.contains('/')))
                    || ![&TYPES.secret, &TYPES.item, &TYPES.vault].contains(&uid.type_name())
            }
        }
    }

    /// Whether a scope takes all of them.
    fn lies_in(&self, scope: &Scope) -> bool {
        match (self, scope) {
            (_, Scope::Any) => true,
            (_, Scope::Type(name)) => *name == TYPES.secret,
            (Self::All, Scope::Within(_)) => false,
            (Self::Vault { within, .. } | Self::Item { within, .. }, Scope::Within(uid)) => {
                within.contains(uid)
            }
        }
    }
}

fn is_secret_of(uid: &EntityUid, prefix: &str) -> bool {
    *uid.type_name() == TYPES.secret && uid.id().unescaped().starts_with(prefix)
}

/// Every bucket name that one side of a request answers to; each once, so no policy is found twice.
fn scopes(place: &Place<'_>) -> Vec<Scope> {
    let within = std::iter::once(place.uid).chain(place.within.iter().filter(|uid| *uid != place.uid));
    let names = [Scope::Any, Scope::Type(place.uid.type_name().clone())];
    names.into_iter().chain(within.cloned().map(Scope::Within)).collect()
}

fn principal_scope(policy: &Policy) -> Scope {
    match policy.principal_constraint() {
        PrincipalConstraint::Any => Scope::Any,
        PrincipalConstraint::Is(type_name) => Scope::Type(type_name),
        PrincipalConstraint::In(uid) | PrincipalConstraint::Eq(uid) | PrincipalConstraint::IsIn(_, uid) => {
            Scope::Within(uid)
        }
    }
}

fn resource_scope(policy: &Policy) -> Scope {
    match policy.resource_constraint() {
        ResourceConstraint::Any => Scope::Any,
        ResourceConstraint::Is(type_name) => Scope::Type(type_name),
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) | ResourceConstraint::IsIn(_, uid) => {
            Scope::Within(uid)
        }
    }
}
