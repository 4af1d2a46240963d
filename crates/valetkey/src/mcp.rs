//! `valetkey mcp`: a Model Context Protocol server over stdio that hands a model handles and explanations, never values.
//!
//! It is the agent: it calls the broker as whoever the environment says, and holds the leases that the model asks for
//! until the model ends them, or its client goes away. There is no tool that redeems.

mod answer;
mod approval;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::RequestState;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResponse, CallToolResult, Implementation, ProtocolVersion, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use valetkey_client::{AcquireLease, Broker, CallError, CheckAccess, Lease, Retries};

use crate::cli::McpArgs;
use crate::connection::connect_for;
use crate::failure::{Exit, Failure};
use crate::signals::Interrupts;

use self::answer::{cancelled, checked, failed, granted, listed, too_many};
use self::approval::{Wait, Waiting};

/// Runs it, until its client goes away or a signal ends it.
pub(crate) async fn run(args: McpArgs) -> Result<Exit, Failure> {
    let McpArgs { session, on_behalf_of, connection } = args;
    // A broker that restarts is waited for: there is nobody here to ask again.
    let broker = connect_for(&connection, on_behalf_of.as_deref()).await?.retries(Retries::default());
    let leases = Leases { held: Arc::default(), places: Arc::new(Semaphore::new(LEASES_MAX)) };
    let (waiting, tool_router) = (Waiting::default(), Desk::tool_router());
    let desk = Desk { broker, session, leases: leases.clone(), waiting, tool_router };
    let mut interrupts = Interrupts::take()?;
    let serving = async {
        // What went wrong in its own words names types of the library's.
        let gone = "the client has gone, or does not speak the Model Context Protocol";
        let service =
            desk.serve(rmcp::transport::stdio()).await.map_err(|_| Failure::new(Exit::Failed, gone))?;
        service.waiting().await.map(drop).map_err(|error| Failure::chain(Exit::Failed, &error))
    };
    let served = tokio::select! {
        served = serving => served,
        () = interrupts.next() => Ok(()),
    };
    leases.end_all().await;
    served.map(|()| Exit::Done)
}

/// What the model can ask.
struct Desk {
    broker: Broker,
    session: Option<String>,
    leases: Leases,
    waiting: Waiting,
    tool_router: ToolRouter<Self>,
}

/// The leases that are held; clones share them.
#[derive(Clone)]
struct Leases {
    held: Arc<Mutex<BTreeMap<String, Held>>>,
    /// One place for each lease, taken before it is asked for.
    places: Arc<Semaphore>,
}

/// A lease that is held: renewed, and asked for again where its broker goes away, for as long as this lives.
pub(crate) struct Held {
    tool: String,
    lease: Lease,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RequestAccess {
    /// Secret references, `op://<vault>/<item>[/<section>]/<field>`; 1 to 64.
    references: Vec<String>,
    /// The tool that will use the secrets, by its name in the policies, such as `navan.book_flight`. Only that tool can
    /// turn a handle into its value.
    tool: String,
    /// What the secrets are needed for. Recorded for reviewers; never part of the decision.
    purpose: String,
    /// How long each handle shall live, in seconds. Handles are renewed while the lease is held.
    #[serde(default)]
    ttl_seconds: Option<u32>,
    /// Whether to take what is allowed where some references are refused, instead of all or nothing.
    #[serde(default)]
    partial: bool,
    /// The host that the secrets will be sent to, such as `api.example.com`.
    #[serde(default)]
    destination: Option<String>,
}

impl RequestAccess {
    /// Whether the same approval would do: purpose and life play no part in one.
    fn is_like(&self, other: &Self) -> bool {
        let Self { references, tool, purpose: _, ttl_seconds: _, partial: _, destination } = self;
        (references, tool, destination) == (&other.references, &other.tool, &other.destination)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExplainDenial {
    /// The secret reference that was refused.
    reference: String,
    /// The tool that it was asked for.
    tool: String,
    /// As in `request_access`.
    #[serde(default)]
    ttl_seconds: Option<u32>,
    /// As in `request_access`.
    #[serde(default)]
    destination: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndLease {
    /// The lease, `vkl_…`, as `request_access` answered.
    lease_id: String,
}

#[tool_router]
impl Desk {
    /// Asks for a lease.
    #[tool(
        description = "Ask for access to secrets for one tool. Answers with a handle for each secret: a short-lived \
                       string that is safe to write down, and that the named tool alone can turn into the value. Pass \
                       the handle to the tool in place of the secret. You never see values."
    )]
    async fn request_access(
        &self,
        Parameters(asked): Parameters<RequestAccess>,
        RequestState(before): RequestState,
        context: RequestContext<RoleServer>,
    ) -> CallToolResponse {
        let Some(place) = self.leases.place() else { return too_many().into() };
        let waits_for = asked.clone();
        let answer = tokio::select! {
            answer = self.acquire(asked, place) => answer,
            // Nobody hears the answer: what was granted meanwhile ends.
            () = context.ct.cancelled() => return cancelled().into(),
        };
        match answer {
            Ok(granted) => granted.into(),
            Err(error) if let Some(wait) = Wait::of(error.clone()) => {
                self.waiting.note(waits_for, wait.clone());
                // Who comes back and finds it not approved yet is told so: to be asked at once again helps nobody.
                if before.is_none()
                    && context.protocol_version() >= Some(ProtocolVersion::V_2026_07_28)
                    && let Some(required) = approval::input_required(&context, &wait)
                {
                    return required.into();
                }
                approval::waits(&wait).into()
            }
            Err(error) => {
                if matches!(error, CallError::Denied { .. }) {
                    self.waiting.forget(&waits_for);
                }
                failed(&error).into()
            }
        }
    }

    /// Lists what is held.
    #[tool(
        description = "List the leases you hold and the handles to use now. Handles are renewed before they expire: \
                       use the newest. A lease that is not listed has ended; ask again."
    )]
    async fn list_my_access(&self) -> CallToolResult {
        listed(&self.leases.held(), self.waiting.listed())
    }

