//! `valetkey inject`: a template with its references replaced by values, as `op inject` does it.

use std::collections::HashMap;
use std::io::Write;

use zeroize::Zeroizing;

use crate::cli::shell::InjectArgs;
use crate::failure::{Exit, Failure};
use crate::shell::template::{self, Part};
use crate::shell::{add, hold, out_file};

/// Runs it.
pub(crate) async fn run(args: InjectArgs) -> Result<Exit, Failure> {
    let InjectArgs { in_file, out_file, file_mode, force, ask } = args;
    if let Some(file) = &out_file {
        out_file::check(file, force)?;
    }
    let text = out_file::read_text(in_file.as_deref(), TEMPLATE_BYTES_MAX)?;
    let parts = template::parse(&text, &template::environment).map_err(|error| {
        let file = in_file.as_deref().map_or("stdin".to_owned(), |file| file.display().to_string());
        Failure::new(Exit::Usage, format!("{file}: {error}"))
    })?;
    let mut references = Vec::new();
    for part in &parts {
        if let Part::Reference(reference) = part {
            add(&mut references, reference);
        }
    }
    let mut values = HashMap::new();
    if !references.is_empty() {
        let held = hold(&ask, &references, "valetkey inject").await?;
        for reference in &references {
            values.insert(reference.as_str(), held.redeem(reference).await?);
        }
        held.end().await;
    }
    let mut result = Zeroizing::new(Vec::new());
    for part in &parts {
        match part {
            Part::Text(text) => result.extend_from_slice(text.as_bytes()),
            Part::Reference(reference) => {
                let value = values.get(reference.as_str()).map(|value| value.expose_secret());
                result.extend_from_slice(value.unwrap_or_default());
            }
        }
        if result.len() > RESULT_BYTES_MAX {
            let message = format!("the result has more than {RESULT_BYTES_MAX} bytes");
            return Err(Failure::new(Exit::Failed, message));
        }
    }
    match out_file {
        Some(file) => out_file::write(&file, file_mode, force, &result)?,
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(&result)?;
            out.flush()?;
        }
    }
    Ok(Exit::Done)
}

const TEMPLATE_BYTES_MAX: u64 = 16 << 20;
/// A template can name a long value very often.
const RESULT_BYTES_MAX: usize = 64 << 20;
