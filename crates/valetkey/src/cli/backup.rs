//! The arguments of `valetkey backup`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) source: BackupSource,
    /// The copy, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct BackupSource {
    /// Copy the audit database of this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Copy this audit database
    #[arg(long, value_name = "FILE")]
    pub(crate) database: Option<PathBuf>,
}
