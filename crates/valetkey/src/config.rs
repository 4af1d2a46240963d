//! `valetkey config`: what a configuration says, without a broker.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use valetkey_core::Clock;
use valetkey_server::{App, Config, StartError, SystemClock};

use crate::cli::ConfigCommand;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::policy::invalid;

/// Runs it.
pub(crate) async fn run(command: ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check { file } => check(&file).await,
    }
}

async fn check(file: &Path) -> Result<Exit, Failure> {
    let config = Config::load(file).map_err(|error| Failure::new(Exit::Invalid, error))?;
    let policies = valetkey_policy::check(&config.policies).map_err(invalid)?;
    let unusable = |error: StartError| Failure::chain(Exit::Invalid, &error);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    App::check_sources(&config, Arc::clone(&clock))
        .and_then(|()| App::check_tls(&config, &clock))
        .and_then(|()| App::check_signing(&config))
        .and_then(|()| App::check_events(&config, &clock))
        .map_err(unusable)?;
    App::check_issuers(&config, clock).await.map_err(unusable)?;
    for warning in &policies.warnings {
        output::note(&format!("warning: {warning}"));
    }
    if !config.audit_database.exists() {
        output::note(&format!(
            "warning: there is no audit database `{}`; `serve --create-database` makes it, the first time",
            config.audit_database.display()
        ));
    }
    let count = config.members.iter().map(|member| &member.identity).collect::<HashSet<_>>().len();
    let identities = output::count(count, "identity", "identities");
    let identities = match config.spiffe_rules.len() {
        0 => identities,
        rules => format!("{identities}, {}", output::count(rules, "SPIFFE rule", "SPIFFE rules")),
    };
    let identities = match config.issuers.len() {
        0 => identities,
        issuers => format!("{identities}, {}", output::count(issuers, "issuer", "issuers")),
    };
    output::line(&format!("{}: listens on {}, {identities}", file.display(), places(&config)))?;
    let count = output::count(policies.policy_count, "policy", "policies");
    output::line(&format!("{}: {count}, revision {}", config.policies.display(), policies.digest))?;
    if let Some(events) = &config.events {
        output::line(&format!(
            "events: listens on {}, for clients that call it {}",
            events.listen, events.host
        ))?;
    }
    for source in &config.sources {
        output::line(&format!("source {}: {}", source.name.as_str(), source.kind.summary()))?;
    }
    Ok(Exit::Done)
}

/// Where a broker of this configuration listens.
pub(crate) fn places(config: &Config) -> String {
    let tcp = config.listen.map(|address| match config.tls {
        None => address.to_string(),
        Some(_) => format!("{address} with TLS"),
    });
    let sockets = config.unix.iter().map(|unix| format!("unix:{}", unix.path.display()));
    tcp.into_iter().chain(sockets).collect::<Vec<_>>().join(" and ")
}