    /// Asks why.
    #[tool(
        description = "Ask why a secret was refused for a tool, and what can be done about it. Nothing is fetched; the \
                       question is recorded."
    )]
    async fn explain_denial(&self, Parameters(asked): Parameters<ExplainDenial>) -> CallToolResult {
        let ExplainDenial { reference, tool, ttl_seconds, destination } = asked;
        let ttl = ttl_seconds.map(seconds);
        let check = CheckAccess { tool, reference, ttl, session: self.session.clone(), destination };
        match self.broker.check(check).await {
            Ok(access) => checked(&access),
            Err(error) => failed(&error),
        }
    }

    /// Ends one.
    #[tool(
        description = "End a lease as soon as its secrets are not needed any more: its handles are dead then."
    )]
    async fn end_lease(&self, Parameters(EndLease { lease_id }): Parameters<EndLease>) -> CallToolResult {
        let held = self.leases.take(&lease_id);
        match held {
            Some(Held { tool: _, lease, _place }) => {
                // A broker that does not answer sees the stream close all the same.
                let _ = lease.end().await;
                CallToolResult::structured(json!({"lease_id": lease_id, "ended": true}))
            }
            None => CallToolResult::structured_error(json!({
                "error": "LEASE_NOT_HELD", "next": "it has ended already, or never was; see `list_my_access`",
            })),
        }
    }
}

impl Desk {
    /// Acquires a lease and keeps it, once there is an answer for each reference.
    async fn acquire(
        &self,
        asked: RequestAccess,
        place: OwnedSemaphorePermit,
    ) -> Result<CallToolResult, CallError> {
        let RequestAccess { references, tool, purpose, ttl_seconds, partial, destination } = asked.clone();
        let request = AcquireLease {
            tool: tool.clone(),
            references,
            purpose,
            ttl: ttl_seconds.map(seconds),
            partial,
            session: self.session.clone(),
            destination,
        };
        let lease = self.broker.lease(request).await?;
        self.waiting.forget(&asked);
        if let Some(wait) = lease.refused().iter().find_map(|it| Wait::of(it.error())) {
            self.waiting.note(asked, wait);
        }
        let answer = granted(&tool, &lease);
        if !lease.handles().is_empty() {
            self.leases.held().insert(lease.id(), Held { tool, lease, _place: place });
        }
        Ok(answer)
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Desk {
    fn get_info(&self) -> ServerConfig {
        let this = Implementation::new("valetkey", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(this)
            .with_instructions(INSTRUCTIONS)
    }
}

impl Leases {
    /// Those that are not over.
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, held| held.lease.lost().is_none());
        held
    }

    /// A place for one more.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        // What is over gives its place back.
        drop(self.held());
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Takes one out, by the id that it has or by the one that it had first.
    fn take(&self, id: &str) -> Option<Held> {
        let mut held = self.held();
        let key = held.iter().find(|(first, held)| *first == id || held.lease.id() == id);
        let key = key.map(|(first, _)| first.clone())?;
        held.remove(&key)
    }

    async fn end_all(&self) {
        let all = std::mem::take(&mut *self.held());
        let mut ends = JoinSet::new();
        for Held { tool: _, lease, _place } in all.into_values() {
            ends.spawn(lease.end());
        }
        // As above; each has a bound of its own.
        while ends.join_next().await.is_some() {}
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// Far more than one conversation needs; the broker has bounds of its own.
const LEASES_MAX: usize = 64;
const INSTRUCTIONS: &str = "\
Secrets are lent for one tool at a time. Ask by `request_access` for what the next tool call needs, pass the handles \
(`vkh_…`) to that tool in place of secrets, and end the lease when the tool is done. Handles are safe to write down; \
never ask anybody for the values. Where a person has to approve, say so and where, and ask again in the same words when \
it is done. Where access is denied, follow the advice or tell the person; asking again in other \
words does not help.";
