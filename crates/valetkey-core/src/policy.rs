//! The port to policy.

use crate::decision::{AuditScope, Decision, PolicyId, Revision};
use crate::identity::{AgentId, Identity};
use crate::inventory::{Access, AccessQuestion, KnownItem};
use crate::request::{AccessRequest, AdminRequest};
use crate::resolver::Gap;
use crate::target::Named;

/// Decides. Pure computation on one immutable snapshot of the policies: no I/O, no clock, no secrets.
///
/// An evaluation error of any policy is a [`Decision::Deny`].
pub trait PolicyEngine: Send + Sync {
    /// Decides on a secret. The purpose and the spelling of the reference have no influence.
    fn decide(&self, request: &AccessRequest) -> Decision;

    /// Whether some policy may allow the request, whatever its target will turn out to mean once the gap is
    /// closed; what the target says below the gap is old, and does not count. `false` only where
    /// [`PolicyEngine::decide`] would deny every such meaning: then the source is not asked.
    fn may_allow(&self, request: &AccessRequest, gap: Gap) -> bool;

    /// Decides on something other than a secret.
    fn decide_admin(&self, request: &AdminRequest) -> Decision;

    /// Decides how much of the audit log a caller may read: the whole of it, or else what is about those of
    /// `vaults` that policy allows one by one. All on one snapshot. With a Deny the scope is empty.
    fn decide_audit(&self, caller: &Identity, vaults: &[Named]) -> (Decision, AuditScope);

    /// Which of `items` each agent could acquire something of, whatever it asks: some field, in some session, for
    /// some destination, on somebody's behalf. All on one snapshot. Bounded, and may take seconds: call it where it
    /// may block.
    fn access(&self, items: &[KnownItem], questions: &[AccessQuestion]) -> Access;

    /// The agents that policies and their entities name, in order.
    fn agents(&self) -> Vec<AgentId>;

    /// The policies, in the order of their ids.
    fn policies(&self) -> Vec<PolicyId>;

    /// The snapshot that the next decision will use.
    fn revision(&self) -> Revision;
}
