//! Opens the sources that the configuration names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use valetkey_core::{Clock, Name};
use valetkey_onepassword::{
    Check, ConnectOptions, LoadOptions, Member, OpOptions, OpenError, QuotaLimits, SdkOptions, Source,
    SourceOptions, Sources, TokenError, TokenNames, TokenSource, VaultFile, VaultFileError, connect_checks,
    op_checks, quota_check, sdk_checks,
};

use crate::clock::SystemClock;
use crate::config::{SourceBounds, SourceConfig, SourceKind};

/// Looks a variable of the environment up.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Why a source cannot be used. Nothing was asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The vault file has faults.
    #[error("{}", in_vault(.file, .error))]
    VaultFile {
        /// The file.
        file: PathBuf,
        /// Why.
        error: VaultFileError,
    },
    /// Several cannot be used.
    #[error("{} sources cannot be used:{}", .0.len(), several(.0))]
    Several(Vec<SourceError>),
    /// Another source cannot be opened.
    #[error("the source `{}` cannot be used", .name.as_str())]
    Open {
        /// Its name.
        name: Name,
        /// Why.
        #[source]
        error: OpenError,
    },
}

/// Opens them. `state_dir` is where their budgets are kept.
pub(crate) fn open(
    sources: &[SourceConfig],
    state_dir: &Path,
    environment: Environment<'_>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Sources>, SourceError> {
    let opened = sources.iter().map(|source| match &source.kind {
        SourceKind::File { file, open_to_others } => {
            vault_file(file, *open_to_others, Arc::clone(clock)).map(Member::Embedded)
        }
        SourceKind::Sdk { .. } | SourceKind::Connect { .. } | SourceKind::Op { .. } => {
            let opened = remote(source, state_dir, environment, Arc::clone(clock));
            let in_opening = |error| SourceError::Open { name: source.name.clone(), error };
            opened.map(Member::Remote).map_err(in_opening)
        }
    });
    let (mut members, mut faults) = (Vec::new(), Vec::new());
    for opened in opened {
        match opened {
            Ok(member) => members.push(member),
            Err(error) => faults.push(error),
        }
    }
    match faults.pop() {
        None => Ok(Arc::new(Sources::new(members, Arc::clone(clock)))),
        Some(alone) if faults.is_empty() => Err(alone),
        Some(last) => {
            faults.push(last);
            Err(SourceError::Several(faults))
        }
    }
}

/// Each on a line of its own, with its causes.
fn several(faults: &[SourceError]) -> String {
    let whole = |fault: &SourceError| {
        let causes = std::iter::successors(std::error::Error::source(fault), |cause| cause.source());
        causes.fold(fault.to_string(), |story, cause| format!("{story}: {cause}"))
    };
    crate::app::lines(&faults.iter().map(whole).collect::<Vec<_>>())
}

/// Looks at one source, for `valetkey doctor`; asks it the least that proves that it works. `environment` is a
/// look-up of variables; budgets are kept beside the log.
pub async fn source_checks(
    source: &SourceConfig,
    audit_database: &Path,
    environment: Environment<'_>,
) -> Vec<Check> {
    let upstream = match &source.kind {
        SourceKind::File { file, open_to_others } => {
            let opened = vault_file(file, *open_to_others, Arc::new(SystemClock::default()));
            let found = opened.map(|_| source.kind.summary());
            return vec![Check::of(
                "vault file",
                found,
                "mend it; docs/vault-file.md says what stands in it",
            )];
        }
        SourceKind::Sdk { .. } | SourceKind::Connect { .. } | SourceKind::Op { .. } => {
            upstream(source, environment)
        }
    };
    let mut checks = vec![quota_check(crate::app::state_dir(audit_database), source.name.as_str())];
    checks.extend(match upstream {
        Err(error) => vec![Check::of(source.kind.as_str(), Err(error), "docs/sources.md says what it needs")],
        Ok(Upstream::Sdk(options)) => sdk_checks(options, &source.vaults).await,
        Ok(Upstream::Connect(options)) => connect_checks(options, &source.vaults).await,
        Ok(Upstream::Op(options)) => op_checks(options, &source.vaults).await,
    });
    checks
}

