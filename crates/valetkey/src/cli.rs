//! The command line: arguments and their help.

mod approval;
mod audit_export;
mod audit_reports;
mod audit_tree;
mod audit_value;
mod backup;
pub(crate) mod events;
mod examples;
pub(crate) mod shell;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::approval::APPROVAL_EXAMPLE;
pub(crate) use self::approval::{ApprovalCommand, ChoiceArgs};
pub(crate) use self::audit_export::{ExportArgs, ExportFormat};
pub(crate) use self::audit_reports::{Period, ReportArgs, ReportKind, ReportsCommand};
pub(crate) use self::audit_tree::{AuditCheckpointArgs, AuditProveArgs, AuditVerifyArgs};
pub(crate) use self::audit_value::FindValueArgs;
use self::audit_value::{FIND_VALUE_EXAMPLES, NEW_DIGEST_KEY_EXAMPLES};
pub(crate) use self::backup::{BackupArgs, BackupSource};
use self::events::TokenUse;
use self::examples::{
    ACQUIRE_EXAMPLES, AUDIT_CHECKPOINT_EXAMPLES, AUDIT_PROVE_EXAMPLES, AUDIT_VERIFY_EXAMPLES,
    BACKUP_EXAMPLES, CHECK_EXAMPLES, DEMO_EXAMPLES, DEV_CA_EXAMPLES, DOCTOR_EXAMPLES, ENVIRONMENT,
    EXPORT_EXAMPLES, INJECT_EXAMPLES, INSTALL_EXAMPLES, MCP_EXAMPLES, QUERY_EXAMPLES, READ_EXAMPLES,
    REDEEM_EXAMPLES, RUN_EXAMPLES, SERVE_EXAMPLES, SHOW_EXAMPLES, TOKEN_EXAMPLES, WATCH_EXAMPLES,
};

/// Gives AI agents valet keys to a team's 1Password vaults: handles in place of secrets.
#[derive(Parser)]
#[command(name = "valetkey", version, max_term_width = 100, after_help = ENVIRONMENT)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Play the travel story against a broker of its own; needs nothing, leaves nothing
    #[command(after_help = DEMO_EXAMPLES)]
    Demo,
    /// Run the broker
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Hold a lease and print its handles as they come (an agent's side)
    #[command(after_help = ACQUIRE_EXAMPLES)]
    Acquire(AcquireArgs),
    /// Print the value behind a handle (a tool's side)
    #[command(after_help = REDEEM_EXAMPLES)]
    Redeem(RedeemArgs),
    /// Print the value of a reference, as `op read` does
    #[command(after_help = READ_EXAMPLES)]
    Read(shell::ReadArgs),
    /// Fill the references of a template, as `op inject` does
    #[command(after_help = INJECT_EXAMPLES)]
    Inject(shell::InjectArgs),
    /// Run a command with values in its environment, concealed in its output, as `op run` does
    #[command(after_help = RUN_EXAMPLES)]
    Run(shell::RunArgs),
    /// Serve the Model Context Protocol over stdio: handles and explanations for a model, never values
    #[command(after_help = MCP_EXAMPLES)]
    Mcp(McpArgs),
    /// Ask whether a lease would be granted; recorded, but nothing is fetched
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Show what the broker is doing, and what is left of its sources' quotas (an operator's side)
    #[command(after_help = "Examples:\n  valetkey status\n  valetkey status --format json")]
    Status(StatusArgs),
    /// Read the audit log (a reviewer's side)
    #[command(subcommand, after_help = "Example:\n  valetkey audit query decision:deny")]
    Audit(AuditCommand),
    /// Check, test and show policies; needs no broker
    #[command(subcommand, after_help = "Example:\n  valetkey policy check policies/")]
    Policy(PolicyCommand),
    /// Make, list and revoke tokens (an operator's side)
    #[command(subcommand, after_help = "Example:\n  valetkey token create --agent travel-bot")]
    Token(TokenCommand),
    /// See what waits for approval, and approve or reject it (an approver's side)
    #[command(subcommand, after_help = APPROVAL_EXAMPLE)]
    Approval(ApprovalCommand),
    /// Copy the audit database, also while the broker serves; needs no broker
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup(BackupArgs),
    /// Make certificates for a try-out of mutual TLS; needs no broker
    #[command(after_help = DEV_CA_EXAMPLES)]
    DevCa(DevCaArgs),
    /// Check configurations; needs no broker
    #[command(subcommand, after_help = "Example:\n  valetkey config check valetkey.toml")]
    Config(ConfigCommand),
    /// Look at a configuration and all it needs, or at the way to a broker, and say what to do
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Install what a 1Password source needs; needs no broker
    #[command(subcommand, after_help = "Example:\n  valetkey onepassword install")]
    Onepassword(OnepasswordCommand),
}

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// The broker's configuration
    #[arg(long, value_name = "FILE", required_unless_present = "dev", conflicts_with = "dev")]
    pub(crate) config: Option<PathBuf>,
    /// Make the audit database where it is missing; without this a missing one is an error
    #[arg(long, conflicts_with = "dev")]
    pub(crate) create_database: bool,
    /// Run a throw-away broker with the demo's vault, policies and identities
    #[arg(long)]
    pub(crate) dev: bool,
    /// Where the throw-away broker listens; loopback only, port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0", conflicts_with = "config")]
    pub(crate) listen: SocketAddr,
    /// How the log is written to stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Args)]
