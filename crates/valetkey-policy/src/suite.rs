//! Checking a policy directory and running its tests: the policy author's side.

use std::path::Path;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicyId, PolicySet, Request,
};
use serde::Deserialize;

use crate::bundle::Bundle;
use crate::entities::TYPES;
use crate::entity_file;
use crate::error::EngineError;
use crate::fault::{Fault, LoadError, Source};
use crate::files;

/// A policy directory that has no faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What audit records will call the revision: 16 hexadecimal digits.
    pub digest: String,
    /// How many policies there are.
    pub policy_count: usize,
    /// What is odd but not wrong.
    pub warnings: Vec<Fault>,
}

/// What came of a directory's tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestReport {
    /// Every test, by file and in its order.
    pub cases: Vec<TestCase>,
}

/// One test and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestCase {
    /// The file that it stands in.
    pub file: String,
    /// Its name.
    pub name: String,
    /// Why it failed; `None` where it passed.
    pub failure: Option<String>,
}

/// Checks a policy directory.
///
/// # Errors
/// Every fault of every file.
pub fn check(directory: &Path) -> Result<Checked, LoadError> {
    let bundle = Bundle::load(directory)?;
    Ok(Checked {
        digest: bundle.digest_text(),
        policy_count: bundle.policy_count(),
        warnings: bundle.warnings().to_vec(),
    })
}

/// Runs the tests in `tests/*.json` of a policy directory, in the format of `cedar run-tests`. Where there are
/// none, the report is empty: [`TestReport::is_empty`].
///
/// The entities of a test stand beside those of `entities.json`, and in place of those with the same
/// name. The decision expected is the broker's: deny where any policy fails to evaluate.
///
/// # Errors
/// Every fault of the policies, and every test file that cannot be read. A test that fails is no error.
pub fn run_tests(directory: &Path) -> Result<TestReport, LoadError> {
    let suite = Suite::new(Bundle::load(directory)?)?;
    let tests = directory.join("tests");
    let mut report = TestReport::default();
    let mut faults = Vec::new();
    let names = if tests.is_dir() { files::list(&tests, ".json", &mut faults) } else { Vec::new() };
    for name in names {
        match files::read_file(&tests, &name).and_then(|source| suite.run(&source)) {
            Ok(cases) => report.cases.extend(cases),
            Err(fault) => faults.push(fault),
        }
    }
    LoadError::unless_empty(faults).map(|()| report)
}

impl TestReport {
    /// Whether there was no test at all: then nothing failed, and nothing was shown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| case.failure.is_some()).count()
    }

    /// How many passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.cases.len() - self.failed()
    }
}

struct Suite {
    bundle: Bundle,
    policies: PolicySet,
}

/// A test as it stands in its file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    request: WrittenRequest,
    entities: serde_json::Value,
    decision: Expected,
    /// Policies that must be among those that determine the decision.
    reason: Vec<String>,
    num_errors: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRequest {
    principal: String,
    action: String,
    resource: String,
    context: serde_json::Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

impl Suite {
    fn new(bundle: Bundle) -> Result<Self, LoadError> {
        match PolicySet::from_policies(bundle.policies.iter().map(|loaded| loaded.policy.clone())) {
            Ok(policies) => Ok(Self { bundle, policies }),
            Err(error) => Err(LoadError::of(Fault::of_no_place(error.to_string()))),
        }
    }

    fn run(&self, source: &Source) -> Result<Vec<TestCase>, Fault> {
        let tests: Vec<Written> = serde_json::from_str(&source.text)
            .map_err(|error| source.fault(format!("not a JSON array of tests: {error}")))?;
        let case = |test: Written| TestCase {
            file: source.name.clone(),
            name: test.name.clone(),
            failure: self.failure(test).unwrap_or_else(|error| Some(error.to_string())),
        };
        Ok(tests.into_iter().map(case).collect())
    }

    fn failure(&self, test: Written) -> Result<Option<String>, EngineError> {
        let Written { name: _, request, entities, decision, reason, num_errors } = test;
        let (request, entities) = (self.request(request)?, self.entities(entities)?);
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        let errors: Vec<_> = response.diagnostics().errors().map(ToString::to_string).collect();
        let allowed = response.decision() == Decision::Allow && errors.is_empty();
        let answer = if allowed { Expected::Allow } else { Expected::Deny };
        let determining: Vec<&PolicyId> = response.diagnostics().reason().collect();
        if answer != decision {
            let why = why(&determining, &errors);
            return Ok(Some(format!("expected {decision:?}, got {answer:?}: {why}")));
        }
        if let Some(missing) = reason.iter().find(|id| !determining.contains(&&PolicyId::new(id))) {
            return Ok(Some(format!("policy `{missing}` does not determine the decision")));
        }
        if errors.len() != num_errors {
            return Ok(Some(format!(
                "expected {num_errors} errors, got {}: {}",
                errors.len(),
                errors.join("; ")
            )));
        }
        Ok(None)
    }

    fn request(&self, written: WrittenRequest) -> Result<Request, EngineError> {
        let WrittenRequest { principal, action, resource, context } = written;
        let uid = |text: &str| text.parse::<EntityUid>().map_err(EngineError::of);
        let action = uid(&action)?;
        let schema = &self.bundle.schema;
        let context = Context::from_json_value(context, Some((schema, &action))).map_err(EngineError::of)?;
        Request::new(uid(&principal)?, action, uid(&resource)?, context, Some(schema))
            .map_err(EngineError::of)
    }

    fn entities(&self, written: serde_json::Value) -> Result<Entities, EngineError> {
        let schema = Some(&self.bundle.schema);
        let own = Entities::from_json_value(written, schema).map_err(EngineError::of)?;
        // The store has the schema's actions already.
        let own: Vec<Entity> =
            own.into_iter().filter(|entity| *entity.uid().type_name() != TYPES.action).collect();
        // Such a test would pass or fail for a request that nobody can make.
        let misspelt: Vec<_> = own.iter().flat_map(entity_file::misspelt).collect();
        if !misspelt.is_empty() {
            return Err(EngineError::new(misspelt.join("; ")));
        }
        self.bundle.entities.clone().upsert_entities(own, schema).map_err(EngineError::of)
    }
}

/// What a decision rests on, for a test's author.
fn why(determining: &[&PolicyId], errors: &[String]) -> String {
    if !errors.is_empty() {
        return errors.join("; ");
    }
    if determining.is_empty() {
        return "no policy permits it".to_owned();
    }
    let ids: Vec<_> = determining.iter().map(|id| format!("`{id}`")).collect();
    format!("by {}", ids.join(", "))
}
