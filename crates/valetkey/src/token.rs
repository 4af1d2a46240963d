//! `valetkey token`: tokens and the lines of the configuration that know them.

use serde_json::json;
use valetkey_core::{Bearer, Name};
use valetkey_server::{TOKEN_PREFIX, TokenDigest};
use zeroize::Zeroizing;

use crate::cli::{OneFormat, TokenCommand, TokenOwner};
use crate::failure::{Exit, Failure};
use crate::output;

/// Runs it.
pub(crate) fn run(command: TokenCommand) -> Result<Exit, Failure> {
    match command {
        TokenCommand::Create { owner, format } => create(owner, format),
    }
}

fn create(owner: TokenOwner, format: OneFormat) -> Result<Exit, Failure> {
    let TokenOwner { agent, tool, person } = owner;
    let (kind, name) = [("agent", agent), ("tool", tool), ("person", person)]
        .into_iter()
        .find_map(|(kind, name)| Some((kind, name?)))
        .ok_or_else(|| Failure::new(Exit::Usage, "whose token? give one of --agent, --tool and --person"))?;
    let name = Name::parse(&name).map_err(|error| Failure::new(Exit::Usage, format!("`{name}` {error}")))?;
    let token = Bearer::random(TOKEN_PREFIX);
    let digest = TokenDigest::of(&token);
    let entry = format!("[[identity]]\n{kind} = \"{name}\"\ntoken = \"{digest}\"");
    match format {
        OneFormat::Table => {
            output::note("# put this into the broker's configuration:");
            output::note(&entry);
            output::note("# and give this to its bearer; it is shown only now:");
            output::line(&token.expose_secret())?;
        }
        OneFormat::Json => {
            let answer = json!({
                "identity": format!("{kind}:{name}"),
                "token": *token.expose_secret(),
                "digest": digest.to_string(),
                "configuration": entry,
            });
            output::line(&Zeroizing::new(answer.to_string()))?;
        }
    }
    Ok(Exit::Done)
}