fn vault_file(file: &Path, open_to_others: bool, clock: Arc<dyn Clock>) -> Result<VaultFile, SourceError> {
    let loaded = VaultFile::load(file, LoadOptions { open_to_others }, clock);
    loaded.map_err(|error| SourceError::VaultFile { file: file.to_owned(), error })
}

fn remote(
    source: &SourceConfig,
    state_dir: &Path,
    environment: Environment<'_>,
    clock: Arc<dyn Clock>,
) -> Result<Source, OpenError> {
    let options = options(source, state_dir);
    match upstream(source, environment)? {
        Upstream::Sdk(sdk) => Source::sdk(sdk, options, clock),
        Upstream::Op(op) => Source::op(op, options, clock),
        Upstream::Connect(connect) => Source::connect(connect, options, clock),
    }
}

/// What a source asks.
enum Upstream {
    Sdk(SdkOptions),
    Connect(ConnectOptions),
    Op(OpOptions),
}

fn upstream(source: &SourceConfig, environment: Environment<'_>) -> Result<Upstream, OpenError> {
    let SourceConfig { name, vaults: _, kind, bounds } = source;
    Ok(match kind {
        SourceKind::Sdk { library, sha256, token_file, allow_loopback } => {
            let token = token(name, token_file.as_deref(), environment)?;
            let usual = SdkOptions::new(library.clone(), token);
            let timeout = bounds.timeout.unwrap_or(usual.timeout);
            Upstream::Sdk(SdkOptions {
                pin: sha256.clone(),
                allow_loopback: *allow_loopback,
                timeout,
                ..usual
            })
        }
        SourceKind::Connect { host, token_file, ca } => {
            let usual = ConnectOptions::find(host.clone(), token_file.as_deref(), environment)?;
            let timeout = bounds.timeout.unwrap_or(usual.timeout);
            Upstream::Connect(ConnectOptions { ca_file: ca.clone(), timeout, ..usual })
        }
        SourceKind::Op { program, token_file, allow_loopback } => Upstream::Op(OpOptions {
            program: program.clone(),
            token: token(name, token_file.as_deref(), environment)?,
            allow_loopback: *allow_loopback,
            timeout: bounds.timeout.unwrap_or(OpOptions::TIMEOUT),
            processes_max: OpOptions::PROCESSES_MAX,
        }),
        // A vault file asks nobody, and is opened elsewhere.
        SourceKind::File { .. } => return Err(OpenError::NotRemote),
    })
}

fn token(name: &Name, file: Option<&Path>, environment: Environment<'_>) -> Result<TokenSource, TokenError> {
    match file {
        Some(file) => Ok(TokenSource::file(file.to_owned())),
        None => {
            let names = TokenNames { credential: name.as_str(), ..TokenNames::default() };
            TokenSource::find(environment, names)
        }
    }
}

fn options(source: &SourceConfig, state_dir: &Path) -> SourceOptions {
    let SourceConfig { name, vaults, kind, bounds } = source;
    let SourceBounds { requests_per_hour, requests_per_day, directory_age, value_cache, timeout: _ } =
        *bounds;
    let vaults = vaults.iter().map(|vault| vault.as_str().into()).collect();
    let usual = SourceOptions::new(name.as_str().into(), vaults);
    // Connect counts nothing: it has limits only where somebody gives it some.
    let quota = if matches!(kind, SourceKind::Connect { .. }) { QuotaLimits::NONE } else { usual.quota };
    SourceOptions {
        directory_age_max: directory_age.unwrap_or(usual.directory_age_max),
        value_cache: value_cache.filter(|keep| !keep.is_zero()),
        quota: QuotaLimits {
            per_hour: requests_per_hour.or(quota.per_hour),
            per_day: requests_per_day.or(quota.per_day),
        },
        state_dir: Some(state_dir.to_owned()),
        ..usual
    }
}

/// What is wrong with a vault file, by its name.
fn in_vault(file: &Path, error: &VaultFileError) -> String {
    match error {
        VaultFileError::Read { path: _, source } => format!("{error}: {source}"),
        VaultFileError::OpenToOthers { path: _, mode: _ } => error.to_string(),
        VaultFileError::Faults(faults) => {
            format!("the vault file `{}` has faults:{}", file.display(), crate::app::lines(faults))
        }
        VaultFileError::TooLarge | VaultFileError::Syntax { line: _, column: _ } => {
            format!("{}: {error}", file.display())
        }
    }
}
