//! Whether a schema takes every kind of request that the broker makes.
//!
//! A schema is the policy author's, and may say more than ours: more entity types, more attributes. What
//! the broker asks must still fit, or every request would be refused in production rather than here.

use std::collections::HashMap;

use cedar_policy::{Context, Entities, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema};
use valetkey_core::{AdminResource, Claim, ResolveError, Target};

use crate::entities::{Action, Facts, Names, Resource, TYPES, uid, vault};
use crate::error::EngineError;

/// What the schema does not take; empty for one that serves.
pub(crate) fn gaps(schema: &Schema) -> Vec<String> {
    let mut gaps = Vec::new();
    let mut check = |what: String, outcome: Result<(), EngineError>| {
        if let Err(error) = outcome {
            gaps.push(format!("the schema does not take {what}: {error}"));
        }
    };
    let secret = unresolved();
    for (principal, action) in access() {
        for full in [false, true] {
            let claims: Vec<_> = Claim::new("any", "thing").filter(|_| full).into_iter().collect();
            let context = facts(full, &claims).context();
            let outcome = context.and_then(|context| take(schema, principal, action, &secret, context));
            check(format!("`{}` by `{principal}`", action.name()), outcome);
        }
    }
    for (principal, action, resource) in admin() {
        let outcome = take(schema, principal, action, &resource, Context::empty());
        check(format!("`{}` by `{principal}`", action.name()), outcome);
    }
    gaps.dedup();
    gaps
}

fn take(
    schema: &Schema,
    principal: &EntityTypeName,
    action: Action,
    resource: &Resource,
    context: Context,
) -> Result<(), EngineError> {
    let principal: EntityUid = uid(principal, "anybody");
    Entities::from_entities([resource.entity()?], Some(schema)).map_err(EngineError::of)?;
    Request::new(principal, action.uid(), resource.uid.clone(), context, Some(schema))
        .map(drop)
        .map_err(EngineError::of)
}

fn access() -> [(&'static EntityTypeName, Action); 4] {
    [
        (&TYPES.agent, Action::Acquire),
        (&TYPES.agent, Action::AcquireSeed),
        (&TYPES.agent, Action::Redeem),
        (&TYPES.tool, Action::Redeem),
    ]
}

fn admin() -> Vec<(&'static EntityTypeName, Action, Resource)> {
    vec![
        (&TYPES.person, Action::ReadAudit, Resource::admin(&AdminResource::AuditLog)),
        (
            &TYPES.person,
            Action::ReadAudit,
            Resource::vault(vault("any"), &[vault("any name")].into(), HashMap::new()),
        ),
        (&TYPES.person, Action::FindValue, Resource::admin(&AdminResource::AuditLog)),
        (&TYPES.person, Action::Operate, Resource::admin(&AdminResource::Broker)),
        (&TYPES.person, Action::ManageTokens, Resource::admin(&AdminResource::Broker)),
        (&TYPES.person, Action::Approve, Resource::lease("vkl_any", None)),
        (&TYPES.person, Action::Approve, Resource::lease("vkl_any", Some(uid(&TYPES.agent, "anybody")))),
        (&TYPES.person, Action::Revoke, Resource::lease("vkl_any", None)),
        (&TYPES.agent, Action::Revoke, Resource::lease("vkl_any", Some(uid(&TYPES.agent, "anybody")))),
    ]
}

fn unresolved() -> Resource {
    let target = Target::Unresolved { vault: None, item: None, error: ResolveError::VaultNotFound };
    Resource::secret(&target, Names { vault: true, item: true })
}

/// The least and the most that a request can say.
fn facts(full: bool, claims: &[Claim]) -> Facts<'_> {
    let entity = |type_name| RestrictedExpression::new_entity_uid(uid(type_name, "any"));
    Facts {
        tool: entity(&TYPES.tool),
        agent: entity(&TYPES.agent),
        ttl_seconds: 60,
        session: full.then_some("run"),
        person: full.then(|| uid(&TYPES.person, "any")),
        claims,
        destination: full.then_some("example.com"),
    }
}
