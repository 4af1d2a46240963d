//! `valetkey policy`: the policy author's side, without a broker.

use std::path::{Path, PathBuf};

use valetkey_audit::AuditReader;
use valetkey_policy::{Bundle, Cast, TestCase, matrix};

use crate::cli::{Format, PolicyCommand};
use crate::failure::{Exit, Failure};
use crate::output;

/// Runs it.
pub(crate) async fn run(command: PolicyCommand) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Check { directory } => check(&directory),
        PolicyCommand::Test { directory, format } => test(&directory, format),
        PolicyCommand::Matrix { directory } => show_matrix(&directory),
        PolicyCommand::Show { revision, database } => show(revision, database).await,
    }
}

fn check(directory: &Path) -> Result<Exit, Failure> {
    let checked = valetkey_policy::check(directory).map_err(invalid)?;
    for warning in &checked.warnings {
        output::note(&format!("warning: {warning}"));
    }
    output::line(&format!(
        "{}: {}, revision {}",
        directory.display(),
        output::count(checked.policy_count, "policy", "policies"),
        checked.digest
    ))?;
    Ok(Exit::Done)
}

fn test(directory: &Path, format: Format) -> Result<Exit, Failure> {
    let report = valetkey_policy::run_tests(directory).map_err(invalid)?;
    if report.is_empty() {
        let tests = directory.join("tests");
        return Err(Failure::new(Exit::Invalid, format!("no tests in `{}`", tests.join("*.json").display())));
    }
    let row = |case: &TestCase| {
        let TestCase { file, name, failure } = case;
        let result = if failure.is_none() { "pass" } else { "FAIL" };
        vec![
            ("result", result.into()),
            ("file", file.clone().into()),
            ("test", name.clone().into()),
            ("failure", failure.clone().into()),
        ]
    };
    let rows: Vec<_> = report.cases.iter().map(row).collect();
    output::rows(format, &["result", "file", "test", "failure"], &rows)?;
    output::note(&format!("{} passed, {} failed", report.passed(), report.failed()));
    Ok(if report.failed() == 0 { Exit::Done } else { Exit::Failed })
}

/// The policies of a revision, as the audit database keeps them, if they are still what they were.
async fn show(revision: String, database: PathBuf) -> Result<Exit, Failure> {
    let unusable = |error: &dyn std::error::Error| Failure::chain(Exit::Invalid, error);
    let reader = AuditReader::open(&database).map_err(|error| unusable(&error))?;
    let text = reader.policy_set(&revision).await.map_err(|error| unusable(&error))?;
    let text = text.ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!("`{}` has no policies of revision `{revision}`", database.display()),
        )
    })?;
    if valetkey_policy::revision_of(&text) != revision {
        let message = "what is kept is not what that revision is the digest of: somebody has changed it";
        return Err(Failure::new(Exit::Failed, message));
    }
    output::text(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

fn show_matrix(directory: &Path) -> Result<Exit, Failure> {
    let bundle = Bundle::load(directory).map_err(invalid)?;
    let file = directory.join("matrix.json");
    let named =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(&file).map_err(|error| named(&error))?;
    let cast = Cast::from_json(&text).map_err(|error| named(&error))?;
    output::text(&matrix(&bundle, &cast).map_err(|error| named(&error))?)?;
    Ok(Exit::Done)
}

/// One fault a line.
pub(crate) fn invalid(error: valetkey_policy::LoadError) -> Failure {
    let faults: Vec<_> = error.faults().iter().map(ToString::to_string).collect();
    Failure::new(Exit::Invalid, faults.join("\n"))
}
