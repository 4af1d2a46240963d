//! `valetkey backup`: a checked copy of the audit database, under a name that it gets last.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::NamedTempFile;
use valetkey_audit::{BackupError, Contents, Copied};
use valetkey_core::{RecordId, Timestamp};
use valetkey_server::{Config, SourceConfig, SourceKind};

use crate::audit::moment_to_second;
use crate::cli::{BackupArgs, BackupSource};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::signals::Interrupts;

/// Runs it.
pub(crate) async fn run(args: BackupArgs) -> Result<Exit, Failure> {
    let BackupArgs { source: BackupSource { config, database }, to } = args;
    let config = match &config {
        None => None,
        Some(file) => {
            let loaded = Config::load(file).map_err(|error| Failure::new(Exit::Invalid, error))?;
            Some((file.clone(), loaded))
        }
    };
    let from = database.or_else(|| config.as_ref().map(|(_, config)| config.audit_database.clone()));
    let from = from.unwrap_or_default();
    if to.symlink_metadata().is_ok() {
        return Err(exists(&to));
    }
    let folder = to.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    // For its owner alone, and gone with this process however the copy fails.
    let file = NamedTempFile::with_prefix_in(".valetkey-backup-", folder).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot write to `{}`: {error}", folder.display()))
    })?;
    let (file, contents) = copy(from, file).await?;
    file.persist_noclobber(&to).map_err(|failed| match failed.error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(&to),
        _ => Failure::from(failed.error),
    })?;
    File::open(folder)?.sync_all()?;
    output::text(&said(&to, &contents)?)?;
    output::note(&kept(config.as_ref().map(|(file, config)| (file.as_path(), config))));
    Ok(Exit::Done)
}

/// Copies on a thread that may block; a signal stops it.
async fn copy(from: std::path::PathBuf, file: NamedTempFile) -> Result<(NamedTempFile, Contents), Failure> {
    let mut interrupts = Interrupts::take()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut copying = tokio::task::spawn_blocking(move || {
        let copied = valetkey_audit::backup(&from, file.path(), |Copied { pages, of }| {
            match pages.saturating_mul(100) / of.max(1) {
                100 => output::progress("copied; being checked"),
                percent => output::progress(&format!("{percent} % of {of} pages copied")),
            }
            match stopped.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        (file, copied)
    });
    let ended = tokio::select! {
        ended = &mut copying => ended,
        () = interrupts.next() => {
            stop.store(true, Ordering::Relaxed);
            copying.await
        }
    };
    output::progress("");
    let (file, copied) = ended.map_err(|error| Failure::new(Exit::Failed, error))?;
    match copied {
        Ok(_) if stop.load(Ordering::Relaxed) => Err(failed(BackupError::Stopped)),
        Ok(contents) => Ok((file, contents)),
        Err(error) => Err(failed(error)),
    }
}

/// What is in the copy.
fn said(to: &Path, contents: &Contents) -> Result<String, Failure> {
    let Contents { first, last, tokens, checkpoints, signed } = contents;
    let bytes = std::fs::metadata(to)?.len();
    let at = |(RecordId(id), time): &(RecordId, Timestamp)| {
        format!("{id} ({})", moment_to_second(time.as_micros().div_euclid(1_000_000)))
    };
    let records = match first.as_ref().zip(last.as_ref()) {
        Some((first, last)) => format!("{} to {}", at(first), at(last)),
        None => "none".to_owned(),
    };
    let signed = match checkpoints {
        0 => "none".to_owned(),
        count => format!("{count}, the newest over {signed} records"),
    };
    Ok(format!(
        "backup       {}\nbytes        {bytes}\nrecords      {records}\ntokens       {tokens}\ncheckpoints  {signed}\n",
        to.display()
    ))
}

/// What else a broker on the copy needs.
fn kept(config: Option<(&Path, &Config)>) -> String {
    let Some((file, config)) = config else {
        return "keep apart from it: the configuration, the policies, the log's key (`-key` beside the database) and \
                every other key that the configuration names"
            .to_owned();
    };
    let vaults = config.sources.iter().filter_map(|SourceConfig { kind, .. }| match kind {
        SourceKind::File { file, .. } => Some(format!(", `{}`", file.display())),
        _ => None,
    });
    format!(
        "keep apart from it: `{}`, `{}`{}, the log's key (`{}-key` unless set otherwise) and every other key and token \
         file that the configuration names",
        file.display(),
        config.policies.display(),
        vaults.collect::<String>(),
        config.audit_database.display(),
    )
}

fn exists(to: &Path) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("`{}` exists, and is not overwritten; choose another name", to.display()),
    )
}

fn failed(error: BackupError) -> Failure {
    Failure::chain(Exit::Failed, &error)
}
