//! The engine: one snapshot in force at a time, swapped as a whole.

use std::sync::{Arc, PoisonError, RwLock};

use valetkey_core::{
    Access, AccessQuestion, AccessRequest, AdminRequest, AgentId, AuditScope, Decision, Gap, Identity,
    KnownItem, Named, PolicyEngine, PolicyId, Revision,
};

use crate::bundle::Bundle;
use crate::ruling;
use crate::snapshot::Snapshot;

/// Decides by the policies of a [`Bundle`].
#[derive(Debug)]
pub struct Engine {
    /// Held to read or to replace the `Arc`, never while deciding or building.
    snapshot: RwLock<Arc<Snapshot>>,
}

/// Policies that are no longer in force. Freeing thousands of them takes a while: drop this when nobody
/// waits any more.
#[derive(Debug)]
#[must_use = "dropping it at once makes others wait"]
pub struct Retired(#[expect(dead_code, reason = "it is held to be dropped")] Arc<Snapshot>);

impl Engine {
    /// An engine with its first policies: generation 1.
    #[must_use]
    pub fn new(bundle: Bundle) -> Self {
        Self { snapshot: RwLock::new(Arc::new(Snapshot::new(bundle, 1))) }
    }

    /// Puts other policies in force. Requests under way finish on those they began with; the next
    /// decision uses the new ones. Returns those before them, too.
    pub fn install(&self, bundle: Bundle) -> (Revision, Retired) {
        let mut next = Snapshot::new(bundle, 0);
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        next.revision.generation = snapshot.revision.generation + 1;
        let revision = next.revision;
        let last = std::mem::replace(&mut *snapshot, Arc::new(next));
        (revision, Retired(last))
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PolicyEngine for Engine {
    fn decide(&self, request: &AccessRequest) -> Decision {
        let snapshot = self.snapshot();
        ruling::decision(snapshot.rule(request), snapshot.revision)
    }

    fn may_allow(&self, request: &AccessRequest, gap: Gap) -> bool {
        self.snapshot().may_allow(request, gap)
    }

    fn decide_admin(&self, request: &AdminRequest) -> Decision {
        let snapshot = self.snapshot();
        ruling::decision(snapshot.rule_admin(request), snapshot.revision)
    }

    fn decide_audit(&self, caller: &Identity, vaults: &[Named]) -> (Decision, AuditScope) {
        let snapshot = self.snapshot();
        let (ruling, scope) = snapshot.rule_audit(caller, vaults);
        (ruling::decision(ruling, snapshot.revision), scope)
    }

    fn access(&self, items: &[KnownItem], questions: &[AccessQuestion]) -> Access {
        self.snapshot().access(items, questions)
    }

    fn agents(&self) -> Vec<AgentId> {
        self.snapshot().agents()
    }

    fn policies(&self) -> Vec<PolicyId> {
        self.snapshot().ids()
    }

    fn revision(&self) -> Revision {
        self.snapshot().revision
    }
}
