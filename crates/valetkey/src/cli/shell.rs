//! The arguments of `read`, `inject` and `run`: those of `op`, and whom and what for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Connection, duration};
use crate::shell::out_file::mode;

/// For which tool and why.
#[derive(Args)]
#[command(next_help_heading = "Lease")]
pub(crate) struct AskArgs {
    /// The program that will use the secrets
    #[arg(long, value_name = "NAME", env = "VALETKEY_TOOL", hide_env_values = true)]
    pub(crate) tool: String,
    /// The reason, for reviewers; never part of a decision [default: the command]
    #[arg(long, value_name = "TEXT", env = "VALETKEY_PURPOSE", hide_env_values = true)]
    pub(crate) purpose: Option<String>,
    /// How long each handle lives, such as 90s or 5m [default: the broker's]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// The agent's own name for its run; policies may look at it
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// The host that the secrets will be sent to; policies may look at it
    #[arg(long, value_name = "HOST")]
    pub(crate) destination: Option<String>,
    /// A file with the signed token of the person that the agent acts for
    #[arg(long, value_name = "FILE")]
    pub(crate) on_behalf_of: Option<PathBuf>,
    /// A file with the tool's token, where the tool redeems and not the agent [default: $VALETKEY_TOOL_TOKEN, or the
    /// file $VALETKEY_TOOL_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) tool_token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args)]
pub(crate) struct ReadArgs {
    /// The secret reference.
    #[arg(value_name = "REFERENCE", help = "The secret reference, op://<vault>/<item>[/<section>]/<field>")]
    pub(crate) reference: String,
    /// Print no line end after the value
    #[arg(short = 'n', long)]
    pub(crate) no_newline: bool,
    /// Write the value to a file instead
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) out_file: Option<PathBuf>,
    /// Who can open that file
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode)]
    pub(crate) file_mode: u32,
    /// Write over a file that is there already
    #[arg(short = 'f', long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Args)]
pub(crate) struct InjectArgs {
    /// The template [default: stdin]
    #[arg(short = 'i', long, value_name = "FILE")]
    pub(crate) in_file: Option<PathBuf>,
    /// Where the result goes [default: stdout]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) out_file: Option<PathBuf>,
    /// Who can open that file
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode)]
    pub(crate) file_mode: u32,
    /// Write over a file that is there already
    #[arg(short = 'f', long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// A file of KEY=VALUE lines with references; can be given several times, the last one counts
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Do not conceal values in what the command prints; it keeps the terminal then
    #[arg(long, env = "VALETKEY_RUN_NO_MASKING", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_masking: bool,
    /// Put handles in place of values, for programs whose requests pass a proxy that redeems them
    #[arg(long)]
    pub(crate) handles: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// The command, after `--`
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
