//! Connecting to a broker, as whom the environment says.

use std::path::Path;

use valetkey_client::{Broker, Credentials, Retries, Token};
use zeroize::Zeroizing;

use crate::cli::{Connection, Shown};
use crate::failure::{Exit, Failure};

/// Connects.
pub(crate) async fn connect(connection: &Connection) -> Result<Broker, Failure> {
    let Connection { address, shown } = connection;
    let is_shown = shown.cert.is_some() || address.starts_with("unix:");
    let (credentials, has_token) = credentials(shown)?;
    if !has_token && !is_shown {
        return Err(Failure::new(
            Exit::Usage,
            "who are you? set `VALETKEY_TOKEN` or `VALETKEY_TOKEN_FILE` (`valetkey token create` makes a token), or \
             `VALETKEY_CERT` and `VALETKEY_KEY`",
        ));
    }
    // A person or a script sees at once what is wrong, and asks again.
    Ok(Broker::connect(address, credentials).await?.retries(Retries::none()))
}

/// Connects, for calls on behalf of the person whose token is in the file, where there is one.
pub(crate) async fn connect_for(connection: &Connection, person: Option<&Path>) -> Result<Broker, Failure> {
    let person = person.map(read_token).transpose()?;
    let broker = connect(connection).await?;
    Ok(match person {
        Some(person) => broker.on_behalf_of(person),
        None => broker,
    })
}

/// What is to be shown, and whether a token is among it. The token comes from `--token-file`, `VALETKEY_TOKEN` or the
/// file that `VALETKEY_TOKEN_FILE` names, in this order.
pub(crate) fn credentials(shown: &Shown) -> Result<(Credentials, bool), Failure> {
    let Shown { token_file, ca, cert, key } = shown;
    let token = match token_file {
        Some(file) => Some(read_token(file)?),
        None => from_environment()?,
    };
    let has_token = token.is_some();
    let mut credentials = token.map(Credentials::from).unwrap_or_default();
    if let Some(ca) = ca {
        credentials = credentials.ca(ca);
    }
    if let (Some(cert), Some(key)) = (cert, key) {
        credentials = credentials.certificate(cert, key);
    }
    Ok((credentials, has_token))
}

fn from_environment() -> Result<Option<Token>, Failure> {
    if let Ok(token) = std::env::var("VALETKEY_TOKEN") {
        return Ok(Some(Token::parse(token)?));
    }
    std::env::var_os("VALETKEY_TOKEN_FILE").map(|file| read_token(Path::new(&file))).transpose()
}

pub(crate) fn read_token(file: &Path) -> Result<Token, Failure> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        Failure::new(Exit::Usage, format!("the token file `{}` cannot be read: {error}", file.display()))
    })?;
    Ok(Token::parse(text.as_str())?)
}
