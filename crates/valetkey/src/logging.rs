//! The broker's log, on stderr.

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::failure::{Exit, Failure};

/// Starts it. `VALETKEY_LOG` says what is logged, such as `debug` or `valetkey_server=debug,warn`.
pub(crate) fn start(format: LogFormat) -> Result<(), Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("`VALETKEY_LOG` does not say what to log: {error}"))
    };
    let directives = match std::env::var("VALETKEY_LOG") {
        Ok(directives) => directives,
        Err(std::env::VarError::NotPresent) => "info".into(),
        Err(error) => return Err(wrong(&error)),
    };
    let filter = EnvFilter::try_new(directives).map_err(|error| wrong(&error))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(coloured()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(Exit::Failed, error))
}

/// The log follows the same rules as everything else that is printed.
fn coloured() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}
