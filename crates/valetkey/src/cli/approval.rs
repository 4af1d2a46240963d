//! The arguments of `valetkey approval`.

use clap::{Args, Subcommand};

use super::{Connection, Format, OneFormat};

#[derive(Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List what waits and is yours to decide, the oldest first
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// How many at most
        #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// How they are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        connection: Connection,
    },
    /// Approve what waits under an id: the agent is granted it when it asks again, for a while
    #[command(after_help = APPROVE_EXAMPLES)]
    Approve(ChoiceArgs),
    /// Reject what waits under an id, or take an approval back: it is refused for a while, and asks nobody
    #[command(after_help = "Example:\n  valetkey approval reject vkl_0123456789abcdef")]
    Reject(ChoiceArgs),
}

#[derive(Args)]
pub(crate) struct ChoiceArgs {
    /// The id that the agent was told, and that `list` shows: `vkl_` and 16 characters
    #[arg(value_name = "ID")]
    pub(crate) approval_id: String,
    /// How what was decided is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OneFormat::Table)]
    pub(crate) format: OneFormat,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

pub(super) const APPROVAL_EXAMPLE: &str = "\
Example:
  valetkey approval list";

const LIST_EXAMPLES: &str = "\
Agent, person and claims are proved. Purpose, destination and session are what the agent says, and nobody \
has checked them. What waits is forgotten after 15 minutes unless configured, and when the broker stops.

Examples:
  valetkey approval list
  valetkey approval list --format jsonl";

const APPROVE_EXAMPLES: &str = "\
Needs the policy action `approve`, and every group that the policies ask for; not for what was asked on your \
own behalf. Policy is asked again each time: what it forbids stays forbidden.

Examples:
  valetkey approval approve vkl_0123456789abcdef
  valetkey approval approve vkl_0123456789abcdef --format json";
