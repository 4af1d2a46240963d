//! Loading: a directory of Cedar files, checked as a whole, taken as a whole or not at all.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use cedar_policy::{Entities, EntityUid, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};

use crate::contract;
use crate::entities::{self, TYPES};
use crate::entity_file;
use crate::fault::{Fault, LoadError, Source};
use crate::files::{self, ENTITIES, Files, SCHEMA};
use crate::links::named_by;
use crate::obligations::Annotations;
use crate::policy_file::{self, Draft};

/// A set of policies that has been checked: what an [`crate::Engine`] takes.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub(crate) schema: Schema,
    pub(crate) policies: Vec<Loaded>,
    pub(crate) entities: Entities,
    pub(crate) digest: [u8; 8],
    pub(crate) text: Arc<str>,
    pub(crate) warnings: Vec<Fault>,
}

/// One policy under its `@id`, with what its annotations say.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) policy: Policy,
    pub(crate) annotations: Annotations,
}

impl Bundle {
    /// Loads a directory: `schema.cedarschema`, every `*.cedar`, `entities.json`. Other files and
    /// subdirectories are left alone. No policies at all is valid, and denies everything.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        check(Files::read(directory))
    }

    /// The same from texts, for a set that is built in: the schema, each policy file's name and text, the
    /// entities.
    ///
    /// # Errors
    /// Every fault of every text.
    pub fn from_texts(schema: &str, policies: &[(&str, &str)], entities: &str) -> Result<Self, LoadError> {
        check(Files::from_texts(schema, policies, entities))
    }

    /// The default policies, which are built in: those of the travel story.
    ///
    /// # Errors
    /// None, as long as the tests of this crate pass.
    pub fn built_in() -> Result<Self, LoadError> {
        let policies = [
            ("people.cedar", include_str!("../../../policies/people.cedar")),
            ("travel.cedar", include_str!("../../../policies/travel.cedar")),
        ];
        let schema = include_str!("../../../policies/schema.cedarschema");
        Self::from_texts(schema, &policies, include_str!("../../../policies/entities.json"))
    }

    /// How many policies there are.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// All files as one text: before each, `==== "<name>" <bytes>` on a line of its own. At most 16 MiB.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The beginning of the SHA-256 of that text, as 16 hexadecimal digits:
    /// what audit records call the revision.
    #[must_use]
    pub fn digest_text(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is odd but not wrong.
    #[must_use]
    pub fn warnings(&self) -> &[Fault] {
        &self.warnings
    }
}

fn check(mut files: Files) -> Result<Bundle, LoadError> {
    let mut faults = std::mem::take(&mut files.faults);
    let mut warnings = Vec::new();
    let schema = files.schema.as_ref().and_then(|source| schema(source, &mut faults, &mut warnings));
    let drafts = drafts(&files.policies, schema.as_ref(), &mut faults);
    let entities = files
        .entities
        .as_ref()
        .and_then(|source| entity_file::entities(source, schema.as_ref(), &mut faults));
    if let Some(schema) = &schema {
        validate(schema, &drafts, &mut faults, &mut warnings);
    }
    if let Some(entities) = &entities {
        check_groups(&drafts, entities, &mut faults, &mut warnings);
    }
    LoadError::unless_empty(faults)?;
    let (Some(schema), Some(entities)) = (schema, entities) else {
        return Err(LoadError::of(Fault::of_no_place(format!("{SCHEMA} and {ENTITIES} must be there"))));
    };
    warnings.sort();
    let text = files.text();
    if text.len() > TEXT_MAX {
        let message = format!("all files together are over {} MiB", TEXT_MAX >> 20);
        return Err(LoadError::of(Fault::of_no_place(message)));
    }
    let loaded = |draft: Draft<'_>| Loaded { policy: draft.policy, annotations: draft.annotations };
    let policies = drafts.into_iter().map(loaded).collect();
    Ok(Bundle {
        schema,
        policies,
        entities,
        digest: files::digest(text.as_bytes()),
        text: text.into(),
        warnings,
    })
}