pub(crate) struct AcquireArgs {
    /// The program that will use the secrets, and alone can redeem the handles
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: String,
    /// The reason, for reviewers; never part of a decision
    #[arg(long, value_name = "TEXT")]
    pub(crate) purpose: String,
    /// How long each handle lives before it is renewed, such as 90s or 5m [default: the broker's]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Take what is allowed where some references are refused, instead of all or nothing
    #[arg(long)]
    pub(crate) partial: bool,
    /// The agent's own name for its run; policies may look at it
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// The host that the secrets will be sent to; policies may look at it
    #[arg(long, value_name = "HOST")]
    pub(crate) destination: Option<String>,
    /// A file with the signed token of the person that the agent acts for; policies may look at who that is
    #[arg(long, value_name = "FILE")]
    pub(crate) on_behalf_of: Option<PathBuf>,
    /// How events are printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = StreamFormat::Table)]
    pub(crate) format: StreamFormat,
    /// Secret references.
    #[arg(
        required = true,
        value_name = "REFERENCE",
        help = "Secret references, op://<vault>/<item>[/<section>]/<field>"
    )]
    pub(crate) references: Vec<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args)]
pub(crate) struct RedeemArgs {
    /// The handle; `-` reads it from stdin, because other users of the machine can see arguments
    #[arg(default_value = "-")]
    pub(crate) handle: String,
    /// The host that the value will be sent to; policies may look at it
    #[arg(long, value_name = "HOST")]
    pub(crate) destination: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args)]
