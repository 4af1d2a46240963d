//! Certificates that change: new ones are in force for the next connection, bad ones change nothing, loudly.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use valetkey_core::{AuditRecord, Broker, Reason, RecordKind};

use super::material::Material;
use super::{CertificateSource, Current, Tls, TlsError};
use crate::watch::{settle, watch};

impl Tls {
    /// Follows the source of the certificates, for as long as it is polled. Exactly one task runs this.
    pub(crate) async fn follow(&self, broker: &Broker) {
        tokio::join!(self.follow_source(broker), self.warn_of_expiry());
    }

    async fn follow_source(&self, broker: &Broker) {
        match (&self.settings.source, &self.workload) {
            (CertificateSource::Files { certificate, key, client_ca }, _) => {
                self.follow_files(broker, certificate, key, client_ca.as_deref()).await;
            }
            (CertificateSource::Workload(_), Some(updates)) => {
                let mut updates = updates.subscribe();
                while let Some(update) = updates.next().await {
                    self.replace(broker, update).await;
                }
            }
            (CertificateSource::Workload(_), None) => {}
        }
    }

    /// Loads the files again whenever one of them is another than before: told by a watch on their folders, and
    /// found by looking now and then, because a watch does not see through every kind of link and mount.
    async fn follow_files(&self, broker: &Broker, certificate: &Path, key: &Path, client_ca: Option<&Path>) {
        let files = self.settings.source.files();
        let (changed, mut changes) = mpsc::channel(1);
        let watcher = watch(folders(&files), changed);
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the certificate files cannot be watched; they are looked at every 2 s");
        }
        let mut read = self.read.clone();
        loop {
            let now = fingerprints(&files);
            if now != read {
                // Before they are read: what changes meanwhile is another change.
                read = now;
                self.replace(broker, Material::read(certificate, key, client_ca)).await;
            }
            match tokio::time::timeout(LOOK, changes.recv()).await {
                Ok(Some(())) => settle(&mut changes).await,
                // There is no watch.
                Ok(None) => tokio::time::sleep(LOOK).await,
                Err(_) => {}
            }
        }
    }

    /// Puts new certificates in force if they are good; logs and records either.
    async fn replace(&self, broker: &Broker, material: Result<Material, TlsError>) {
        let built =
            material.and_then(|material| Current::new(material, &self.settings, self.protocol, &self.clock));
        let now = self.clock.now();
        let record = match built {
            Ok(current) => {
                let detail = format!("{}, to {}", current.own, current.own.end());
                tracing::info!(own = %current.own, expires = %current.own.end(), "TLS certificates replaced");
                self.current.send_replace(current);
                AuditRecord::event(now, RecordKind::TlsLoad, Reason::Done).with_detail(&detail)
            }
            Err(error) => {
                tracing::error!(%error, "TLS certificates not replaced; those before them stay in force");
                AuditRecord::event(now, RecordKind::TlsLoad, Reason::Failed).with_detail(&error.to_string())
            }
        };
        if let Err(error) = broker.note(record).await {
            tracing::error!(%error, "a change of certificates is not written down");
        }
    }

    async fn warn_of_expiry(&self) {
        loop {
            let Current { config: _, own } = self.current.borrow().clone();
            let now = self.clock.now();
            if !own.is_alive(now) {
                tracing::error!(%own, expired = %own.end(), "the broker's certificate has expired: nobody can connect");
            } else if own.nears_its_end(now) {
                tracing::warn!(%own, expires = %own.end(), "the broker's certificate nears its end; renew it");
            }
            tokio::time::sleep(WARN_AGAIN).await;
        }
    }
}

/// The folders of some files, each once.
fn folders(files: &[&Path]) -> Vec<PathBuf> {
    let mut folders: Vec<_> = files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
    folders.sort();
    folders.dedup();
    // A file without a folder is in the current one.
    folders.into_iter().map(|it| if it.as_os_str().is_empty() { ".".into() } else { it }).collect()
}

/// Device and inode, length, and when the content and the rest changed: another file, or another content.
pub(super) type Fingerprint = Option<[i128; 5]>;

/// Those of some files.
pub(super) fn fingerprints(files: &[&Path]) -> Vec<Fingerprint> {
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let of = |file: &&Path| {
        let it = std::fs::metadata(file).ok()?;
        let (written, changed) = (nanos(it.mtime(), it.mtime_nsec()), nanos(it.ctime(), it.ctime_nsec()));
        Some([it.dev().into(), it.ino().into(), it.len().into(), written, changed])
    };
    files.iter().map(of).collect()
}

const LOOK: Duration = Duration::from_secs(2);
const WARN_AGAIN: Duration = Duration::from_secs(60);
