//! The one place that spells `Agent::"…"`: what a request is in Cedar's words.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{Context, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use valetkey_core::{
    AccessKind, AccessRequest, AdminAction, AdminResource, AgentId, Claim, Facet, GroupId, Identity, Named,
    PersonId, Target, ToolId,
};

use crate::error::EngineError;

/// The actions of the schema that the broker asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Acquire,
    AcquireSeed,
    Redeem,
    ReadAudit,
    FindValue,
    Revoke,
    Operate,
    ManageTokens,
    Approve,
}

/// A resource, and the entity that stands for it beside those of `entities.json`.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) uid: EntityUid,
    pub(crate) parents: HashSet<EntityUid>,
    attributes: HashMap<String, RestrictedExpression>,
}

/// Which names of a secret stand for it. Ids always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) vault: bool,
    pub(crate) item: bool,
}

/// Names of entity types, parsed once.
pub(crate) struct Types {
    pub(crate) action: EntityTypeName,
    pub(crate) agent: EntityTypeName,
    pub(crate) audit_log: EntityTypeName,
    pub(crate) broker: EntityTypeName,
    pub(crate) group: EntityTypeName,
    pub(crate) item: EntityTypeName,
    pub(crate) lease: EntityTypeName,
    pub(crate) person: EntityTypeName,
    pub(crate) secret: EntityTypeName,
    pub(crate) team: EntityTypeName,
    pub(crate) tool: EntityTypeName,
    pub(crate) toolset: EntityTypeName,
    pub(crate) vault: EntityTypeName,
}

/// Parsing a name costs more than a decision should.
pub(crate) static TYPES: LazyLock<Types> = LazyLock::new(|| Types {
    action: type_name("Action"),
    agent: type_name("Agent"),
    audit_log: type_name("AuditLog"),
    broker: type_name("Broker"),
    group: type_name("Group"),
    item: type_name("Item"),
    lease: type_name("Lease"),
    person: type_name("Person"),
    secret: type_name("Secret"),
    team: type_name("Team"),
    tool: type_name("Tool"),
    toolset: type_name("Toolset"),
    vault: type_name("Vault"),
});

impl Action {
    pub(crate) const ACCESS: [Self; 3] = [Self::Acquire, Self::AcquireSeed, Self::Redeem];

    /// What policy is asked about a request.
    pub(crate) fn of(request: &AccessRequest) -> Self {
        let seed = request.target.field().is_some_and(|field| field.facet == Facet::Seed);
        match request.kind {
            AccessKind::Redeem => Self::Redeem,
            AccessKind::Acquire | AccessKind::Renew | AccessKind::Check if seed => Self::AcquireSeed,
            AccessKind::Acquire | AccessKind::Renew | AccessKind::Check => Self::Acquire,
        }
    }

    pub(crate) fn of_admin(action: AdminAction) -> Self {
        match action {
            AdminAction::ReadAudit => Self::ReadAudit,
            AdminAction::FindValue => Self::FindValue,
            AdminAction::Revoke => Self::Revoke,
            AdminAction::Operate => Self::Operate,
            AdminAction::CreateToken | AdminAction::ListTokens | AdminAction::RevokeToken => {
                Self::ManageTokens
            }
            AdminAction::ListApprovals | AdminAction::Approve | AdminAction::Reject => Self::Approve,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::AcquireSeed => "acquireSeed",
            Self::Redeem => "redeem",
            Self::ReadAudit => "readAudit",
            Self::FindValue => "findValue",
            Self::Revoke => "revoke",
            Self::Operate => "operate",
            Self::ManageTokens => "manageTokens",
            Self::Approve => "approve",
        }
    }

    pub(crate) fn uid(self) -> EntityUid {
        uid(&TYPES.action, self.name())
    }
}

impl Names {
    /// The ways to read a target's names, all of which must allow. The first reads every name as standing
    /// for the target, so that a name forbids what it seems to forbid; the others leave out the names
    /// that could stand for something else, so that they permit nothing.
    pub(crate) fn readings(target: &Target) -> Vec<Self> {
        let unique = |named: Option<&Named>| named.is_none_or(|named| named.name_is_unique);
        let mut readings = vec![Self { vault: true, item: true }];
        if !unique(target.item()) {
            readings.push(Self { vault: true, item: false });
        }
        if !unique(target.vault()) {
            // An item's name in policies begins with its vault's.
            readings.push(Self { vault: false, item: false });
        }
        readings
    }
}

