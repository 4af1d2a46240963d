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

use crate::entities::TYPES;

/// Policies by scope.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// By principal, then by resource: most principals have no bucket, and are done with at once.
    buckets: HashMap<Scope, HashMap<Scope, Vec<usize>>>,
    /// By the policy's number: what its scope says of the action. `None` takes any.
    actions: Vec<Option<Vec<EntityUid>>>,
    /// By the policy's number: whether it permits.
    permits: Vec<bool>,
}

/// What a scope says of a principal or a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
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
            index.permits.push(policy.effect() == Effect::Permit);
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

    /// Whether the scope of some permit takes the principal, one of the actions, and a secret in `within`;
    /// any secret at all where that is `None`. Conditions may still refuse.
    pub(crate) fn may_permit(
        &self,
        principal: &Place<'_>,
        actions: &HashSet<EntityUid>,
        within: Option<&HashSet<EntityUid>>,
    ) -> bool {
        let reaches = |scope: &Scope| match (scope, within) {
            (Scope::Any, _) | (_, None) => true,
            (Scope::Type(name), Some(_)) => *name == TYPES.secret,
            // A secret's id does not say by which names its item is known; take it for one of these.
            (Scope::Within(uid), Some(within)) => within.contains(uid) || *uid.type_name() == TYPES.secret,
        };
        let buckets = scopes(principal).into_iter().filter_map(|scope| self.buckets.get(&scope)).flatten();
        let mut numbers = buckets.filter(|(scope, _)| reaches(scope)).flat_map(|(_, numbers)| numbers);
        numbers.any(|number| self.permits.get(*number) == Some(&true) && self.takes(*number, actions))
    }

    fn takes(&self, number: usize, actions: &HashSet<EntityUid>) -> bool {
        match self.actions.get(number) {
            Some(Some(wanted)) => wanted.iter().any(|uid| actions.contains(uid)),
            Some(None) | None => true,
        }
    }
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