pub(crate) struct McpArgs {
    /// The agent's own name for its run; policies may look at it
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// A file with the signed token of the person that the agent acts for
    #[arg(long, value_name = "FILE")]
    pub(crate) on_behalf_of: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The program that would use the secret
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: String,
    /// A secret reference.
    #[arg(help = "A secret reference, op://<vault>/<item>[/<section>]/<field>")]
    pub(crate) reference: String,
    /// How long the handle should live, such as 90s or 5m [default: the broker's]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// The agent's own name for its run
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// The host that the secret would be sent to
    #[arg(long, value_name = "HOST")]
    pub(crate) destination: Option<String>,
    /// A file with the signed token of the person that the agent would act for
    #[arg(long, value_name = "FILE")]
    pub(crate) on_behalf_of: Option<PathBuf>,
    /// How the answer is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// How it is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OneFormat::Table)]
    pub(crate) format: OneFormat,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// List the records that match a filter, newest first
    #[command(after_help = QUERY_EXAMPLES)]
    Query {
        #[command(flatten)]
        filter: Filter,
        /// How many records at most
        #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// How records are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show all of one record
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The record's id, a number
        #[arg(value_name = "ID")]
        record_id: String,
        /// How the record is printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OneFormat::Table)]
        format: OneFormat,
        #[command(flatten)]
        connection: Connection,
    },
    /// Print records as they come, until interrupted
    #[command(after_help = WATCH_EXAMPLES)]
    Watch {
        #[command(flatten)]
        filter: Filter,
        /// The record to begin after; 0 begins with the first of the log [default: the newest]
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        after: String,
        /// How records are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = StreamFormat::Table)]
        format: StreamFormat,
        #[command(flatten)]
        connection: Connection,
    },
    #[command(flatten)]
    Reports(ReportsCommand),
    /// Write the records that match as the lines of a file, oldest first
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Say to whom a value was ever released: who redeemed a handle for it, when, and under which policy
    #[command(after_help = FIND_VALUE_EXAMPLES)]
    FindValue(FindValueArgs),
    /// Print a fresh key for digests of values; needs no broker
    #[command(after_help = NEW_DIGEST_KEY_EXAMPLES)]
    NewDigestKey,
    /// Check that the log is what was signed, and name what is not; needs no broker
    #[command(after_help = AUDIT_VERIFY_EXAMPLES)]
    Verify(AuditVerifyArgs),
    /// Prove a record to whoever has the log's public key
    #[command(after_help = AUDIT_PROVE_EXAMPLES)]
    Prove(AuditProveArgs),
    /// Print the newest checkpoint: what `verify` compares a log with, kept where the log is not
    #[command(after_help = AUDIT_CHECKPOINT_EXAMPLES)]
    Checkpoint(AuditCheckpointArgs),
}

/// Which records. Two arguments, because one that took every word that begins with `-` would take the options
/// after it too.
#[derive(Args)]
pub(crate) struct Filter {
    /// Terms that must all hold, such as `agent:travel-bot decision:deny -tool:web.search`
    #[arg(default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    filter: String,
    /// More terms; those that begin with `-` come first, in quotes with others, or after `--`
    #[arg(value_name = "TERM")]
    more: Vec<String>,
}

