//! The arguments of `valetkey audit export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Connection, Filter};

#[derive(Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// The form of the lines
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = ExportFormat::Jsonl)]
    pub(crate) format: ExportFormat,
    /// The file to write, which must be new; without this, stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Go on with the file after its last whole line, with the same format and filter; make it where it is missing
    #[arg(long, requires = "to")]
    pub(crate) resume: bool,
    /// Read this audit database or copy of one, without a broker, and so without a record of it
    #[arg(long, value_name = "FILE")]
    pub(crate) database: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON object a line, in canonical form
    Jsonl,
    /// Comma-separated values, with a header
    Csv,
    /// One OCSF API Activity event a line
    Ocsf,
}
