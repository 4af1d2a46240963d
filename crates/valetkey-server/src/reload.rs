//! Reloading policies: the last good set stays in force until a better one is whole.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use valetkey_audit::{Archive, ArchiveError};
use valetkey_core::{AuditRecord, Broker, PolicyEngine, Reason, RecordKind, Revision};
use valetkey_policy::{Bundle, Engine, LoadError};

use crate::watch::{settle, watch};

/// Puts changed policies in force. Clones share one engine; reloads happen one after the other.
#[derive(Clone)]
pub struct Reloader {
    parts: Arc<Parts>,
}

struct Parts {
    directory: PathBuf,
    engine: Arc<Engine>,
    broker: Arc<Broker>,
    archive: Arc<Archive>,
    turn: Mutex<()>,
    /// Whether the last load found faults.
    faulty: AtomicBool,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The files say what is in force already.
    Unchanged,
    /// Other policies are in force now.
    Changed {
        /// Which.
        revision: Revision,
        /// Live handles that they no longer allow.
        handles_revoked: usize,
    },
}

/// Why the policies were not reloaded. The last good set stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The policies have faults.
    #[error("the policies have faults; those before them stay in force")]
    Faults(#[source] LoadError),
    /// They cannot be kept for whoever reads the log later.
    #[error("the policies cannot be kept; those before them stay in force")]
    NotKept(#[source] ArchiveError),
    /// The loader did not survive.
    #[error("the policies could not be loaded; those before them stay in force")]
    Broken,
}

impl Reloader {
    pub(crate) fn new(
        directory: PathBuf,
        engine: Arc<Engine>,
        broker: Arc<Broker>,
        archive: Arc<Archive>,
    ) -> Self {
        Self {
            parts: Arc::new(Parts {
                directory,
                engine,
                broker,
                archive,
                turn: Mutex::new(()),
                faulty: AtomicBool::new(false),
            }),
        }
    }

    /// Loads the policies again; if they differ and are good, puts them in force, and decides every live
    /// lease again. Both outcomes are logged and recorded.
    ///
    /// # Errors
    /// [`ReloadError`] where they are not good.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _turn = self.parts.turn.lock().await;
        let parts = Arc::clone(&self.parts);
        let result = tokio::task::spawn_blocking(move || parts.load_and_install()).await;
        let result = result.unwrap_or(Err(ReloadError::Broken));
        self.parts.report(&result).await;
        result
    }

    /// Reloads whenever files of the directory change, for as long as it is polled. Also where the whole
    /// directory is replaced, which its old watch does not see.
    pub(crate) async fn follow_files(&self) {
        loop {
            let watched = identity_of(&self.parts.directory);
            let (changed, mut changes) = mpsc::channel(1);
            let watcher = watch([&self.parts.directory], changed);
            if let Err(error) = &watcher {
                tracing::warn!(%error, "the policy files cannot be watched; send SIGHUP after a change");
            }
            loop {
                match tokio::time::timeout(LOOK, changes.recv()).await {
                    Ok(Some(())) => {
                        settle(&mut changes).await;
                        self.try_reload().await;
                    }
                    // There is no watch: all that is left is to look, by and by.
                    Ok(None) => tokio::time::sleep(LOOK).await,
                    Err(_) => {}
                }
                if identity_of(&self.parts.directory) != watched {
                    self.try_reload().await;
                    break;
                }
            }
        }
    }

    /// What went wrong is logged and recorded; there is nobody here to tell.
    async fn try_reload(&self) {
        let _ = self.reload().await;
    }
}

/// Device and inode.
fn identity_of(directory: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(directory).ok().map(|found| (found.dev(), found.ino()))
}

impl Parts {
    /// Blocks for as long as loading takes.
    fn load_and_install(&self) -> Result<Reloaded, ReloadError> {
        let bundle = Bundle::load(&self.directory).map_err(ReloadError::Faults)?;
        if bundle.digest_text() == self.engine.revision().digest_text() {
            return Ok(Reloaded::Unchanged);
        }
        // Before the first decision by it.
        self.archive
            .keep_policy_set(&bundle.digest_text(), bundle.text(), self.broker.clock().now())
            .map_err(ReloadError::NotKept)?;
        let (revision, retired) = self.engine.install(bundle);
        let handles_revoked = self.broker.policies_changed(revision);
        // Only now: what the new policies refuse must not live on while the old ones are freed.
        drop(retired);
        Ok(Reloaded::Changed { revision, handles_revoked })
    }

    async fn report(&self, result: &Result<Reloaded, ReloadError>) {
        let record = match result {
            // A good set after a bad one is the one in force: whoever mended it wants to read that.
            Ok(Reloaded::Unchanged) => {
                tracing::info!("policies unchanged");
                match self.faulty.swap(false, Ordering::AcqRel) {
                    true => loaded(&self.broker, self.engine.revision()).with_detail("the faults are gone"),
                    false => return,
                }
            }
            Ok(Reloaded::Changed { revision, handles_revoked }) => {
                self.faulty.store(false, Ordering::Release);
                tracing::info!(revision = revision.digest_text(), handles_revoked, "policies reloaded");
                loaded(&self.broker, *revision)
                    .with_detail(&format!("{handles_revoked} live handles revoked"))
            }
            Err(error) => {
                self.faulty.store(true, Ordering::Release);
                let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, %source, "policies not reloaded");
                let now = self.broker.clock().now();
                AuditRecord::event(now, RecordKind::PolicyLoad, Reason::Failed).with_detail(&source)
            }
        };
        if let Err(error) = self.broker.note(record).await {
            tracing::error!(%error, "a change of policy is in force, but not written down");
        }
    }
}

/// The record of policies that came into force.
pub(crate) fn loaded(broker: &Broker, revision: Revision) -> AuditRecord {
    let record = AuditRecord::event(broker.clock().now(), RecordKind::PolicyLoad, Reason::Done);
    AuditRecord { revision: Some(revision), ..record }
}

const LOOK: Duration = Duration::from_secs(2);