impl Filter {
    /// All terms, as the broker takes them.
    pub(crate) fn text(&self) -> String {
        let Self { filter, more } = self;
        std::iter::once(filter).chain(more).map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check schema, policies and entities, and name every fault
    #[command(after_help = "Example:\n  valetkey policy check policies/")]
    Check {
        /// The policy directory
        #[arg(value_name = "DIR", default_value = "policies")]
        directory: PathBuf,
    },
    /// Run the tests of a policy directory
    #[command(after_help = "Example:\n  valetkey policy test policies/ --format jsonl")]
    Test {
        /// The policy directory
        #[arg(value_name = "DIR", default_value = "policies")]
        directory: PathBuf,
        /// How results are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
    },
    /// Print the policies of a revision that an audit record names, as the audit database keeps them; needs no broker
    #[command(after_help = "Example:\n  valetkey policy show 0f3a91c20d58e94b --database audit.db")]
    Show {
        /// The revision, 16 hexadecimal digits
        #[arg(value_name = "REVISION")]
        revision: String,
        /// The audit database, or a copy of it
        #[arg(long, value_name = "FILE")]
        database: PathBuf,
    },
    /// Show who may do what, for the names in the directory's matrix.json
    #[command(after_help = "Example:\n  valetkey policy matrix policies/ > policies/matrix.txt")]
    Matrix {
        /// The policy directory
        #[arg(value_name = "DIR", default_value = "policies")]
        directory: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token: it goes to stdout, once, and what is known of it to stderr
    #[command(after_help = TOKEN_EXAMPLES)]
    Create {
        #[command(flatten)]
        owner: TokenOwner,
        /// How long it counts, such as 30d or 12h; 60s to 365d [default: 90d]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
        /// Add it to this configuration, without a broker: for the first person, and for try-outs
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        purpose: TokenUse,
        /// How they are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OneFormat::Table)]
        format: OneFormat,
        #[command(flatten)]
        connection: Connection,
    },
    /// List the tokens that `create` made, the newest first, also those that are over; not those of the configuration
    #[command(after_help = "Example:\n  valetkey token list --format csv")]
    List {
        /// How many tokens at most
        #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// How tokens are printed
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        connection: Connection,
    },
    /// Revoke a token: its leases end, and its handles are dead, when this returns
    #[command(after_help = "Example:\n  valetkey token revoke vkt_0123456789abcdef")]
    Revoke {
        /// The token's id, `vkt_` or `vke_` and 16 characters
        #[arg(value_name = "ID")]
        token_id: String,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TokenOwner {
    /// Make it an agent's
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Make it a tool's
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Option<String>,
    /// Make it a person's
    #[arg(long, value_name = "NAME")]
    pub(crate) person: Option<String>,
}

#[derive(Args)]
pub(crate) struct DevCaArgs {
    /// The folder to make them in; a new one, or empty
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The trust domain of the SPIFFE ids
    #[arg(long, value_name = "DOMAIN", default_value = "valetkey.test")]
    pub(crate) trust_domain: String,
    /// The agent
    #[arg(long, value_name = "NAME", default_value = "travel-bot")]
    pub(crate) agent: String,
    /// The tool
    #[arg(long, value_name = "NAME", default_value = "navan.book_flight")]
    pub(crate) tool: String,
    /// The person
    #[arg(long, value_name = "NAME", default_value = "ana")]
    pub(crate) person: String,
    /// Another name or address of the broker's machine, beside localhost
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration, its policies and its vault file, and name every fault
    #[command(after_help = "Example:\n  valetkey config check /etc/valetkey/valetkey.toml")]
    Check {
        /// The configuration
        file: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// The broker's configuration; without one, only what a 1Password source could use is looked for
    #[arg(long, value_name = "FILE", conflicts_with = "connect")]
    pub(crate) config: Option<PathBuf>,
    /// A broker to reach, as a client: which step on the way fails?
    #[arg(long, value_name = "URL")]
    pub(crate) connect: Option<String>,
    /// How findings are printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table, conflicts_with = "connect")]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Subcommand)]
pub(crate) enum OnepasswordCommand {
    /// Fetch the library of 1Password's SDK with pip, check it against the known releases, put it in place
    #[command(after_help = INSTALL_EXAMPLES)]
    Install(InstallArgs),
}

#[derive(Args)]
pub(crate) struct InstallArgs {
    /// The folder that the library is put into [default: one of this user's, or /var/lib/valetkey for root]
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// The version of the package `onepassword-sdk` [default: the newest that is known]
    #[arg(long = "version", value_name = "VERSION")]
    pub(crate) release: Option<String>,
    /// A wheel of the package that is here already, instead of fetching one
    #[arg(long, value_name = "FILE")]
    pub(crate) offline_wheel: Option<PathBuf>,
}

/// Which broker, and as whom.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The broker's address: https://host:port, http:// on this machine, or unix:/path
    #[arg(
        long,
        value_name = "URL",
        env = "VALETKEY_ADDRESS",
        hide_env_values = true,
        default_value = "http://127.0.0.1:7447"
    )]
    pub(crate) address: String,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// What is shown to the broker, and whom it is shown to.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Shown {
    /// A file with the token [default: $VALETKEY_TOKEN, or the file $VALETKEY_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The authority of the broker's certificate, in PEM form; https trusts nobody else
    #[arg(long, value_name = "FILE", env = "VALETKEY_CA", hide_env_values = true)]
    pub(crate) ca: Option<PathBuf>,
    /// A client certificate, in PEM form
    #[arg(long, value_name = "FILE", env = "VALETKEY_CERT", hide_env_values = true, requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, in PEM form
    #[arg(long, value_name = "FILE", env = "VALETKEY_KEY", hide_env_values = true, requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

/// How many rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned text
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values
    Csv,
}

/// How one thing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OneFormat {
    /// Aligned text
    Table,
    /// One JSON object
    Json,
}

/// How rows are printed as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamFormat {
    /// Text in columns
    Table,
    /// One JSON object a line
    Jsonl,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// `90s`, `5m`, `1h`, `30d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a whole number of s, m, h or d, such as `90s`".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "s", "5", "-1s", "1.5m", "5ä", "99999999999999999h", "5 s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
