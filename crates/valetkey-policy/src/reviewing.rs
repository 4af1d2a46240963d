//! How much of the audit log somebody may read: the whole of it, or the records about some vaults.

use cedar_policy::EntityUid;
use valetkey_core::{AdminResource, AuditScope, Identity, Named};

use crate::entities::{self, Action, Resource};
use crate::error::EngineError;
use crate::ruling::{Permits, Refusal};
use crate::snapshot::Snapshot;

impl Snapshot {
    /// Decides on the log as a whole, and where that is refused on each vault by itself. Where no vault is
    /// allowed either, the refusal is that of the log.
    pub(crate) fn rule_audit(
        &self,
        caller: &Identity,
        vaults: &[Named],
    ) -> (Result<Permits, Refusal>, AuditScope) {
        let whole = Resource::admin(&AdminResource::AuditLog);
        let whole = self.try_rule_on(entities::caller(caller), Action::ReadAudit, whole);
        let refusal = match whole.unwrap_or_else(|error| Err(Refusal::unfit(&error))) {
            Ok(permits) => return (Ok(permits), AuditScope::Whole),
            Err(refusal) => refusal,
        };
        let mut permits = Permits::default();
        let mut allowed = Vec::new();
        for vault in vaults {
            // What the schema does not take is not allowed; the refusal of the log says as much.
            if let Ok(Ok(more)) = self.rule_vault(caller, vault) {
                permits = permits.and(more);
                allowed.push(vault.clone());
            }
        }
        let ruling = if allowed.is_empty() { Err(refusal) } else { Ok(permits) };
        (ruling, AuditScope::Vaults(allowed.into()))
    }

    /// A vault goes by its id and by its name, and is in the other of the two. All ways to ask must allow: so what
    /// a policy forbids by either is forbidden, also with `==`; `in` permits by either. A name that could stand
    /// for another vault is read as in [`entities::Names::readings`]: it forbids, and permits nothing.
    fn rule_vault(&self, caller: &Identity, vault: &Named) -> Result<Result<Permits, Refusal>, EngineError> {
        let (id, name) = (entities::vault(&vault.id), entities::vault(&vault.name));
        let within = self.links.within([&id, &name]);
        let attributes = self.links.attributes([&id, &name]);
        let way = |uid: &EntityUid| Resource::vault(uid.clone(), &within, attributes.clone());
        let mut ways = vec![way(&id), way(&name)];
        if !vault.name_is_unique {
            let (within, attributes) = (self.links.within([&id]), self.links.attributes([&id]));
            ways.push(Resource::vault(id, &within, attributes));
        }
        let mut permits = Permits::default();
        for way in ways {
            match self.try_rule_on(entities::caller(caller), Action::ReadAudit, way)? {
                Ok(more) => permits = permits.and(more),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        Ok(Ok(permits))
    }
}
