//! `valetkey audit find-value`: to whom a value was ever released.

use std::io::{IsTerminal, Read};

use valetkey_client::SecretValue;
use zeroize::Zeroizing;

use crate::audit;
use crate::cli::{FindValueArgs, Format};
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output;

/// The columns of the table.
const SHOWN: [&str; 8] =
    ["record_id", "time", "caller", "agent", "on_behalf_of", "vault_name", "item_name", "policy_ids"];

/// Runs it.
pub(crate) async fn run(args: FindValueArgs) -> Result<Exit, Failure> {
    let FindValueArgs { exact, format, connection } = args;
    let value = from_stdin(exact)?;
    let found = connect(&connection).await?.find_value(value).await?;
    let row = if format == Format::Table { audit::shown } else { audit::cells };
    let rows: Vec<_> = found.records.into_iter().map(row).collect();
    output::rows(format, &SHOWN, &rows)?;
    if rows.is_empty() {
        output::note(&format!(
            "no handle for this value was redeemed, as far as record {} and since the broker has a digest key; retired records are \
             not searched; {ASIDE}",
            found.seen_record_id
        ));
    }
    if found.truncated {
        output::note("there are more: these are the newest");
    }
    Ok(Exit::Done)
}

/// The value, without the line end that `op read` and `echo` put after it.
fn from_stdin(exact: bool) -> Result<SecretValue, Failure> {
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        // It would stand on the screen, and who types cannot say where it ends.
        let message = "the value comes on stdin, from a file or a pipe: `valetkey audit find-value < FILE`";
        return Err(Failure::new(Exit::Usage, message));
    }
    // Room for all of it: what grows leaves copies behind.
    let mut value = Zeroizing::new(Vec::with_capacity(VALUE_MAX + 2));
    stdin.take(VALUE_MAX as u64 + 2).read_to_end(&mut value)?;
    if !exact && value.last() == Some(&b'\n') {
        value.pop();
    }
    match value.len() {
        0 => Err(Failure::new(Exit::Usage, "no value came on stdin")),
        1..=VALUE_MAX => Ok(SecretValue::new(std::mem::take(&mut *value))),
        _ => Err(Failure::new(Exit::Usage, format!("a value has at most {VALUE_MAX} bytes"))),
    }
}

const ASIDE: &str =
    "another version of a secret is another value, and a code of a one-time password is never found";
const VALUE_MAX: usize = 64 * 1024;