impl Resource {
    /// What a target is to policy. How it was spelled plays no part.
    pub(crate) fn secret(target: &Target, names: Names) -> Self {
        let (field, section, kind) = match target {
            Target::Field(field) => (&*field.field, &*field.section, field.facet.as_str()),
            Target::Unresolved { .. } | Target::Unknown { .. } => ("", "", "unresolved"),
        };
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let attributes = [("field", text(field)), ("section", text(section)), ("kind", text(kind))];
        Self {
            uid: secret(target),
            parents: parents(target, names),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    pub(crate) fn admin(resource: &AdminResource) -> Self {
        match resource {
            AdminResource::AuditLog => Self::plain(uid(&TYPES.audit_log, "audit-log")),
            AdminResource::Broker => Self::plain(uid(&TYPES.broker, "broker")),
            AdminResource::Lease { id, holder } | AdminResource::Ask { id, holder, groups: _ } => {
                Self::lease(&id.to_string(), holder.as_ref().map(agent))
            }
        }
    }

    /// A vault whose records are to be read, as `uid` names it: in everything in `within` but itself.
    pub(crate) fn vault(
        uid: EntityUid,
        within: &HashSet<EntityUid>,
        attributes: HashMap<String, RestrictedExpression>,
    ) -> Self {
        let parents = within.iter().filter(|other| **other != uid).cloned().collect();
        Self { uid, parents, attributes }
    }

    pub(crate) fn lease(id: &str, holder: Option<EntityUid>) -> Self {
        let holder = holder.map(|holder| ("holder".to_owned(), RestrictedExpression::new_entity_uid(holder)));
        Self { attributes: holder.into_iter().collect(), ..Self::plain(uid(&TYPES.lease, id)) }
    }

    /// The entity for Cedar's store.
    pub(crate) fn entity(&self) -> Result<Entity, EngineError> {
        let Self { uid, parents, attributes } = self;
        Entity::new(uid.clone(), attributes.clone(), parents.clone()).map_err(EngineError::of)
    }

    fn plain(uid: EntityUid) -> Self {
        Self { uid, parents: HashSet::new(), attributes: HashMap::new() }
    }
}

/// The facts of one access that conditions can ask about. The purpose is not among them: a model can be
/// talked into any reason.
pub(crate) struct Facts<'a> {
    pub(crate) tool: RestrictedExpression,
    pub(crate) agent: RestrictedExpression,
    pub(crate) ttl_seconds: i64,
    pub(crate) session: Option<&'a str>,
    /// The person on whose behalf.
    pub(crate) person: Option<EntityUid>,
    pub(crate) claims: &'a [Claim],
    pub(crate) destination: Option<&'a str>,
}

impl Facts<'_> {
    pub(crate) fn context(self) -> Result<Context, EngineError> {
        let Self { tool, agent, ttl_seconds, session, person, claims, destination } = self;
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let claims = (!claims.is_empty())
            .then(|| RestrictedExpression::new_set(claims.iter().map(|claim| text(claim.as_str()))));
        let session = [
            session.map(|id| ("id", text(id))),
            person.map(|person| ("on_behalf_of", RestrictedExpression::new_entity_uid(person))),
            claims.map(|claims| ("claims", claims)),
        ];
        let session = session.into_iter().flatten().map(|(name, value)| (name.to_owned(), value));
        let session = RestrictedExpression::new_record(session).map_err(EngineError::of)?;
        let pairs = [
            Some(("tool", tool)),
            Some(("agent", agent)),
            Some(("ttl", RestrictedExpression::new_long(ttl_seconds))),
            Some(("session", session)),
            destination.map(|host| ("destination", text(host))),
        ];
        Context::from_pairs(pairs.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)))
            .map_err(EngineError::of)
    }
}

pub(crate) fn caller(identity: &Identity) -> EntityUid {
    match identity {
        Identity::Agent(id) => agent(id),
        Identity::Tool(id) => tool(id),
        Identity::Person(id) => person(id),
    }
}

pub(crate) fn agent(id: &AgentId) -> EntityUid {
    uid(&TYPES.agent, id.0.as_str())
}

pub(crate) fn tool(id: &ToolId) -> EntityUid {
    uid(&TYPES.tool, id.0.as_str())
}

pub(crate) fn person(id: &PersonId) -> EntityUid {
    uid(&TYPES.person, id.0.as_str())
}

pub(crate) fn group(id: &GroupId) -> EntityUid {
    uid(&TYPES.group, id.0.as_str())
}

/// A vault, by its id or by its name.
pub(crate) fn vault(id: &str) -> EntityUid {
    uid(&TYPES.vault, id)
}

pub(crate) fn secret(target: &Target) -> EntityUid {
    uid(&TYPES.secret, &secret_id(target))
}

pub(crate) fn uid(type_name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(type_name.clone(), EntityId::new(id))
}

/// The vaults and items that a secret is in: each by its id, and by its name where that is to be read.
pub(crate) fn parents(target: &Target, names: Names) -> HashSet<EntityUid> {
    let mut parents = HashSet::new();
    if let Some(vault) = target.vault() {
        parents.insert(uid(&TYPES.vault, &vault.id));
        if names.vault {
            parents.insert(uid(&TYPES.vault, &vault.name));
        }
        if let Some(item) = target.item() {
            parents.insert(uid(&TYPES.item, &item.id));
            if names.item {
                parents.insert(uid(&TYPES.item, &format!("{}/{}", vault.name, item.name)));
            }
        }
    }
    parents
}

/// `<vault id>/<item id>/<field id>`, with `?otp`, `?seed` or `?openssh` where not the plain value is
/// meant, and `?` in place of what is not known.
fn secret_id(target: &Target) -> String {
    let id = |named: Option<&Named>| named.map_or_else(|| "?".to_owned(), |named| named.id.to_string());
    let (vault, item) = (id(target.vault()), id(target.item()));
    let Some(field) = target.field() else {
        return format!("{vault}/{item}/?");
    };
    let facet = match field.facet {
        Facet::Value => "",
        Facet::Otp => "?otp",
        Facet::Seed => "?seed",
        Facet::OpensshKey => "?openssh",
    };
    // A field's id may hold anything; without this, one with a `?` could pass for another's facet.
    let field_id = field.field_id.replace('%', "%25").replace('?', "%3f");
    format!("{vault}/{item}/{field_id}{facet}")
}

#[expect(clippy::expect_used, reason = "called with the literals above only, each of which is an identifier")]
fn type_name(name: &str) -> EntityTypeName {
    EntityTypeName::from_str(name).expect("an identifier")
}
