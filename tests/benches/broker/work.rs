//! The tasks that are measured.

use std::time::Duration;

use anyhow::{Context, Result};
use tonic::Streaming;
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::{AcquireLeaseRequest, AcquireLeaseResponse, EndLeaseRequest, RedeemHandleRequest};
use valetkey_tests::process::Process;
use valetkey_tests::{Client, handle_of};

use crate::load::{Figure, Work, work};
use crate::world::{REFERENCES, World, bot, connections, many, one, tool};

/// A task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// The limit of one call: a bare unary echo.
    Unary,
    /// The limit of one stream: a bare one with the messages of an acquire, dropped after the last.
    Stream,
    /// Acquire: call to `issued`, then the stream is dropped.
    Acquire,
    /// Redeem, of handles that are there.
    Redeem,
    /// Acquire, redeem and end.
    Journey,
}

/// A lease that is held.
pub(crate) struct Held {
    pub(crate) lease: String,
    pub(crate) handles: Vec<String>,
    pub(crate) events: Streaming<AcquireLeaseResponse>,
}

impl Task {
    /// All; the limits first.
    pub(crate) const ALL: [Self; 5] = [Self::Unary, Self::Stream, Self::Acquire, Self::Redeem, Self::Journey];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary => "bare unary",
            Self::Stream => "bare strm",
            Self::Acquire => "acquire",
            Self::Redeem => "redeem",
            Self::Journey => "journey",
        }
    }

    /// Whether it is asked of the bare transport.
    pub(crate) fn is_echo(self) -> bool {
        matches!(self, Self::Unary | Self::Stream)
    }

    pub(crate) fn target(self, flight: usize) -> &'static str {
        match (self, flight) {
            (Self::Acquire | Self::Redeem, 16) => "5,000/s, p99 < 8 ms",
            (Self::Acquire | Self::Redeem, 128) => "10,000/s",
            _ => "",
        }
    }

    /// Does it for a round.
    pub(crate) async fn run(
        self,
        world: &World,
        (server, uri): &(Process, String),
        flight: usize,
        round: Duration,
    ) -> Result<Figure> {
        let channels = connections(uri, flight).await?;
        let clients = |name: fn(usize) -> String| {
            let clients = channels.iter().cycle().take(flight).enumerate();
            clients
                .map(move |(place, channel)| world.client(&name(place), channel))
                .collect::<Result<Vec<_>>>()
        };
        match self {
            Self::Unary => {
                let echo = |tool| Redeem { tool, handles: vec!["h".repeat(61); HANDLES_MAX] };
                work(server, clients(tool)?.into_iter().map(echo).collect(), round).await
            }
            Self::Stream | Self::Acquire => {
                let acquire = |(place, agent)| Acquire { agent, request: one(place) };
                work(server, clients(bot)?.into_iter().enumerate().map(acquire).collect(), round).await
            }
            Self::Redeem => {
                let share = if flight == 1 { 2_048 } else { 12_288 / flight };
                let agent = world.client(&bot(0), channels.first().context("no connection")?)?;
                let held = hold(&agent, (share * flight).div_ceil(REFERENCES)).await?;
                let mut handles = held.iter().flat_map(|held| held.handles.iter().cloned());
                let tools = clients(|_| tool(0))?.into_iter();
                let redeem = |tool| Redeem { tool, handles: handles.by_ref().take(share).collect() };
                work(server, tools.map(redeem).collect(), round).await
            }
            Self::Journey => {
                let pairs = clients(bot)?.into_iter().zip(clients(tool)?).enumerate();
                let journey = |(place, (agent, tool))| Journey { agent, tool, request: one(place) };
                work(server, pairs.map(journey).collect(), round).await
            }
        }
    }
}

/// Acquires so many large leases and holds them.
pub(crate) async fn hold(agent: &Client, leases: usize) -> Result<Vec<Held>> {
    let mut held = Vec::with_capacity(leases);
    for _ in 0..leases {
        held.push(acquire(agent, &many()).await?);
    }
    Ok(held)
}

/// Acquires, up to the last `issued`.
pub(crate) async fn acquire(agent: &Client, request: &AcquireLeaseRequest) -> Result<Held> {
    let mut events = agent.leases.clone().acquire_lease(request.clone()).await?.into_inner();
    let lease = match events.message().await?.and_then(|opened| opened.event) {
        Some(Event::Opened(opened)) => opened.lease_id,
        other => anyhow::bail!("the first event is {other:?}"),
    };
    let mut handles = Vec::with_capacity(request.references.len());
    for _ in &request.references {
        handles.push(handle_of(events.message().await?.context("the stream ended")?)?);
    }
    Ok(Held { lease, handles, events })
}

struct Acquire {
    agent: Client,
    request: AcquireLeaseRequest,
}

impl Work for Acquire {
    async fn step(&mut self) -> Result<bool> {
        acquire(&self.agent, &self.request).await?;
        Ok(true)
    }
}

struct Redeem {
    tool: Client,
    handles: Vec<String>,
}

impl Work for Redeem {
    async fn step(&mut self) -> Result<bool> {
        redeem(&mut self.tool, self.handles.pop()).await?;
        Ok(!self.handles.is_empty())
    }
}

struct Journey {
    agent: Client,
    tool: Client,
    request: AcquireLeaseRequest,
}

impl Work for Journey {
    async fn step(&mut self) -> Result<bool> {
        let mut held = acquire(&self.agent, &self.request).await?;
        redeem(&mut self.tool, held.handles.pop()).await?;
        self.agent.leases.end_lease(EndLeaseRequest { lease_id: held.lease }).await?;
        Ok(true)
    }
}

async fn redeem(tool: &mut Client, handle: Option<String>) -> Result<()> {
    let handle = handle.context("no handle is left")?;
    let ask = RedeemHandleRequest { handle, destination: String::new() };
    tool.leases.redeem_handle(ask).await?;
    Ok(())
}

/// More echoes than one client can ask for in a round.
const HANDLES_MAX: usize = 100_000;
