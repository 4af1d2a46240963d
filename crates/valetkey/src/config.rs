//! `valetkey config`: what a configuration says, without a broker.

use std::path::Path;

use valetkey_server::Config;

use crate::cli::ConfigCommand;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::policy::invalid;

/// Runs it.
pub(crate) fn run(command: ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check { file } => check(&file),
    }
}

fn check(file: &Path) -> Result<Exit, Failure> {
    let config = Config::load(file).map_err(|error| Failure::new(Exit::Invalid, error))?;
    valetkey_policy::check(&config.policies).map_err(invalid)?;
    output::line(&format!(
        "{} is valid: it listens on {} and knows {} identities",
        file.display(),
        config.listen,
        config.identities.len()
    ))?;
    Ok(Exit::Done)
}
