//! Connecting to a broker, as whom the environment says.

use std::path::Path;

use valetkey_client::{Broker, Token};
use zeroize::Zeroizing;

use crate::cli::Connection;
use crate::failure::{Exit, Failure};

/// Connects. The token comes from `--token-file`, `VALETKEY_TOKEN` or the file that
/// `VALETKEY_TOKEN_FILE` names, in this order.
pub(crate) async fn connect(connection: &Connection) -> Result<Broker, Failure> {
    let Connection { address, token_file } = connection;
    let token = match token_file {
        Some(file) => read(file)?,
        None => from_environment()?,
    };
    Ok(Broker::connect(address, token).await?)
}

fn from_environment() -> Result<Token, Failure> {
    if let Ok(token) = std::env::var("VALETKEY_TOKEN") {
        return Ok(Token::parse(token)?);
    }
    match std::env::var_os("VALETKEY_TOKEN_FILE") {
        Some(file) => read(Path::new(&file)),
        None => Err(Failure::new(
            Exit::Usage,
            "who are you? set `VALETKEY_TOKEN` or `VALETKEY_TOKEN_FILE`; `valetkey token create` makes a token",
        )),
    }
}

fn read(file: &Path) -> Result<Token, Failure> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        Failure::new(Exit::Usage, format!("the token file `{}` cannot be read: {error}", file.display()))
    })?;
    Ok(Token::parse(text.as_str())?)
}
