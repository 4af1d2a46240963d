//! One file of policies: parsed, each policy with its place, its annotations and its spelling checked.

use std::str::FromStr;

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicyId, PolicySet, ResourceConstraint, Schema};

use crate::entities::{Action, TYPES};
use crate::fault::{Fault, Source};
use crate::obligations::{Annotations, Scope};
use crate::spelling;

/// A policy on its way through the checks.
pub(crate) struct Draft<'a> {
    /// Under its `@id`.
    pub(crate) policy: Policy,
    pub(crate) annotations: Annotations,
    source: &'a Source,
    /// Byte offsets in the source.
    start: usize,
    end: usize,
}

/// The policies of one file, in order. Those with faults are left out.
pub(crate) fn drafts<'a>(
    source: &'a Source,
    schema: Option<&Schema>,
    faults: &mut Vec<Fault>,
) -> Vec<Draft<'a>> {
    let set = match PolicySet::from_str(&source.text) {
        Ok(set) => set,
        Err(errors) => {
            faults.extend(errors.iter().map(|error| source.fault_of(error, None)));
            return Vec::new();
        }
    };
    for template in set.templates() {
        let start = template.as_ref().loc().map_or(0, |loc| loc.start());
        faults
            .push(source.fault_at(start, "templates are not supported: name the principal and the resource"));
    }
    let mut drafts: Vec<Draft<'_>> =
        set.policies().filter_map(|policy| Draft::new(source, policy, schema, faults)).collect();
    drafts.sort_by_key(|draft| draft.start);
    drafts
}

impl<'a> Draft<'a> {
    fn new(
        source: &'a Source,
        policy: &Policy,
        schema: Option<&Schema>,
        faults: &mut Vec<Fault>,
    ) -> Option<Self> {
        let (start, end) = policy.as_ref().loc().map_or((0, 0), |loc| (loc.start(), loc.end()));
        let annotations = match Annotations::read(policy, scope(policy, schema)) {
            Ok(annotations) => annotations,
            Err(messages) => {
                faults.extend(messages.into_iter().map(|message| source.fault_at(start, message)));
                return None;
            }
        };
        let policy = policy.new_id(PolicyId::new(&*annotations.id.0));
        let draft = Self { policy, annotations, source, start, end };
        draft.check_spelling(faults);
        Some(draft)
    }

    /// A fault of the policy as a whole.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        self.source.fault_at(self.start, message)
    }

    /// A fault that Cedar found in the policy.
    pub(crate) fn fault_of(&self, error: &dyn miette::Diagnostic) -> Fault {
        self.source.fault_of(error, Some(self.start))
    }

    /// A fault where the policy names an entity; at its beginning where it spells it in another way.
    pub(crate) fn fault_at(&self, uid: &EntityUid, message: impl Into<String>) -> Fault {
        let own = self.source.text.get(self.start..self.end);
        let found = own.and_then(|text| text.find(&uid.to_string())).unwrap_or(0);
        self.source.fault_at(self.start + found, message)
    }

    /// `policies/travel.cedar:12:3`
    pub(crate) fn position(&self) -> String {
        self.source.position(self.start)
    }

    fn check_spelling(&self, faults: &mut Vec<Fault>) {
        for uid in self.policy.entity_literals() {
            faults.extend(spelling::check_uid(&uid).err().map(|message| self.fault_at(&uid, message)));
        }
        if let ResourceConstraint::Eq(uid) = self.policy.resource_constraint()
            && *uid.type_name() == TYPES.vault
        {
            let message = format!(
                "`resource == {uid}` permits nothing: a vault goes by its id and by its name; write `resource in {uid}`"
            );
            faults.push(self.fault_at(&uid, message));
        }
        faults.extend(spelling::capitals(&self.policy).into_iter().map(|message| self.fault(message)));
    }
}

/// Which accesses to a secret a policy's scope takes in. An action that the schema does not have may be a misspelt
/// one: what to say about that is the validator's.
fn scope(policy: &Policy, schema: Option<&Schema>) -> Scope {
    let declared = |uid: &EntityUid| schema.is_some_and(|schema| schema.actions().any(|known| known == uid));
    let takes_in = |actions: &[Action]| {
        let taken = |uid: &EntityUid| {
            let name = uid.id().unescaped();
            let ours = name == ACCESS_GROUP || actions.iter().any(|action| action.name() == name);
            (*uid.type_name() == TYPES.action && ours) || !declared(uid)
        };
        match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::In(uids) => uids.iter().any(taken),
            ActionConstraint::Eq(uid) => taken(&uid),
        }
    };
    Scope { access: takes_in(&Action::ACCESS), acquire: takes_in(&[Action::Acquire, Action::AcquireSeed]) }
}

/// The schema's group of the actions on secrets.
const ACCESS_GROUP: &str = "access";
