//! `valetkey read`: one value, as `op read` prints it.

use std::io::Write;

use crate::cli::shell::ReadArgs;
use crate::failure::{Exit, Failure};
use crate::shell::{hold, out_file, template};

/// Runs it.
pub(crate) async fn run(args: ReadArgs) -> Result<Exit, Failure> {
    let ReadArgs { reference, no_newline, out_file, file_mode, force, ask } = args;
    let reference = template::reference(&reference, &template::environment)
        .map_err(|error| Failure::new(Exit::Usage, error))?
        .unwrap_or(reference);
    if let Some(file) = &out_file {
        out_file::check(file, force)?;
    }
    let held = hold(&ask, std::slice::from_ref(&reference), "valetkey read").await?;
    let value = held.redeem(&reference).await;
    held.end().await;
    let value = value?;
    match out_file {
        Some(file) => out_file::write(&file, file_mode, force, value.expose_secret())?,
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(value.expose_secret())?;
            if !no_newline {
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
    }
    Ok(Exit::Done)
}
