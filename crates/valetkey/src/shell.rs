//! What `read`, `inject` and `run` share: one lease for all references of a command, and its values.

pub(crate) mod env_file;
pub(crate) mod forms;
pub(crate) mod mask;
pub(crate) mod out_file;
pub(crate) mod template;

use std::path::Path;

use valetkey_client::{
    AcquireLease, Broker, Credentials, Issued, LeaseEvent, LeaseStream, Redeemer, Retries, SecretValue, Token,
};

use crate::cli::shell::AskArgs;
use crate::connection::{connect_for, read_token};
use crate::failure::{Exit, Failure};

/// A lease with a handle for each reference.
pub(crate) struct Held {
    lease: LeaseStream,
    agent: Broker,
    tool: Option<Broker>,
    destination: String,
}

/// Acquires a lease on all of these, each once, and waits for the handles.
pub(crate) async fn hold(ask: &AskArgs, references: &[String], usual_purpose: &str) -> Result<Held, Failure> {
    let AskArgs { tool, purpose, ttl, session, destination, on_behalf_of, tool_token_file, connection } = ask;
    let agent = connect_for(connection, on_behalf_of.as_deref()).await?;
    let as_tool = match tool_token(tool_token_file.as_deref())? {
        Some(token) => {
            let mut credentials = Credentials::from(token);
            if let Some(ca) = &connection.shown.ca {
                credentials = credentials.ca(ca);
            }
            Some(Broker::connect(&connection.address, credentials).await?.retries(Retries::none()))
        }
        None => None,
    };
    let request = AcquireLease {
        tool: tool.clone(),
        references: references.to_vec(),
        purpose: purpose.clone().unwrap_or_else(|| usual_purpose.to_owned()),
        ttl: *ttl,
        partial: false,
        session: session.clone(),
        destination: destination.clone(),
    };
    let mut lease = agent.acquire(request).await?;
    let mut missing = references.len();
    while missing > 0 {
        match lease.next().await? {
            Some(LeaseEvent::Issued(_)) => missing -= 1,
            Some(LeaseEvent::Ended(cause)) => {
                let cause = crate::lease::word(cause);
                return Err(Failure::new(
                    Exit::Unavailable,
                    format!("the lease ended by {cause} before it had begun"),
                ));
            }
            Some(_) => {}
            None => return Err(Failure::new(Exit::Unavailable, "the lease ended before it had begun")),
        }
    }
    Ok(Held { lease, agent, tool: as_tool, destination: destination.clone().unwrap_or_default() })
}

impl Held {
    /// The value of a reference.
    pub(crate) async fn redeem(&self, reference: &str) -> Result<SecretValue, Failure> {
        let issued = self.issued(reference)?;
        let by = match (issued.redeemer, &self.tool) {
            (Redeemer::Agent, _) => &self.agent,
            (_, Some(tool)) => tool,
            (_, None) => {
                return Err(Failure::new(
                    Exit::Usage,
                    "policy lets the tool alone redeem: give its token by `--tool-token-file`, `VALETKEY_TOOL_TOKEN` or \
                     `VALETKEY_TOOL_TOKEN_FILE`, or have a policy with `@redeem_by(\"agent\")`",
                ));
            }
        };
        Ok(by.redeem_for(&issued.handle, &self.destination).await?)
    }

    /// The handle of a reference.
    pub(crate) fn issued(&self, reference: &str) -> Result<&Issued, Failure> {
        let gone = || {
            Failure::new(
                Exit::Unavailable,
                format!("the handle for `{reference}` is gone already; try again"),
            )
        };
        self.lease.handle(reference).ok_or_else(gone)
    }

    /// The lease, for whoever watches what happens to it.
    pub(crate) fn lease(&mut self) -> &mut LeaseStream {
        &mut self.lease
    }

    /// Ends it: its handles are dead when this returns. What it was for is done, so a broker that is gone is no fault.
    pub(crate) async fn end(self) {
        let _ = self.lease.end().await;
    }
}

/// Adds a reference to those of a command; each is asked for once.
pub(crate) fn add(references: &mut Vec<String>, reference: &str) {
    if !references.iter().any(|known| known == reference) {
        references.push(reference.to_owned());
    }
}

/// The tool's token, where the tool redeems and not the agent.
fn tool_token(file: Option<&Path>) -> Result<Option<Token>, Failure> {
    if let Some(file) = file {
        return read_token(file).map(Some);
    }
    if let Ok(token) = std::env::var("VALETKEY_TOOL_TOKEN") {
        return Ok(Some(Token::parse(token)?));
    }
    std::env::var_os("VALETKEY_TOOL_TOKEN_FILE").map(|file| read_token(Path::new(&file))).transpose()
}
