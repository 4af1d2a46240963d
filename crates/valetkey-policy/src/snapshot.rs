//! One immutable state of the policies, ready to decide.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Entities, EntityUid, Policy, PolicyId, PolicySet, Request, RestrictedExpression,
    Schema,
};
use valetkey_core::{
    AccessKind, AccessRequest, AdminRequest, AdminResource, AgentId, Gap, Identity, PersonId, ResolveError,
    Revision, Target, ToolId,
};

use crate::bundle::{Bundle, Loaded};
use crate::cache::Cache;
use crate::entities::{self, Action, Facts, Names, Resource};
use crate::error::EngineError;
use crate::index::{Extent, Index, Place};
use crate::links::Links;
use crate::obligations::Annotations;
use crate::ruling::{Permits, Refusal};

/// Everything that a decision needs. Never changes; a reload makes another.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    schema: Schema,
    pub(crate) policies: Vec<Candidate>,
    pub(crate) annotations: HashMap<PolicyId, Annotations>,
    pub(crate) index: Index,
    pub(crate) links: Links,
    authorizer: Authorizer,
    slices: Cache<Key, Slice>,
}

/// A policy, and the entities that it names itself.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) policy: Policy,
    pub(crate) literals: Vec<EntityUid>,
}

/// All that a decision depends on beside the context: equal keys have equal slices.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    principal: Identity,
    agent: AgentId,
    tool: ToolId,
    person: Option<PersonId>,
    action: Action,
    target: Arc<Target>,
}

/// What is needed of the snapshot to decide on one key.
#[derive(Debug)]
struct Slice {
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    agent: RestrictedExpression,
    tool: RestrictedExpression,
    /// One for each way to read the target's names.
    readings: Vec<Reading>,
}

/// The policies that can concern a request, and the entities that they can see.
#[derive(Debug)]
pub(crate) struct Reading {
    policies: PolicySet,
    entities: Entities,
}

impl Snapshot {
    pub(crate) fn new(bundle: Bundle, generation: u64) -> Self {
        let Bundle { schema, policies, entities, digest, text: _, warnings: _ } = bundle;
        let index = Index::new(policies.iter().map(|loaded| &loaded.policy));
        let mut annotations = HashMap::with_capacity(policies.len());
        let mut candidates = Vec::with_capacity(policies.len());
        for Loaded { policy, annotations: own } in policies {
            annotations.insert(policy.id().clone(), own);
            let literals = policy.entity_literals();
            // Without its text, which every slice would copy.
            candidates.push(Candidate { policy: policy.as_ref().clone().into(), literals });
        }
        let links = Links::new(&entities);
        Self {
            revision: Revision { generation, digest },
            schema,
            policies: candidates,
            annotations,
            index,
            links,
            authorizer: Authorizer::new(),
            slices: Cache::new(SLICES_MAX),
        }
    }

    /// Decides on a secret.
    pub(crate) fn rule(&self, request: &AccessRequest) -> Result<Permits, Refusal> {
        self.try_rule(request).unwrap_or_else(|error| Err(Refusal::unfit(&error)))
    }

    /// Whether some permit's scope takes the request, whatever its target turns out to mean once the gap is closed.
    pub(crate) fn may_allow(&self, request: &AccessRequest, gap: Gap) -> bool {
        let principal = entities::caller(&request.call.caller);
        let actions: &[_] = match request.kind {
            AccessKind::Redeem => &[Action::Redeem],
            // The field may turn out to be a seed.
            AccessKind::Acquire | AccessKind::Renew | AccessKind::Check => {
                &[Action::Acquire, Action::AcquireSeed]
            }
        };
        let place = Place { uid: &principal, within: &self.links.within([&principal]) };
        let extent = self.extent(&request.target, gap);
        actions
            .iter()
            .any(|action| self.index.may_permit(&place, &self.links.within([&action.uid()]), &extent))
    }

