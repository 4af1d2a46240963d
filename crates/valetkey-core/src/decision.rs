//! What policy answers, and what it asks in return.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::Reason;
use crate::identity::GroupId;
use crate::request::Life;
use crate::target::Named;

/// What policy answers to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// At least one policy permits, none forbids, and all could be evaluated.
    Allow(Allow),
    /// Anything else.
    Deny(Deny),
}

/// An Allow and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// The policies that permit; never empty.
    pub policies: Arc<[PolicyId]>,
    /// What they ask in return; where several permit, the strictest of each.
    pub obligations: Obligations,
    /// The policy set that decided.
    pub revision: Revision,
}

/// A Deny and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deny {
    /// Why: no permit, a forbid, an evaluation error, too long a life.
    pub reason: Reason,
    /// The policies that made it so: those that forbid or fail. Empty where none permits.
    pub policies: Arc<[PolicyId]>,
    /// What the refused agent may read, from `@advice`.
    pub advice: Option<Arc<str>>,
    /// More for the reviewer: the evaluation error, `@reason`.
    pub detail: Option<Arc<str>>,
    /// The policy set that decided.
    pub revision: Revision,
}

/// The `@id` of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId(pub Arc<str>);

/// One state of the policy set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// Counts the loads of this process; later is greater.
    pub generation: u64,
    /// The beginning of the SHA-256 of everything that was loaded: equal for equal policies.
    pub digest: [u8; 8],
}

/// What an allowing policy adds. Where policies say nothing: any life the broker gives, one use, the tool redeems,
/// nothing is bound, and nobody needs to approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obligations {
    /// `@max_ttl`: how long a handle may live at most.
    pub ttl_max: Option<Duration>,
    /// `@uses`: how often a handle can be redeemed; at least 1.
    pub uses: u32,
    /// `@redeem_by`: who can redeem.
    pub redeemer: Redeemer,
    /// `@bind`: what a handle is bound to beside that.
    pub binding: Binding,
    /// `@approval`: the groups that an approver must be in, all of them; in order, each once. `None`: nobody needs to
    /// approve.
    pub approval: Option<Arc<[GroupId]>>,
}

/// Who can redeem a handle, from the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Redeemer {
    /// The tool that the lease names.
    Tool,
    /// The agent that holds the lease.
    Agent,
}

/// What a handle is bound to beside an identity, from the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binding {
    /// The key of a client certificate: the agent's own where the agent redeems, that of the first redeem where the
    /// tool does.
    Certificate,
    /// Nothing: the identity will do, however it is shown.
    Identity,
}

/// What a handle is granted: the request's wishes within the policies' obligations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long it lives.
    pub life: Duration,
    /// How long policy would have let it live, where policy says so.
    pub ttl_max: Option<Duration>,
    /// How often it can be redeemed.
    pub uses: u32,
    /// By whom.
    pub redeemer: Redeemer,
    /// And with what.
    pub binding: Binding,
}

/// Which part of the audit log a caller may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditScope {
    /// Every record.
    Whole,
    /// The records about these vaults, under the names that they had then; none of the others, and none that is
    /// about no vault.
    Vaults(Arc<[Named]>),
}

impl Default for Obligations {
    fn default() -> Self {
        Self { ttl_max: None, uses: 1, redeemer: Redeemer::Tool, binding: Binding::Identity, approval: None }
    }
}

impl Obligations {
    /// The strictest of each.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        Self {
            ttl_max: match (self.ttl_max, other.ttl_max) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            },
            uses: self.uses.min(other.uses),
            redeemer: self.redeemer.min(other.redeemer),
            binding: self.binding.min(other.binding),
            approval: match (self.approval, other.approval) {
                (Some(one), Some(two)) => {
                    Some(one.iter().chain(&*two).cloned().collect::<BTreeSet<_>>().into_iter().collect())
                }
                (one, two) => one.or(two),
            },
        }
    }

    /// The terms for a wished life; `None` where more was asked than is allowed, which is refused rather
    /// than shortened.
    #[must_use]
    pub fn terms(&self, life: Life) -> Option<Terms> {
        let life = match (life, self.ttl_max) {
            (Life::Asked(life), Some(max)) if life > max => return None,
            (Life::Usual(life), Some(max)) => life.min(max),
            (Life::Asked(life) | Life::Usual(life), _) => life,
        };
        // Whether somebody approves is no term of a handle: it decides whether there is one.
        let Self { ttl_max, uses, redeemer, binding, approval: _ } = self;
        Some(Terms { life, ttl_max: *ttl_max, uses: *uses, redeemer: *redeemer, binding: *binding })
    }
}

impl Revision {
    /// 16 hexadecimal digits.
    #[must_use]
    pub fn digest_text(self) -> String {
        data_encoding::HEXLOWER.encode(&self.digest)
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Redeemer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tool => "tool",
            Self::Agent => "agent",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_of_each_holds() {
        let with = |ttl: Option<u64>, uses, redeemer, binding| {
            let ttl_max = ttl.map(Duration::from_secs);
            Obligations { ttl_max, uses, redeemer, binding, approval: None }
        };
        let loose = with(Some(300), 5, Redeemer::Agent, Binding::Identity);
        let short = with(Some(30), 9, Redeemer::Agent, Binding::Certificate);
        let both = loose.clone().strictest(short.clone());
        assert_eq!(both, with(Some(30), 5, Redeemer::Agent, Binding::Certificate));
        assert_eq!(both, short.strictest(loose.clone()));
        let silent = loose.strictest(Obligations::default());
        assert_eq!(silent, with(Some(300), 1, Redeemer::Tool, Binding::Identity));
    }

    #[test]
    fn an_approver_must_be_in_every_group() {
        let asks = |names: &[&str]| {
            let groups = names.iter().map(|name| crate::testing::group(name)).collect();
            Obligations { approval: Some(groups), ..Obligations::default() }
        };
        let silent = Obligations::default();
        assert_eq!(asks(&["b"]).strictest(asks(&["a", "b"])), asks(&["a", "b"]));
        assert_eq!(asks(&["a"]).strictest(silent.clone()), asks(&["a"]));
        assert_eq!(silent.strictest(asks(&["a"])), asks(&["a"]));
    }

    #[test]
    fn a_life_is_refused_rather_than_shortened() {
        let minute = Duration::from_secs(60);
        let obligations = Obligations { ttl_max: Some(minute), ..Obligations::default() };
        let life = |life| obligations.terms(life).map(|terms| terms.life);
        assert_eq!(life(Life::Asked(minute)), Some(minute));
        assert_eq!(life(Life::Asked(minute * 2)), None);
        assert_eq!(life(Life::Usual(minute * 2)), Some(minute));
        assert_eq!(
            Obligations::default().terms(Life::Asked(minute * 9)).map(|terms| terms.life),
            Some(minute * 9)
        );
    }
}
