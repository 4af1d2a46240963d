//! The client's side: from an address to a broker that knows the caller.

use valetkey_client::{Step, StepResult, diagnose};

use crate::cli::Shown;
use crate::connection::credentials;
use crate::failure::{Exit, Failure};
use crate::output::{self, BAD, DIM, GOOD};

/// Tries each step and prints what came of it.
pub(crate) async fn run(address: &str, shown: &Shown) -> Result<Exit, Failure> {
    let (credentials, _) = credentials(shown)?;
    let mut exit = Exit::Done;
    for Step { name, result } in diagnose(address, credentials).await {
        match result {
            StepResult::Good(what) => output::line(&format!("{GOOD}ok  {GOOD:#} {name:<12} {what}"))?,
            StepResult::Note(what) => output::line(&format!("{DIM}note{DIM:#} {name:<12} {what}"))?,
            StepResult::Bad { what, advice } => {
                output::line(&format!("{BAD}fail{BAD:#} {name:<12} {what}"))?;
                output::line(&format!("     {:<12} {advice}", ""))?;
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}
