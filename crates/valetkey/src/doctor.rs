//! `valetkey doctor`: what a configuration needs, whether it is there, and what to do where it is not.
//!
//! With `--connect`, the client's side instead, in `doctor/connect.rs`.
//!
//! Not here: how a source is looked at; the checks are beside the sources. A new group of checks is one more line
//! in [`examine`].

mod connect;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use valetkey_core::Clock;
use valetkey_server::{
    App, CertificateSource, Check, Config, StartError, SystemClock, Verdict, find_op, sdk_pins, source_checks,
};

use crate::cli::{DoctorArgs, Format};
use crate::failure::{Exit, Failure};
use crate::onepassword::default_folder;
use crate::output::{self, BAD, BOLD, Cell, DIM, GOOD};

/// Checks of one thing.
struct Group {
    subject: String,
    checks: Vec<Check>,
}

/// Runs it.
pub(crate) async fn run(args: DoctorArgs) -> Result<Exit, Failure> {
    let DoctorArgs { config, format, connect, shown } = args;
    if let Some(address) = connect {
        return connect::run(&address, &shown).await;
    }
    let environment = |name: &str| std::env::var_os(name);
    let groups = match config {
        None => vec![machine(&environment)],
        Some(file) => match Config::load(&file) {
            Err(error) => {
                let checks =
                    error.faults().iter().map(|fault| Check::fail("configuration", fault, next_step(&file)));
                print(format, &[Group { subject: file.display().to_string(), checks: checks.collect() }])?;
                return Ok(Exit::Invalid);
            }
            Ok(config) => examine(&file, &config, &environment).await,
        },
    };
    print(format, &groups)?;
    let worst = groups.iter().flat_map(|group| &group.checks).map(|check| check.verdict).max();
    Ok(if worst == Some(Verdict::Fail) { Exit::Failed } else { Exit::Done })
}

async fn examine(file: &Path, config: &Config, environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Group> {
    let loaded = Check::ok("configuration", format!("listens on {}", crate::config::places(config)));
    let mut groups = vec![
        Group { subject: file.display().to_string(), checks: [vec![loaded], proofs(config).await].concat() },
        Group { subject: config.policies.display().to_string(), checks: vec![policies(&config.policies)] },
        Group { subject: config.audit_database.display().to_string(), checks: audit(config) },
    ];
    for source in &config.sources {
        let checks = source_checks(source, &config.audit_database, environment).await;
        groups.push(Group { subject: format!("source {}", source.name.as_str()), checks });
    }
    groups
}

/// What to do about a configuration with faults.
fn next_step(file: &Path) -> &'static str {
    match file.exists() {
        true => "mend it; docs/sources.md and docs/operating.md say what may stand in it",
        false => "name the one that is there, or write one as README.md begins",
    }
}

/// What the broker proves itself with, and what it believes others by.
async fn proofs(config: &Config) -> Vec<Check> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let mut checks = Vec::new();
    if let Some(tls) = &config.tls {
        let what = match &tls.source {
            CertificateSource::Files { certificate, key: _, client_ca: _ } => {
                format!("`{}` is good", certificate.display())
            }
            CertificateSource::Workload(socket) => format!("`{}` is asked at the start", socket.display()),
        };
        let found = App::check_tls(config, &clock).map(|()| what);
        checks.push(usable("tls", found, "mend the files that `[tls]` names; `serve` refuses them"));
    }
    if let Some(events) = &config.events {
        let what = format!("{} on {}, with its key and certificate", events.host, events.listen);
        let found = App::check_events(config, &clock).map(|()| what);
        checks.push(usable("events", found, "mend the files that `[events]` names; `serve` refuses them"));
    }
    if !config.issuers.is_empty() {
        let count = output::count(config.issuers.len(), "issuer", "issuers");
        let found = App::check_issuers(config, clock).await.map(|()| count);
        checks.push(usable("issuers", found, "mend the files that `[[issuer]]` names"));
    }
    if let Some(unix) = &config.unix {
        checks.push(folder("unix socket folder", &unix.path));
    }
    checks
}

fn usable(name: &'static str, found: Result<String, StartError>, next_step: &str) -> Check {
    match found {
        Ok(found) => Check::ok(name, found),
        Err(error) => Check::fail(name, Failure::chain(Exit::Invalid, &error).message, next_step),
    }
}

