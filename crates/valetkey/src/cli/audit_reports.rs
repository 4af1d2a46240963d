//! The arguments of reports and reviewers' questions.

use clap::{Args, Subcommand, ValueEnum};

use super::{Connection, Format, OneFormat};

#[derive(Subcommand)]
pub(crate) enum ReportsCommand {
    /// Report what was used, by whom and how often, and what can be used now
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Count what was refused: to whom, for which tool, and why; the most frequent first
    #[command(after_help = "Example:\n  valetkey audit refusals --agent travel-bot --since 7d")]
    Refusals {
        /// Of this agent alone
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        #[command(flatten)]
        period: Period,
        /// How rows are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        connection: Connection,
    },
    /// List when an agent first used an item with a tool, the newest first
    #[command(after_help = "Example:\n  valetkey audit first-uses --since 7d")]
    FirstUses {
        #[command(flatten)]
        period: Period,
        /// How rows are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        connection: Connection,
    },
    /// List what could be used and is not: items that agents can access, and policies
    #[command(after_help = UNUSED_EXAMPLES)]
    Unused {
        /// Not used for so many days, today included
        #[arg(long, value_name = "COUNT", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=365))]
        days: u16,
        /// Of this agent alone; leaves the policies out
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// How rows are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show everything that one lease did, the oldest first
    #[command(after_help = "Example:\n  valetkey audit timeline vkl_0123456789abcdef")]
    Timeline {
        /// The lease's id, `vkl_` and 16 characters; records have it
        #[arg(value_name = "LEASE")]
        lease_id: String,
        /// How records are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show everything about one item: who can use it, who did, what was refused, the last records
    #[command(after_help = ITEM_EXAMPLES)]
    Item {
        /// Its name or id, `vault/item`, or a reference to it
        #[arg(value_name = "ITEM")]
        item: String,
        #[command(flatten)]
        period: Period,
        /// How it is printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OneFormat::Table)]
        format: OneFormat,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Args)]
pub(crate) struct ReportArgs {
    /// What it is about
    #[arg(value_enum, value_name = "KIND", default_value_t = ReportKind::Overview)]
    pub(crate) kind: ReportKind,
    /// Which; of a vault or an item the name or the id, of an item `vault/item` too
    #[arg(value_name = "NAME", required_if_eq_any = [("kind", "agent"), ("kind", "vault"), ("kind", "item"), ("kind", "tool")])]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) period: Period,
    /// How it is printed; JSON lines and CSV have the rows alone
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportKind {
    /// Everybody, agent by agent
    Overview,
    /// One agent: the counterpart of 1Password's report on a service account
    Agent,
    /// One vault: which items, by whom
    Vault,
    /// One item: by whom
    Item,
    /// One tool: which items, for whom
    Tool,
}

/// Whole days, UTC.
#[derive(Args)]
pub(crate) struct Period {
    /// The first day, such as 2026-11-01, or 30d for the last 30 days [default: a month before the last day]
    #[arg(long, value_name = "DAY", default_value = "", hide_default_value = true)]
    pub(crate) since: String,
    /// The last day, such as 2026-11-30 [default: today]
    #[arg(long, value_name = "DAY", default_value = "", hide_default_value = true)]
    pub(crate) until: String,
}

const REPORT_EXAMPLES: &str = "\
\"No Access\" stands beside what policy would no longer allow. What can be accessed is worked out from the policies \
in force and from what is known of the vaults already: no source is asked. JSON has everything.

Examples:
  valetkey audit report
  valetkey audit report agent travel-bot
  valetkey audit report vault Tutorial --since 2026-11-01 --until 2026-11-30 --format csv
  valetkey audit report item 'Tutorial/Travel Card' --since 7d";

const UNUSED_EXAMPLES: &str = "\
A permission that nobody uses is one to take away.

Examples:
  valetkey audit unused
  valetkey audit unused --days 30 --agent travel-bot --format csv";

const ITEM_EXAMPLES: &str = "\
Examples:
  valetkey audit item 'Travel Card'
  valetkey audit item 'op://Tutorial/Travel Card' --since 90d";
