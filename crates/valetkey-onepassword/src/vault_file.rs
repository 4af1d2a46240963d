//! The embedded vault: a JSON file of items, read once and held in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use valetkey_core::{
    Clock, Directory, FieldTarget, Grant, Inventory, KnownItem, Located, Provenance, ResolveError,
    ResolveFailure, Resolved, Resolver, SecretReference, Survey, Target,
};
use zeroize::Zeroizing;

use crate::catalogue::Catalogue;
use crate::full_item;
use crate::item::ItemValues;
use crate::json::{Faults, Node, VaultFault};
use crate::names::Names;

/// A source of secrets for development and tests, from a JSON file.
///
/// It never changes while it lives; to read the file again, load it again.
pub struct VaultFile {
    catalogue: Catalogue,
    /// By item id.
    values: HashMap<Arc<str>, ItemValues>,
    clock: Arc<dyn Clock>,
    source: Arc<str>,
}

/// How a vault file is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Accepts a file that others than its owner can read or write. For examples, whose values are no
    /// secrets.
    pub open_to_others: bool,
}

/// Why a vault file cannot be used. Never repeats a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultFileError {
    /// The system refused.
    #[error("cannot read the vault file `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner have access to it.
    #[error("the vault file `{path}` is open to others (mode {mode:03o}): `chmod 600` it")]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Over the bound.
    #[error("the vault file has more than 16 MiB")]
    TooLarge,
    /// No JSON.
    #[error("the vault file is no JSON: see line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON, but no vaults and items. All faults, up to a hundred.
    #[error("the vault file has {} faults: {}", .0.len(), listed(.0))]
    Faults(Vec<VaultFault>),
}

impl VaultFile {
    /// Loads a file. It must have at most 16 MiB and be closed to all but its owner.
    ///
    /// # Errors
    /// [`VaultFileError`] says why it cannot be used.
    pub fn load(path: &Path, options: LoadOptions, clock: Arc<dyn Clock>) -> Result<Self, VaultFileError> {
        let in_reading = |source| VaultFileError::Read { path: path.into(), source };
        // Ask the open file, not the path: the file behind a path can change in between.
        let file = File::open(path).map_err(in_reading)?;
        let metadata = file.metadata().map_err(in_reading)?;
        if let Some(mode) = access_of_others(&metadata).filter(|_| !options.open_to_others) {
            return Err(VaultFileError::OpenToOthers { path: path.into(), mode });
        }
        // Room for all of it from the start: a vector that grows leaves copies behind. A byte over the bound
        // is enough to see that it is too large.
        let room = usize::try_from(metadata.len().min(FILE_MAX).saturating_add(1)).unwrap_or_default();
        let mut json = Zeroizing::new(Vec::with_capacity(room));
        file.take(FILE_MAX + 1).read_to_end(&mut json).map_err(in_reading)?;
        Self::parse(json, clock)
    }

    /// Takes the JSON text itself, and wipes it.
    ///
    /// # Errors
    /// [`VaultFileError`] says why it cannot be used.
    pub fn from_json(json: Vec<u8>, clock: Arc<dyn Clock>) -> Result<Self, VaultFileError> {
        Self::parse(Zeroizing::new(json), clock)
    }

    fn parse(json: Zeroizing<Vec<u8>>, clock: Arc<dyn Clock>) -> Result<Self, VaultFileError> {
        if u64::try_from(json.len()).is_ok_and(|length| length > FILE_MAX) {
            return Err(VaultFileError::TooLarge);
        }
        // Only the place: the parser's message may repeat what it found there.
        let in_syntax =
            |error: serde_json::Error| VaultFileError::Syntax { line: error.line(), column: error.column() };
        let node: Node = serde_json::from_slice(&json).map_err(in_syntax)?;
        let mut faults = Faults::default();
        let content = full_item::content(&mut faults, node);
        if !faults.is_empty() {
            return Err(VaultFileError::Faults(faults.into_vec()));
        }
        let (outlines, values): (Vec<_>, Vec<_>) = content.items.into_iter().unzip();
        let ids: Vec<_> = outlines.iter().map(|outline| Arc::clone(&outline.id)).collect();
        let values = ids.into_iter().zip(values).collect();
        Ok(Self {
            catalogue: Catalogue::new(&content.vaults, outlines),
            values,
            clock,
            source: SOURCE.into(),
        })
    }

    /// The vaults, by id and by name.
    pub(crate) fn vaults(&self) -> &Names {
        self.catalogue.vaults()
    }

    fn fetch(&self, target: &FieldTarget) -> Result<Resolved, ResolveFailure> {
        let field = self.catalogue.field(target)?;
        let values = self.values.get(&target.item.id).ok_or(ResolveError::ItemNotFound)?;
        let read_time = self.clock.now();
        let value = values.give(field, target.facet, read_time)?;
        let source = Arc::clone(&self.source);
        Ok(Resolved { value, provenance: Provenance { source, item_version: values.version, read_time } })
    }
}

#[async_trait]
impl Directory for VaultFile {
    /// All there is.
    fn locate(&self, reference: &SecretReference) -> Located {
        Located { target: self.catalogue.locate(reference), gap: None }
    }

    async fn learn(&self, surveys: &[&Survey]) -> Vec<Result<(), ResolveFailure>> {
        surveys.iter().map(|_| Ok(())).collect()
    }

    /// All there is.
    fn inventory(&self) -> Inventory {
        let items = self
            .catalogue
            .stock()
            .flat_map(|(vault, _, items)| items.map(move |item| KnownItem { vault: vault.clone(), item }));
        Inventory { items: items.collect(), gaps: Vec::new() }
    }
}

#[async_trait]
impl Resolver for VaultFile {
    async fn resolve(&self, grants: &[&Grant]) -> Vec<Result<Resolved, ResolveFailure>> {
        let resolve = |grant: &&Grant| match &*grant.request().target {
            Target::Field(target) => self.fetch(target),
            Target::Unresolved { error, .. } => Err(error.clone().into()),
            Target::Unknown { failure, .. } => Err(failure.clone()),
        };
        grants.iter().map(resolve).collect()
    }
}

/// The permission bits of a file, where others than its owner have any.
#[cfg(unix)]
pub(crate) fn access_of_others(metadata: &std::fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Other systems have no such bits.
#[cfg(not(unix))]
pub(crate) fn access_of_others(_: &std::fs::Metadata) -> Option<u32> {
    None
}

fn listed(faults: &[VaultFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

const FILE_MAX: u64 = 16 << 20;
/// The source's name in outcomes.
const SOURCE: &str = "embedded";

#[cfg(test)]
mod tests;
