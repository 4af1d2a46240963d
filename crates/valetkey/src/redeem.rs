//! `valetkey redeem`: the tool's side.

use std::io::{BufRead, IsTerminal, Read};

use valetkey_client::Handle;
use zeroize::Zeroizing;

use crate::cli::RedeemArgs;
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output;

/// Runs it.
pub(crate) async fn run(args: RedeemArgs) -> Result<Exit, Failure> {
    let RedeemArgs { handle, destination, connection } = args;
    let handle = match handle.as_str() {
        "-" => from_stdin()?,
        handle => Handle::new(handle),
    };
    let broker = connect(&connection).await?;
    let value = broker.redeem_for(&handle, destination.as_deref().unwrap_or_default()).await?;
    output::value(value.expose_secret())?;
    Ok(Exit::Done)
}

/// One line: whoever pipes it in may keep the pipe open.
fn from_stdin() -> Result<Handle, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(usize::from(HANDLE_MAX)));
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        output::note("the handle, then Enter:");
    }
    stdin.take(HANDLE_MAX.into()).read_line(&mut text)?;
    match text.trim() {
        "" => Err(Failure::new(Exit::Usage, "no handle came on stdin")),
        handle => Ok(Handle::new(handle)),
    }
}

/// Far more than a handle has; the rest of what somebody pipes in is not read.
const HANDLE_MAX: u16 = 1024;