    /// What a target may still turn out to mean. Below the gap nothing counts: it is not known, or too old.
    fn extent<'a>(&self, target: &'a Target, gap: Gap) -> Extent<'a> {
        let names = Names { vault: true, item: true };
        match (gap, target.vault(), target.item()) {
            (Gap::Fields, Some(vault), Some(item)) => Extent::Item {
                prefix: format!("{}/{}/", vault.id, item.id),
                within: self.links.within(&entities::parents(target, names)),
            },
            (Gap::Fields | Gap::Items, Some(vault), _) => {
                let of_vault = Target::Unresolved {
                    vault: Some(vault.clone()),
                    item: None,
                    error: ResolveError::ItemNotFound,
                };
                Extent::Vault { vault, within: self.links.within(&entities::parents(&of_vault, names)) }
            }
            (Gap::Fields | Gap::Items | Gap::Vaults, _, _) => Extent::All,
        }
    }

    /// Decides on something other than a secret. These are rare: nothing is kept.
    pub(crate) fn rule_admin(&self, request: &AdminRequest) -> Result<Permits, Refusal> {
        self.try_rule_admin(request).unwrap_or_else(|error| Err(Refusal::unfit(&error)))
    }

    fn try_rule(&self, request: &AccessRequest) -> Result<Result<Permits, Refusal>, EngineError> {
        let slice = self.slice(request)?;
        let Slice { principal, action, resource, agent, tool, readings } = &*slice;
        let context = context(request, agent.clone(), tool.clone())?;
        self.judge((principal.clone(), action.clone(), resource.clone()), context, readings)
    }

    fn try_rule_admin(&self, request: &AdminRequest) -> Result<Result<Permits, Refusal>, EngineError> {
        let principal = entities::caller(&request.call.caller);
        let action = Action::of_admin(request.action);
        let ruling = self.try_rule_on(principal.clone(), action, Resource::admin(&request.resource))?;
        let groups = match &request.resource {
            AdminResource::Ask { id: _, holder: _, groups } => groups,
            AdminResource::AuditLog | AdminResource::Lease { .. } | AdminResource::Broker => {
                return Ok(ruling);
            }
        };
        let within = self.links.within([&principal]);
        let outside: Vec<_> =
            groups.iter().filter(|group| !within.contains(&entities::group(group))).collect();
        Ok(match ruling {
            Ok(permits) if !outside.is_empty() => Err(Refusal::outside(&permits, &outside)),
            ruling => ruling,
        })
    }

    pub(crate) fn try_rule_on(
        &self,
        principal: EntityUid,
        action: Action,
        resource: Resource,
    ) -> Result<Result<Permits, Refusal>, EngineError> {
        let reading = self.reading(&principal, action, &resource, &[])?;
        self.judge((principal, action.uid(), resource.uid), Context::empty(), &[reading])
    }

    /// Allows only where every reading of the names does; otherwise the first that refuses says why.
    pub(crate) fn judge(
        &self,
        (principal, action, resource): (EntityUid, EntityUid, EntityUid),
        context: Context,
        readings: &[Reading],
    ) -> Result<Result<Permits, Refusal>, EngineError> {
        let request = Request::new(principal, action, resource, context, Some(&self.schema))
            .map_err(EngineError::of)?;
        let mut permits = Permits::default();
        for Reading { policies, entities } in readings {
            let response = self.authorizer.is_authorized(&request, policies, entities);
            match Permits::read(&response, &self.annotations) {
                Ok(more) => permits = permits.and(more),
                Err(refusal) if permits.is_empty() => return Ok(Err(refusal)),
                Err(refusal) => return Ok(Err(refusal.for_ambiguity())),
            }
        }
        Ok(Ok(permits))
    }

    fn slice(&self, request: &AccessRequest) -> Result<Arc<Slice>, EngineError> {
        let AccessRequest { call, opened_by, agent, tool, target, .. } = request;
        let key = Key {
            principal: call.caller.clone(),
            agent: agent.clone(),
            tool: tool.clone(),
            person: opened_by.behalf.as_ref().map(|behalf| behalf.person.clone()),
            action: Action::of(request),
            target: Arc::clone(target),
        };
        let action = key.action;
        let seen = (entities::agent(agent), entities::tool(tool), person(request));
        self.slices.obtain(key, || self.cut(entities::caller(&call.caller), seen, action, target))
    }

    fn cut(
        &self,
        principal: EntityUid,
        (agent, tool, person): (EntityUid, EntityUid, Option<EntityUid>),
        action: Action,
        target: &Target,
    ) -> Result<Slice, EngineError> {
        let seen: Vec<_> = [&agent, &tool].into_iter().chain(&person).collect();
        let readings = Names::readings(target)
            .into_iter()
            .map(|names| self.reading(&principal, action, &Resource::secret(target, names), &seen))
            .collect::<Result<_, _>>()?;
        Ok(Slice {
            principal,
            action: action.uid(),
            resource: entities::secret(target),
            agent: RestrictedExpression::new_entity_uid(agent),
            tool: RestrictedExpression::new_entity_uid(tool),
            readings,
        })
    }

    pub(crate) fn reading(
        &self,
        principal: &EntityUid,
        action: Action,
        resource: &Resource,
        seen: &[&EntityUid],
    ) -> Result<Reading, EngineError> {
        let action = action.uid();
        let numbers = self.index.candidates(
            &Place { uid: principal, within: &self.links.within([principal]) },
            &self.links.within([&action]),
            &Place { uid: &resource.uid, within: &self.links.within(&resource.parents) },
        );
        let found: Vec<&Candidate> =
            numbers.into_iter().filter_map(|number| self.policies.get(number)).collect();
        let named = found.iter().flat_map(|candidate| &candidate.literals);
        let roots = [principal, &action].into_iter().chain(seen.iter().copied());
        let entities = self.links.reachable(roots.chain(&resource.parents).chain(named));
        // A vault can stand in `entities.json` too; what it is in there, the resource is in already.
        let others = entities.into_iter().filter(|entity| entity.uid() != resource.uid);
        let entities = others.chain([resource.entity()?]);
        let policies = found.into_iter().map(|candidate| candidate.policy.clone());
        Ok(Reading {
            policies: PolicySet::from_policies(policies).map_err(EngineError::of)?,
            entities: Entities::from_entities(entities, None).map_err(EngineError::of)?,
        })
    }
}

