//! A broker with 1,000 generated policies and the vaults, agents and tools that they speak of.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use valetkey_core::Bearer;
use valetkey_policy::generate::generate;
use valetkey_proto::v1::AcquireLeaseRequest;
use valetkey_server::TOKEN_PREFIX;
use valetkey_tests::process::{Process, write_config};
use valetkey_tests::{Client, acquire, root};

/// The program that plays the broker and the echo.
pub(crate) const STAND_IN: &str = env!("CARGO_BIN_EXE_stand-in");

/// The files of a broker, and everybody's tokens.
pub(crate) struct World {
    home: TempDir,
    tokens: HashMap<String, String>,
}

impl World {
    /// Writes all files.
    pub(crate) fn new() -> Result<Self> {
        let home = TempDir::new()?;
        let policies = home.path().join("policies");
        std::fs::create_dir(&policies)?;
        let generated = generate(POLICIES)?;
        std::fs::write(policies.join("schema.cedarschema"), generated.schema)?;
        std::fs::write(policies.join("entities.json"), generated.entities)?;
        for (name, text) in generated.policies {
            std::fs::write(policies.join(name), text)?;
        }
        std::fs::copy(root().join("policies/people.cedar"), policies.join("people.cedar"))?;
        std::fs::write(home.path().join("vault.json"), vault()?)?;

        let names = (0..BLOCKS).flat_map(|block| [bot(block), tool(block)]);
        let tokens = names.map(|name| (name, Bearer::random(TOKEN_PREFIX).expose_secret().to_string()));
        let tokens: HashMap<String, String> = tokens.collect();
        let members = tokens.iter().map(|(name, token)| {
            let kind = if name.starts_with("bot") { "agent" } else { "tool" };
            (kind, name.as_str(), token.as_str())
        });
        write_config(home.path(), LIMITS, members)?;
        Ok(Self { home, tokens })
    }

    /// Where the files are.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts a broker on a fresh log.
    pub(crate) async fn broker(&self) -> Result<(Process, String)> {
        for file in ["audit.db", "audit.db-wal", "audit.db-shm"] {
            // Absent the first time.
            let _ = std::fs::remove_file(self.home().join(file));
        }
        Process::broker(STAND_IN, self.home(), &[]).await
    }

    /// Clients of the name, on a connection that is there.
    pub(crate) fn client(&self, name: &str, channel: &Channel) -> Result<Client> {
        let token = self.tokens.get(name).context("nobody has that name")?;
        Client::over(channel.clone(), Some(&format!("Bearer {token}")))
    }
}

/// Connections to share: one for one in flight, else four.
pub(crate) async fn connections(uri: &str, flight: usize) -> Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..flight.min(4) {
        channels.push(Endpoint::from_shared(uri.to_owned())?.connect().await?);
    }
    Ok(channels)
}

/// The agent of a block of policies.
pub(crate) fn bot(block: usize) -> String {
    format!("bot-{}-1", block % BLOCKS)
}

/// Its tool.
pub(crate) fn tool(block: usize) -> String {
    format!("tool-{}-1", block % BLOCKS)
}

/// A lease on one secret of a block.
pub(crate) fn one(block: usize) -> AcquireLeaseRequest {
    acquire(&tool(block), &[&format!("op://vault-{}/item-1/password", block % BLOCKS)])
}

/// A lease on as many secrets as a call may ask for, long enough not to be renewed meanwhile.
pub(crate) fn many() -> AcquireLeaseRequest {
    let references: Vec<String> =
        (1..=REFERENCES).map(|item| format!("op://vault-0/item-{item}/password")).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let ttl = Some(prost_types::Duration { seconds: 290, nanos: 0 });
    AcquireLeaseRequest { ttl, ..acquire(&tool(0), &references) }
}

/// A vault a block, with one item each; the first has an item for each reference of a large lease.
fn vault() -> Result<String> {
    let (mut vaults, mut items) = (String::new(), String::new());
    for block in 0..BLOCKS {
        let id = format!("vault{block:0>21}");
        writeln!(vaults, r#"{{"id": "{id}", "name": "vault-{block}"}},"#)?;
        for item in 1..=if block == 0 { REFERENCES } else { 1 } {
            writeln!(
                items,
                r#"{{"id": "item{block:0>11}{item:0>11}", "title": "item-{item}", "vault": {{"id": "{id}"}},
                    "category": "LOGIN", "version": 1, "fields": [{{"id": "password", "type": "CONCEALED",
                    "purpose": "PASSWORD", "label": "password", "value": "value-{block}-{item}"}}]}},"#
            )?;
        }
    }
    let list = |text: &str| text.trim_end().trim_end_matches(',').to_owned();
    Ok(format!("{{\"vaults\": [{}], \"items\": [{}]}}", list(&vaults), list(&items)))
}

const POLICIES: usize = 1_000;
/// The generator puts ten policies into a block.
pub(crate) const BLOCKS: usize = POLICIES / 10;
/// References of one call, at most.
pub(crate) const REFERENCES: usize = 64;
const LIMITS: &str = "leases_max = 100000\nleases_per_agent_max = 100000\nhandles_max = 1000000\n\
                      handles_per_agent_max = 1000000\nrequests_per_second = 1000000\nrequests_burst = 1000000\n\
                      streams_per_connection_max = 100000";
