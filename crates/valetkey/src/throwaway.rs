//! A throw-away broker: the demo's vault and policies, fresh identities, a folder that goes with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use valetkey_core::{AgentId, Bearer, Identity, Name, PersonId, ToolId};
use valetkey_server::{
    App, ApprovalSettings, Config, Limits, Member, Proof, Retention, Signing, SourceBounds, SourceConfig,
    SourceKind, SystemClock, TOKEN_PREFIX, TokenDigest, usual_digest_key,
};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};

/// The vault of the travel story.
pub(crate) const VAULT: &str = include_str!("../../../examples/travel/vault.json");

/// The folder of a throw-away broker, and who may call it. Dropping it removes the folder.
pub(crate) struct Throwaway {
    folder: TempDir,
    passes: Vec<Pass>,
}

/// An identity and its token.
pub(crate) struct Pass {
    pub(crate) identity: Identity,
    token: Bearer,
}

impl Throwaway {
    /// Makes the folder and fresh tokens.
    pub(crate) fn new() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("valetkey-").tempdir()?;
        let made = Self { folder, passes: passes()? };
        std::fs::create_dir(made.policies())?;
        for (name, text) in POLICIES {
            std::fs::write(made.policies().join(name), text)?;
        }
        std::fs::write(made.vault(), VAULT)?;
        Ok(made)
    }

    /// Opens the broker.
    pub(crate) async fn open(&self, listen: SocketAddr) -> Result<App, Failure> {
        let config = Config {
            listen: Some(listen),
            metrics: None,
            tls: None,
            unix: None,
            events: None,
            audit_database: self.database(),
            audit_create: true,
            audit_digest_key: Some(usual_digest_key(&self.database())),
            // Soon enough to be tried out.
            audit_signing: Signing { checkpoint_every: Duration::from_secs(1), ..Signing::default() },
            audit_retention: Retention::default(),
            policies: self.policies(),
            sources: vec![SourceConfig {
                name: Name::parse("embedded").map_err(|error| Failure::new(Exit::Failed, error))?,
                vaults: Vec::new(),
                // There is nothing in it that is not in this program too.
                kind: SourceKind::File { file: self.vault(), open_to_others: true },
                bounds: SourceBounds::default(),
            }],
            members: self.passes.iter().map(Pass::member).collect(),
            spiffe_rules: Vec::new(),
            approvals: ApprovalSettings::default(),
            issuers: Vec::new(),
            limits: Limits::default(),
            digests: Vec::new(),
        };
        let clock = Arc::new(SystemClock::default());
        App::open(config, clock).await.map_err(|error| Failure::chain(Exit::Failed, &error))
    }

    /// Where its audit log is.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("audit.db")
    }

    /// Where its policies are.
    pub(crate) fn policies(&self) -> PathBuf {
        self.folder.path().join("policies")
    }

    /// Who may call.
    pub(crate) fn passes(&self) -> &[Pass] {
        &self.passes
    }

    /// Removes the folder, and says where it was.
    pub(crate) fn remove(self) -> Result<PathBuf, Failure> {
        let path = self.folder.path().to_owned();
        self.folder.close()?;
        Ok(path)
    }

    fn vault(&self) -> PathBuf {
        self.folder.path().join("vault.json")
    }
}

impl Pass {
    /// The token, for its bearer.
    pub(crate) fn token(&self) -> Zeroizing<String> {
        self.token.expose_secret()
    }

    fn member(&self) -> Member {
        let Self { identity, token } = self;
        Member { identity: identity.clone(), shows: Proof::Token(TokenDigest::of(token)) }
    }
}

/// The people, agents and tools of the travel story.
fn passes() -> Result<Vec<Pass>, Failure> {
    let name = |text: &str| {
        Name::parse(text).map_err(|error| Failure::new(Exit::Failed, format!("`{text}` {error}")))
    };
    let mut identities = Vec::new();
    for agent in ["travel-bot", "notes-bot"] {
        identities.push(Identity::Agent(AgentId(name(agent)?)));
    }
    for tool in ["navan.book_flight", "ramp.submit_expense", "web.search"] {
        identities.push(Identity::Tool(ToolId(name(tool)?)));
    }
    for person in ["ana", "omar"] {
        identities.push(Identity::Person(PersonId(name(person)?)));
    }
    let pass = |identity| Pass { identity, token: Bearer::random(TOKEN_PREFIX) };
    Ok(identities.into_iter().map(pass).collect())
}

/// The default policies, as they stand in `policies/`.
const POLICIES: [(&str, &str); 4] = [
    ("schema.cedarschema", include_str!("../../../policies/schema.cedarschema")),
    ("entities.json", include_str!("../../../policies/entities.json")),
    ("people.cedar", include_str!("../../../policies/people.cedar")),
    ("travel.cedar", include_str!("../../../policies/travel.cedar")),
];
