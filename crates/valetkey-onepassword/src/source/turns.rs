//! How many questions a source is asked at once, and that no agent takes all turns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use valetkey_core::{AgentId, ResolveError, ResolveFailure};

/// The turns of one source. An agent has three quarters of them at most, so that the line in front of the
/// last quarter never is one agent's alone.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    own_max: usize,
    /// Of agents whose questions wait or are being asked.
    by_agent: Mutex<HashMap<AgentId, Arc<Semaphore>>>,
}

/// A place in the line.
pub(super) struct Place {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// A turn; given back when dropped.
#[expect(dead_code, reason = "they are held, not read")]
pub(super) struct Turn(OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Turns {
    pub(super) fn new(count: usize) -> Self {
        let all = Arc::new(Semaphore::new(count.max(1)));
        Self { all, own_max: (count * 3 / 4).max(1), by_agent: Mutex::default() }
    }

    /// A place in the line for an agent's question; none where the agent has too many there.
    pub(super) fn line_up(&self, agent: &AgentId) -> Result<Place, ResolveFailure> {
        let mut by_agent = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        if !by_agent.contains_key(agent) {
            by_agent.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = by_agent.entry(agent.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.own_max)));
        if Arc::strong_count(own) > WAITING_MAX {
            return Err(ResolveFailure {
                error: ResolveError::Unavailable,
                detail: Some("the agent has too many questions waiting for this source".into()),
            });
        }
        Ok(Place { all: Arc::clone(&self.all), own: Arc::clone(own) })
    }
}

impl Place {
    /// Waits for the turn.
    pub(super) async fn turn(self) -> Result<Turn, ResolveFailure> {
        let closed = |_| ResolveFailure::from(ResolveError::Unavailable);
        // The agent's own line first: who waits there is not in the way of others.
        let own = self.own.acquire_owned().await.map_err(closed)?;
        let all = self.all.acquire_owned().await.map_err(closed)?;
        Ok(Turn(own, all))
    }
}

/// An agent's questions that wait or are being asked.
const WAITING_MAX: usize = 256;
