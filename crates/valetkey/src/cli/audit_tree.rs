//! `audit verify`, `audit prove` and `audit checkpoint`.

use std::path::PathBuf;

use clap::Args;

use super::{Connection, OneFormat};

#[derive(Args)]
pub(crate) struct AuditVerifyArgs {
    #[command(flatten)]
    pub(crate) file: AuditFile,
    /// The log's public key, or a file with it [default: the one beside the database]
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// A file of checkpoints that was kept where the log is not
    #[arg(long, value_name = "FILE", conflicts_with = "proof")]
    pub(crate) checkpoints: Option<PathBuf>,
    /// How the verdict is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OneFormat::Table)]
    pub(crate) format: OneFormat,
}

/// What is verified.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct AuditFile {
    /// An audit database: of a live broker, of none, or a backup
    #[arg(long, value_name = "FILE")]
    pub(crate) database: Option<PathBuf>,
    /// An export of JSON lines, without a filter, from record 1 on or with its `.proof` beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    /// The proof of a record, from `audit prove`
    #[arg(long, value_name = "FILE")]
    pub(crate) proof: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct AuditProveArgs {
    /// The record's id, a number
    #[arg(value_name = "ID")]
    pub(crate) record_id: String,
    /// Ask an audit database, without a broker
    #[arg(long, value_name = "FILE")]
    pub(crate) database: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args)]
pub(crate) struct AuditCheckpointArgs {
    /// Print the log's public key in its place
    #[arg(long)]
    pub(crate) public_key: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}
