//! The arguments of `valetkey audit find-value`.

use clap::Args;

use super::{Connection, Format};

#[derive(Args)]
pub(crate) struct FindValueArgs {
    /// Take what comes on stdin as it is, its last line end too
    #[arg(long)]
    pub(crate) exact: bool,
    /// How the records are printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

pub(super) const FIND_VALUE_EXAMPLES: &str = "\
The value comes on stdin and never as an argument; one line end after it does not count. The log has no \
values but keyed digests of those that were released, so it finds the very same value alone: of a secret \
that was rotated since, what it was then. Needs the policy actions findValue and readAudit.

Examples:
  op read op://Tutorial/Navan/password | valetkey audit find-value
  valetkey audit find-value --format csv < leaked.txt";

pub(super) const NEW_DIGEST_KEY_EXAMPLES: &str = "\
For `audit.digest_key`, where the key is to be kept apart from the database from the first day, or where the \
one before is lost: what was released under that can no longer be found.

Example:
  (umask 077; valetkey audit new-digest-key > /etc/credstore/valetkey.digest-key)";
