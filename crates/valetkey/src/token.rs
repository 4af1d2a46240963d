//! `valetkey token`: tokens through a broker, and the first ones without.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use valetkey_client::{Broker, KnownToken};
use valetkey_core::{Bearer, Identity};
use valetkey_server::{TOKEN_PREFIX, TokenDigest};
use zeroize::Zeroizing;

use crate::audit::moment_to_second;
use crate::cli::events::TokenUse;
use crate::cli::{OneFormat, TokenCommand, TokenOwner};
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, Cell};

/// Runs it.
pub(crate) async fn run(command: TokenCommand) -> Result<Exit, Failure> {
    match command {
        TokenCommand::Create { owner, ttl, config, purpose, format, connection } => {
            let identity = identity(owner)?;
            match config {
                Some(file) => add_to_configuration(&file, &identity, ttl.unwrap_or(TTL_USUAL), format)?,
                None => create(&connect(&connection).await?, &identity, ttl, purpose, format).await?,
            }
        }
        TokenCommand::List { limit, format, connection } => {
            let tokens = list(&connect(&connection).await?, limit).await?;
            let rows: Vec<_> = tokens.into_iter().map(cells).collect();
            output::rows(format, &SHOWN, &rows)?;
        }
        TokenCommand::Revoke { token_id, connection } => {
            let revoked = connect(&connection).await?.revoke_token(&token_id).await?;
            let leases = usize::try_from(revoked.leases_ended).unwrap_or(usize::MAX);
            output::note(&format!(
                "`{token_id}` is revoked; {} ended with it",
                output::count(leases, "lease", "leases")
            ));
        }
    }
    Ok(Exit::Done)
}

fn identity(owner: TokenOwner) -> Result<Identity, Failure> {
    let TokenOwner { agent, tool, person } = owner;
    let (kind, name) = [("agent", agent), ("tool", tool), ("person", person)]
        .into_iter()
        .find_map(|(kind, name)| Some((kind, name?)))
        .ok_or_else(|| Failure::new(Exit::Usage, "whose token? give one of --agent, --tool and --person"))?;
    let wrong = || {
        let rule = "must have 1 to 128 letters, digits and `.` `_` `-` `/` `@` `:`";
        Failure::new(Exit::Usage, format!("`{name}` {rule}"))
    };
    Identity::parse(&format!("{kind}:{name}")).ok_or_else(wrong)
}

async fn create(
    broker: &Broker,
    identity: &Identity,
    ttl: Option<Duration>,
    purpose: TokenUse,
    format: OneFormat,
) -> Result<(), Failure> {
    let TokenUse { events, features } = purpose;
    let whose = identity.to_string();
    let made = match events {
        true => broker.create_events_token(&whose, ttl, features.into_iter().map(Into::into)).await?,
        false => broker.create_token(&whose, ttl).await?,
    };
    let row = cells(made.token.clone());
    match format {
        OneFormat::Table => {
            output::note(output::record(&row).trim_end());
            output::note("# the token, for its bearer; it is shown only now:");
            output::line(made.expose_secret())?;
        }
        OneFormat::Json => {
            let mut answer = output::object(&row);
            if let Value::Object(fields) = &mut answer {
                fields.insert("token".to_owned(), made.expose_secret().into());
                fields.insert("record_id".to_owned(), made.record_id.clone().into());
            }
            output::line(&Zeroizing::new(answer.to_string()))?;
        }
    }
    Ok(())
}

/// Makes a token by itself and adds its digest to a configuration.
fn add_to_configuration(
    file: &Path,
    identity: &Identity,
    ttl: Duration,
    format: OneFormat,
) -> Result<(), Failure> {
    if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Err(Failure::new(Exit::Usage, "a token counts for at least 60 seconds and at most 365 days"));
    }
    let token = Bearer::random(TOKEN_PREFIX);
    let digest = TokenDigest::of(&token);
    let now = OffsetDateTime::now_utc();
    let expires = now.replace_nanosecond(0).unwrap_or(now) + ttl;
    let expires = expires.format(&Rfc3339).map_err(|error| Failure::new(Exit::Failed, error))?;
    let (kind, name) = match identity {
        Identity::Agent(id) => ("agent", &id.0),
        Identity::Tool(id) => ("tool", &id.0),
        Identity::Person(id) => ("person", &id.0),
    };
    let entry = format!("[[identity]]\n{kind} = \"{name}\"\ntoken = \"{digest}\"\nexpires = {expires}\n");
    append(file, &entry).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("the configuration `{}` cannot be added to: {error}", file.display()),
        )
    })?;
    match format {
        OneFormat::Table => {
            output::note(&format!(
                "# added to {}; a broker that runs takes it when it is started again:",
                file.display()
            ));
            output::note(entry.trim_end());
            output::note("# the token, for its bearer; it is shown only now:");
            output::line(&token.expose_secret())?;
        }
        OneFormat::Json => {
            let answer = json!({
                "identity": identity.to_string(),
                "token": *token.expose_secret(),
                "token_id": format!("{TOKEN_PREFIX}{}", token.id()),
                "expire_time": expires,
                "configuration": entry,
            });
            output::line(&Zeroizing::new(answer.to_string()))?;
        }
    }
    Ok(())
}

/// To the end of a file that is there: a typing error must not begin a new configuration.
fn append(file: &Path, entry: &str) -> std::io::Result<()> {
    let mut file = File::options().append(true).open(file)?;
    file.write_all(format!("\n{entry}").as_bytes())?;
    file.sync_all()
}

async fn list(broker: &Broker, limit: u32) -> Result<Vec<KnownToken>, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut tokens, mut place) = (Vec::new(), String::new());
    while tokens.len() < limit {
        let page_size = i32::try_from((limit - tokens.len()).min(PAGE_SIZE_MAX)).unwrap_or_default();
        let page = broker.list_tokens(page_size, &place).await?;
        tokens.extend(page.tokens);
        match page.next_page_token {
            Some(next) => place = next,
            None => break,
        }
    }
    Ok(tokens)
}

fn cells(token: KnownToken) -> Vec<Cell> {
    let (state, usage) = (token.state().as_str_name(), token.usage().as_str_name());
    let KnownToken {
        token_id,
        identity,
        state: _,
        creator,
        create_time,
        expire_time,
        use_time,
        revoke_time,
        revoker,
        usage: _,
    } = token;
    let moment = |seconds: Option<i64>| Value::from(seconds.map(moment_to_second));
    vec![
        ("token_id", token_id.into()),
        ("identity", identity.into()),
        ("state", output::word(Some(state), "TOKEN_STATE_")),
        ("usage", output::word(Some(usage), "TOKEN_USAGE_")),
        ("expire_time", moment(expire_time.map(|time| time.seconds))),
        ("use_time", moment(use_time.map(|time| time.seconds))),
        ("create_time", moment(create_time.map(|time| time.seconds))),
        ("creator", creator.into()),
        ("revoke_time", moment(revoke_time.map(|time| time.seconds))),
        ("revoker", if revoker.is_empty() { Value::Null } else { revoker.into() }),
    ]
}

/// The columns of a table of tokens.
const SHOWN: [&str; 7] = ["token_id", "identity", "usage", "state", "expire_time", "use_time", "creator"];
const PAGE_SIZE_MAX: usize = 1000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TTL_USUAL: Duration = DAY.saturating_mul(90);
const TTL_MIN: Duration = Duration::from_secs(60);
const TTL_MAX: Duration = DAY.saturating_mul(365);
