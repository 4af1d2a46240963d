//! Cedar's answer in the words of the domain.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Decision as CedarDecision, EvaluationError, PolicyId as CedarId, Response,
};
use valetkey_core::{Allow, Decision, Deny, GroupId, Obligations, PolicyId, Reason, Revision, scrub};

use crate::error::EngineError;
use crate::obligations::Annotations;

/// The policies that permit, and what they ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Permits {
    policies: BTreeSet<PolicyId>,
    /// The strictest of each; `None` while there is no permit.
    obligations: Option<Obligations>,
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    reason: Reason,
    policies: BTreeSet<PolicyId>,
    advice: Option<String>,
    detail: Option<String>,
}

impl Permits {
    /// Reads Cedar's answer. Any evaluation error refuses: Cedar itself skips a policy that fails, a
    /// forbid included.
    pub(crate) fn read(
        response: &Response,
        annotations: &HashMap<CedarId, Annotations>,
    ) -> Result<Self, Refusal> {
        let determining = response.diagnostics().reason().filter_map(|id| annotations.get(id));
        let mut determining: Vec<&Annotations> = determining.collect();
        determining.sort_by(|one, two| one.id.cmp(&two.id));
        let errors: Vec<&AuthorizationError> = response.diagnostics().errors().collect();
        match response.decision() {
            CedarDecision::Allow if errors.is_empty() && !determining.is_empty() => Ok(Self {
                policies: determining.iter().map(|own| own.id.clone()).collect(),
                obligations: determining
                    .iter()
                    .map(|own| own.obligations.clone())
                    .reduce(Obligations::strictest),
            }),
            CedarDecision::Allow => Err(Refusal::of_errors(&errors, annotations)),
            CedarDecision::Deny if errors.is_empty() => Err(Refusal::of_forbids(&determining)),
            CedarDecision::Deny => {
                Err(Refusal::of_errors(&errors, annotations).and(Refusal::of_forbids(&determining)))
            }
        }
    }

    /// What both permit: every policy that did, on the strictest terms.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.policies.extend(other.policies);
        self.obligations = match (self.obligations, other.obligations) {
            (Some(one), Some(two)) => Some(one.strictest(two)),
            (one, two) => one.or(two),
        };
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

impl Refusal {
    /// The request is none that policy could permit.
    pub(crate) fn unfit(error: &EngineError) -> Self {
        let detail = format!("the schema does not take the request: {error}");
        Self { reason: Reason::PolicyNoPermit, policies: BTreeSet::new(), advice: None, detail: Some(detail) }
    }

    /// What was permitted, but to whom is not in these groups.
    pub(crate) fn outside(permits: &Permits, groups: &[&GroupId]) -> Self {
        let names: Vec<_> = groups.iter().map(|group| format!("`{group}`")).collect();
        let names = names.join(" and ");
        Self {
            reason: Reason::ApproverGroup,
            policies: permits.policies.clone(),
            advice: Some(format!("somebody in {names} has to decide")),
            detail: Some(format!("not in {names}")),
        }
    }

    /// What was permitted, until a name that could mean something else was left out.
    pub(crate) fn for_ambiguity(self) -> Self {
        let detail = "permitted only by a name that more than one vault or item could have; policies can \
                      permit it by its id";
        Self { detail: joined([Some(detail.to_owned()), self.detail]), ..self }
    }

    fn of_forbids(forbids: &[&Annotations]) -> Self {
        let texts = |text: fn(&Annotations) -> &Option<Arc<str>>| {
            joined(forbids.iter().map(|own| text(own).as_deref().map(ToOwned::to_owned)))
        };
        Self {
            reason: if forbids.is_empty() { Reason::PolicyNoPermit } else { Reason::PolicyForbid },
            policies: forbids.iter().map(|own| own.id.clone()).collect(),
            advice: texts(|own| &own.advice),
            detail: texts(|own| &own.reason),
        }
    }

    fn of_errors(errors: &[&AuthorizationError], annotations: &HashMap<CedarId, Annotations>) -> Self {
        let mut failed: Vec<(PolicyId, String)> = errors
            .iter()
            .map(|AuthorizationError::PolicyEvaluationError(error)| {
                let id = annotations.get(error.policy_id()).map(|own| own.id.clone());
                let id = id.unwrap_or_else(|| PolicyId(error.policy_id().to_string().into()));
                let text = format!("policy `{id}` could not be evaluated: {}", describe(error.inner()));
                (id, text)
            })
            .collect();
        failed.sort();
        Self {
            reason: Reason::PolicyError,
            detail: joined(failed.iter().map(|(_, text)| Some(text.clone()))),
            policies: failed.into_iter().map(|(id, _)| id).collect(),
            advice: None,
        }
    }

    /// This one's reason, with the policies and texts of both.
    fn and(mut self, other: Self) -> Self {
        self.policies.extend(other.policies);
        Self {
            reason: self.reason,
            policies: self.policies,
            advice: joined([self.advice, other.advice]),
            detail: joined([self.detail, other.detail]),
        }
    }
}

/// Puts the revision to a ruling.
pub(crate) fn decision(ruling: Result<Permits, Refusal>, revision: Revision) -> Decision {
    let shared = |policies: BTreeSet<PolicyId>| policies.into_iter().collect();
    let bounded = |text: String| scrub(&text, TEXT_MAX).into();
    match ruling {
        Ok(Permits { policies, obligations }) => Decision::Allow(Allow {
            policies: shared(policies),
            obligations: obligations.unwrap_or_default(),
            revision,
        }),
        Err(Refusal { reason, policies, advice, detail }) => Decision::Deny(Deny {
            reason,
            policies: shared(policies),
            advice: advice.map(bounded),
            detail: detail.map(bounded),
            revision,
        }),
    }
}

/// Different texts, in order, each once.
fn joined(texts: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let mut kept: Vec<String> = Vec::new();
    for text in texts.into_iter().flatten() {
        if !kept.contains(&text) {
            kept.push(text);
        }
    }
    (!kept.is_empty()).then(|| kept.join("; "))
}

/// An evaluation error without the values that went into it.
fn describe(error: &EvaluationError) -> String {
    match error {
        EvaluationError::IntegerOverflow(_) => "integer overflow".to_owned(),
        EvaluationError::FailedExtensionFunctionExecution(_) => {
            "an extension function refused its argument".to_owned()
        }
        EvaluationError::NonValue(_) => "a value is missing".to_owned(),
        // These name entities, attributes and types only.
        error => error.to_string(),
    }
}

const TEXT_MAX: usize = 1_024;