fn context(
    request: &AccessRequest,
    agent: RestrictedExpression,
    tool: RestrictedExpression,
) -> Result<Context, EngineError> {
    let facts = Facts {
        tool,
        agent,
        ttl_seconds: ttl_seconds(request),
        session: request.session.as_ref().map(|session| session.as_str()),
        person: person(request),
        claims: &request.opened_by.claims,
        destination: request.destination.as_ref().map(|host| host.as_str()),
    };
    facts.context()
}

/// On whose behalf the lease is, or is to be.
fn person(request: &AccessRequest) -> Option<EntityUid> {
    request.opened_by.behalf.as_ref().map(|behalf| entities::person(&behalf.person))
}

/// What the agreement tests look at.
#[cfg(test)]
impl Snapshot {
    pub(crate) fn context(&self, request: &AccessRequest) -> Result<Context, EngineError> {
        let slice = self.slice(request)?;
        context(request, slice.agent.clone(), slice.tool.clone())
    }

    /// Cedar's answers on the slice, one for each reading.
    pub(crate) fn responses(
        &self,
        request: &AccessRequest,
    ) -> Result<Vec<cedar_policy::Response>, EngineError> {
        let Slice { principal, action, resource, readings, .. } = &*self.slice(request)?;
        let (principal, action, resource) = (principal.clone(), action.clone(), resource.clone());
        let asked = Request::new(principal, action, resource, self.context(request)?, Some(&self.schema))
            .map_err(EngineError::of)?;
        let answer =
            |reading: &Reading| self.authorizer.is_authorized(&asked, &reading.policies, &reading.entities);
        Ok(readings.iter().map(answer).collect())
    }

    pub(crate) fn candidate_count(&self, request: &AccessRequest) -> Result<usize, EngineError> {
        let slice = self.slice(request)?;
        Ok(slice.readings.iter().map(|reading| reading.policies.num_of_policies()).sum())
    }
}

/// Rounded up: a handle that lives a little over a minute does not pass for a minute's.
fn ttl_seconds(request: &AccessRequest) -> i64 {
    let life = request.life.duration();
    let seconds = life.as_secs().saturating_add(u64::from(life.subsec_nanos() > 0));
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A slice takes some 13 KiB, so all of them about 100 MiB. What is forgotten is cut again when it is
/// needed, which takes a few times as long as deciding.
const SLICES_MAX: usize = 8_192;