fn schema(source: &Source, faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) -> Option<Schema> {
    match Schema::from_cedarschema_str(&source.text) {
        Ok((schema, notes)) => {
            warnings.extend(notes.map(|note| source.fault_of(&note, None)));
            faults.extend(contract::gaps(&schema).into_iter().map(|gap| source.fault(gap)));
            Some(schema)
        }
        Err(error) => {
            faults.push(source.fault_of(&error, None));
            None
        }
    }
}

/// The policies of all files, each `@id` once.
fn drafts<'a>(sources: &'a [Source], schema: Option<&Schema>, faults: &mut Vec<Fault>) -> Vec<Draft<'a>> {
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    let mut firsts: HashMap<PolicyId, usize> = HashMap::new();
    for source in sources {
        for draft in policy_file::drafts(source, schema, faults) {
            let id = draft.policy.id().clone();
            if let Some(first) = firsts.get(&id).and_then(|place| drafts.get(*place)) {
                let message = format!("`@id` `{id}` is taken by the policy at {}", first.position());
                faults.push(draft.fault(message));
                continue;
            }
            if drafts.len() == POLICIES_MAX {
                faults.push(draft.fault(format!("more than {POLICIES_MAX} policies")));
                // Validating them all would take minutes, and they will not be loaded.
                return Vec::new();
            }
            firsts.insert(id, drafts.len());
            drafts.push(draft);
        }
    }
    drafts
}

fn validate(schema: &Schema, drafts: &[Draft<'_>], faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) {
    let set = match PolicySet::from_policies(drafts.iter().map(|draft| draft.policy.clone())) {
        Ok(set) => set,
        Err(error) => return faults.push(Fault::of_no_place(error.to_string())),
    };
    let by_id: HashMap<&PolicyId, &Draft<'_>> =
        drafts.iter().map(|draft| (draft.policy.id(), draft)).collect();
    let fault = |id: &PolicyId, error: &dyn miette::Diagnostic| match by_id.get(id) {
        Some(draft) => draft.fault_of(error),
        None => Fault::of_no_place(error.to_string()),
    };
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    faults.extend(result.validation_errors().map(|error| fault(error.policy_id(), error)));
    warnings.extend(result.validation_warnings().map(|warning| fault(warning.policy_id(), warning)));
}

/// Cedar knows which types of entities there are, not which entities: a misspelt team is valid, and empty. Where nobody
/// could ever approve, that is a fault.
fn check_groups(
    drafts: &[Draft<'_>],
    entities: &Entities,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Fault>,
) {
    let mut known: HashSet<EntityUid> = HashSet::new();
    for entity in entities.iter() {
        known.extend(entities.ancestors(&entity.uid()).into_iter().flatten().cloned());
        known.extend(named_by(entity));
    }
    let groups = [&TYPES.team, &TYPES.toolset, &TYPES.group];
    for draft in drafts {
        for uid in draft.policy.entity_literals() {
            if groups.contains(&uid.type_name()) && !known.contains(&uid) {
                warnings.push(draft.fault_at(&uid, format!("by {ENTITIES}, nothing is in `{uid}`")));
            }
        }
        for group in draft.annotations.obligations.approval.iter().flat_map(|groups| groups.iter()) {
            let uid = entities::group(group);
            if !known.contains(&uid) {
                let problem = match entities.get(&uid) {
                    Some(_) => format!("nothing is in `{uid}`"),
                    None => format!("there is no `{uid}`"),
                };
                let message =
                    format!("`@approval(\"{group}\")`: by {ENTITIES}, {problem}, so nobody could approve");
                faults.push(draft.fault(message));
            }
        }
    }
}

const POLICIES_MAX: usize = 50_000;
/// What the audit database keeps of one set.
const TEXT_MAX: usize = 16 << 20;