fn policies(directory: &Path) -> Check {
    const NAME: &str = "policies";
    let check = format!("`valetkey policy check {}` names each", directory.display());
    match valetkey_policy::check(directory) {
        Err(error) => Check::fail(NAME, error.to_string().replace('\n', "; "), check),
        Ok(checked) => {
            let count = output::count(checked.policy_count, "policy", "policies");
            let found = format!("{count}, revision {}", checked.digest);
            match checked.warnings.len() {
                0 => Check::ok(NAME, found),
                warnings => {
                    let found = format!("{found}, {}", output::count(warnings, "warning", "warnings"));
                    Check::warn(NAME, found, check)
                }
            }
        }
    }
}

fn audit(config: &Config) -> Vec<Check> {
    let database = &config.audit_database;
    let there = match std::fs::metadata(database) {
        Ok(metadata) => Check::ok("audit database", format!("{} bytes", metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Check::warn(
            "audit database",
            "there is none",
            "`valetkey serve --create-database` makes it, the first time; later, a missing one is to be looked for",
        ),
        Err(error) => Check::fail("audit database", error.to_string(), "see to its rights"),
    };
    let mut checks = vec![there, folder("audit folder", database)];
    if database.exists() {
        let found = App::check_signing(config).map(|()| "can be used".to_owned());
        checks.push(usable("signing key", found, "bring back the key that signed the log"));
    }
    if let Some(file) = &config.audit_signing.checkpoint_file {
        checks.push(folder("checkpoint folder", file));
    }
    checks
}

/// Whether the folder of `file` can be written to.
fn folder(name: &'static str, file: &Path) -> Check {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A file that is never seen by its name: the surest way to know.
    let found = tempfile::tempfile_in(folder).map(|_| format!("`{}` can be written", folder.display()));
    Check::of(name, found, "make it, owned by the user that runs the broker")
}

/// What a source could use, where there is no configuration yet.
fn machine(environment: &dyn Fn(&str) -> Option<OsString>) -> Group {
    let pin = sdk_pins().iter().find(|pin| pin.is_for_this_platform());
    let library = pin.map(|pin| {
        let path = default_folder(pin.version, environment).ok()?.join(pin.file_name());
        std::fs::read(&path).is_ok_and(|bytes| pin.is(&bytes)).then_some((pin.version, path))
    });
    let library = match library {
        None => {
            Check::warn(LIBRARY, "none is known for this platform", "use a source of kind `connect` or `op`")
        }
        Some(None) => {
            Check::warn(LIBRARY, "not in its usual place", "`valetkey onepassword install` fetches it")
        }
        Some(Some((version, path))) => Check::ok(LIBRARY, format!("version {version}, `{}`", path.display())),
    };
    let op = match find_op(&environment("PATH").unwrap_or_default()) {
        Ok(path) => Check::ok("op program", format!("`{}`", path.display())),
        Err(error) => Check::warn("op program", error.to_string(), "needed by sources of kind `op` alone"),
    };
    let configuration =
        Check::warn("configuration", "none was given", "`valetkey doctor --config FILE` looks at yours");
    Group { subject: "this machine".to_owned(), checks: vec![configuration, library, op] }
}

fn print(format: Format, groups: &[Group]) -> Result<(), Failure> {
    let all = || groups.iter().flat_map(|group| group.checks.iter().map(move |check| (group, check)));
    if format == Format::Table {
        for (group, check) in all() {
            output::line(&sentence(&group.subject, check))?;
        }
        return Ok(());
    }
    let rows: Vec<_> = all().map(|(group, check)| row(&group.subject, check)).collect();
    Ok(output::rows(format, &[], &rows)?)
}

/// One line: the verdict, what was looked at, what was found, what to do.
fn sentence(subject: &str, check: &Check) -> String {
    let Check { name, verdict, found, next_step } = check;
    let style = match verdict {
        Verdict::Ok => GOOD,
        Verdict::Warn => BOLD,
        Verdict::Fail => BAD,
    };
    let word = verdict.as_str();
    let next_step = if next_step.is_empty() { String::new() } else { format!(" {DIM}-> {next_step}{DIM:#}") };
    let line = format!("{style}{word:4}{style:#}  {subject}: {name}: ");
    format!("{line}{}{next_step}", output::inline(found))
}

fn row(subject: &str, check: &Check) -> Vec<Cell> {
    let Check { name, verdict, found, next_step } = check;
    let next_step = if next_step.is_empty() { Value::Null } else { next_step.as_str().into() };
    vec![
        ("verdict", verdict.as_str().into()),
        ("subject", subject.into()),
        ("check", (*name).into()),
        ("found", found.as_str().into()),
        ("next_step", next_step),
    ]
}

const LIBRARY: &str = "SDK library";
