//! Opens the sources that the configuration names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use valetkey_core::Clock;
use valetkey_onepassword::{LoadOptions, VaultFile, VaultFileError};

use crate::config::{SourceConfig, SourceKind};

/// Why a source cannot be used.
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
    /// Not wired yet.
    #[error("only one source of kind `file` is wired so far")]
    Kind,
}

/// Opens them.
pub(crate) fn open(sources: &[SourceConfig], clock: Arc<dyn Clock>) -> Result<Arc<VaultFile>, SourceError> {
    let [SourceConfig { name: _, vaults: _, kind: SourceKind::File { file, open_to_others }, bounds: _ }] =
        sources
    else {
        return Err(SourceError::Kind);
    };
    let options = LoadOptions { open_to_others: *open_to_others };
    let loaded = VaultFile::load(file, options, clock);
    loaded.map(Arc::new).map_err(|error| SourceError::VaultFile { file: file.clone(), error })
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
