//! How the story is told, and how it stops where it goes wrong.

use valetkey_client::CallError;

use crate::failure::{Exit, Failure};
use crate::output::{self, BAD, BOLD, DIM, GOOD};

/// Opens an act.
pub(super) fn act(title: &str) -> Result<(), Failure> {
    Ok(output::line(&format!("\n{BOLD}{title}{BOLD:#}"))?)
}

/// Explains.
pub(super) fn tell(text: &str) -> Result<(), Failure> {
    Ok(output::line(text)?)
}

/// Shows something that worked.
pub(super) fn works(text: &str) -> Result<(), Failure> {
    Ok(output::line(&format!("  {GOOD}ok{GOOD:#}       {text}"))?)
}

/// Shows something that was refused, as it must be.
pub(super) fn refused(text: &str) -> Result<(), Failure> {
    Ok(output::line(&format!("  {BAD}refused{BAD:#}  {text}"))?)
}

/// Shows what belongs to the line before.
pub(super) fn aside(text: &str) -> Result<(), Failure> {
    Ok(output::line(&format!("           {DIM}{text}{DIM:#}"))?)
}

/// Ends the story well.
pub(super) fn done(text: &str) -> Result<(), Failure> {
    Ok(output::line(&format!("\n{GOOD}{text}{GOOD:#}"))?)
}

/// The story went otherwise.
pub(super) fn unexpected(expected: &str, came: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the story went otherwise: expected {expected}, came {came}"))
}

/// The story goes on only if `came` is what it says.
pub(super) fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: T,
    came: T,
) -> Result<(), Failure> {
    if expected == came {
        return Ok(());
    }
    Err(unexpected(&format!("{what} {expected:?}"), &format!("{came:?}")))
}

/// The call must have worked.
pub(super) fn worked<T>(what: &str, call: Result<T, CallError>) -> Result<T, Failure> {
    call.map_err(|error| unexpected(what, &format!("`{error}`")))
}

/// The call must have been refused with this reason.
pub(super) fn must_refuse<T>(
    what: &str,
    reason: &str,
    call: Result<T, CallError>,
) -> Result<CallError, Failure> {
    match call {
        Ok(_) => Err(unexpected(&format!("{reason} for {what}"), "what was asked for")),
        Err(error) if error.reason() == reason => Ok(error),
        Err(error) => Err(unexpected(&format!("{reason} for {what}"), &format!("`{error}`"))),
    }
}
