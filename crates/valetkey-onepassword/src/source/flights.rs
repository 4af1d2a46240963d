//! Questions on their way, and answers that are still warm: who asks the same meanwhile shares them.
//!
//! A flight goes on as long as somebody waits for it, and is cancelled when nobody does. Its answer is
//! kept, values sealed, for as long as the longest window says, and then dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use valetkey_core::{AgentId, ResolveError, ResolveFailure, Timestamp};

use super::sealed::Sealed;
use crate::item::ItemOutline;

/// What a source is asked; vaults, items and files by their ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Vaults,
    Items(Arc<str>),
    Item(Arc<str>, Arc<str>),
    File(Arc<str>, Arc<str>, Arc<str>),
}

/// What it answers.
pub(super) enum Answer {
    /// A list, which is in the directory now.
    Listed,
    Item(ItemRead),
    File(Sealed),
}

impl Answer {
    /// How much its values take, in bytes.
    fn size(&self) -> usize {
        match self {
            Self::Listed => 0,
            Self::Item(read) => read.values.size(),
            Self::File(content) => content.size(),
        }
    }
}

/// One item as it was read.
pub(super) struct ItemRead {
    pub(super) outline: Arc<ItemOutline>,
    pub(super) version: Option<u64>,
    pub(super) values: Sealed,
    /// When it was asked for.
    pub(super) read_time: Timestamp,
    /// The same, by the monotonic clock.
    pub(super) started: Duration,
}

/// A question on its way, for all who asked it.
pub(super) type Flight = Shared<BoxFuture<'static, Landing>>;
/// Its end, shared.
pub(super) type Landing = Result<Arc<Answer>, ResolveFailure>;

/// Which answers will do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    /// How long since they came.
    pub(super) age_max: Duration,
    /// Not asked for before this moment.
    pub(super) not_before: Duration,
}

/// How an answer was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// Asked for now.
    Own,
    /// Another's question, on its way.
    Shared,
    /// One that came before.
    Kept,
}

/// The flights and the kept answers of one source.
pub(super) struct Flights {
    board: Mutex<Board>,
    /// How long answers are kept.
    keep: Duration,
}

#[derive(Default)]
struct Board {
    entries: HashMap<Key, Entry>,
    /// Kept answers in the order in which they came, with their sizes.
    kept: VecDeque<(Key, Duration, usize)>,
    /// In bytes; those count until they are swept.
    kept_size: usize,
    /// Whether somebody will call [`Flights::sweep`].
    has_sweeper: bool,
}

struct Entry {
    started: Duration,
    state: State,
}

/// A flight that is about to be made.
pub(super) struct Departure {
    pub(super) flight: BoxFuture<'static, Landing>,
    /// Whether the source is being asked; before that it waits in the line of who asks.
    pub(super) is_airborne: Arc<AtomicBool>,
}

enum State {
    Flying { flight: WeakShared<BoxFuture<'static, Landing>>, agent: AgentId, is_airborne: Arc<AtomicBool> },
    Kept { answer: Arc<Answer>, came: Duration },
}

impl Flights {
    pub(super) fn new(keep: Duration) -> Self {
        Self { board: Mutex::default(), keep }
    }

    /// A flight or an answer that will do, or one that `depart` makes. Who would wait in another agent's line
    /// makes an own one.
    pub(super) fn join(
        &self,
        agent: &AgentId,
        key: &Key,
        sharing: Sharing,
        now: Duration,
        depart: impl FnOnce() -> Result<Departure, ResolveFailure>,
    ) -> Result<(Flight, Via), ResolveFailure> {
        let mut board = self.lock();
        board.sweep(now, self.keep);
        if let Some(found) = board.entries.get(key).and_then(|entry| entry.share(agent, sharing, now)) {
            return Ok(found);
        }
        if board.entries.len() >= ENTRIES_MAX {
            board.entries.retain(|_, entry| !entry.is_dead());
            if board.entries.len() >= ENTRIES_MAX {
                return Err(ResolveFailure {
                    error: ResolveError::Unavailable,
                    detail: Some("too many questions to this source at once".into()),
                });
            }
        }
        let Departure { flight, is_airborne } = depart()?;
        let flight = flight.shared();
        if let Some(weak) = flight.downgrade() {
            let state = State::Flying { flight: weak, agent: agent.clone(), is_airborne };
            board.entries.insert(key.clone(), Entry { started: now, state });
        }
        Ok((flight, Via::Own))
    }

    /// A flight that goes on for as long as this is held, although nobody may wait for it.
    pub(super) fn hold(&self, key: &Key, started: Duration) -> Option<Flight> {
        match self.lock().entries.get(key) {
            Some(Entry { started: at, state: State::Flying { flight, .. } }) if *at == started => {
                flight.upgrade()
            }
            Some(_) | None => None,
        }
    }

    /// Keeps the answer of the flight that started at `started`; a failure is not kept. Where it says so, the
    /// caller has to see to it that what is due is swept.
    #[must_use]
    pub(super) fn land(&self, key: Key, started: Duration, landing: &Landing, now: Duration) -> bool {
        let mut board = self.lock();
        if board.entries.get(&key).is_some_and(|entry| entry.started > started) {
            return false;
        }
        match landing {
            Err(_) => {
                board.entries.remove(&key);
                false
            }
            Ok(answer) => {
                let state = State::Kept { answer: Arc::clone(answer), came: now };
                let size = answer.size();
                board.kept.push_back((key.clone(), now, size));
                board.kept_size += size;
                board.entries.insert(key, Entry { started, state });
                board.sweep(now, self.keep);
                !std::mem::replace(&mut board.has_sweeper, true)
            }
        }
    }

    /// Drops what is due, and says when to come again; where nothing is kept, not at all.
    pub(super) fn sweep(&self, now: Duration) -> Option<Duration> {
        let mut board = self.lock();
        board.sweep(now, self.keep);
        let next = board.kept.front().map(|(_, came, _)| *came);
        board.has_sweeper = next.is_some();
        next.map(|came| came.max(now.saturating_sub(self.keep)).saturating_add(self.keep + SWEEP_LATE))
    }

    /// An answer that was asked for later than at `started`, and is there already: another agent's question was
    /// faster.
    pub(super) fn overtaken(&self, key: &Key, started: Duration) -> Option<Arc<Answer>> {
        match self.lock().entries.get(key) {
            Some(Entry { started: later, state: State::Kept { answer, .. } }) if *later >= started => {
                Some(Arc::clone(answer))
            }
            Some(_) | None => None,
        }
    }

    /// How many kept answers there are.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let board = self.lock();
        board.entries.values().filter(|entry| matches!(entry.state, State::Kept { .. })).count()
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// Drops what is due, some at a time, and the oldest where there is too much.
    fn sweep(&mut self, now: Duration, keep: Duration) {
        for _ in 0..SWEEP_MAX {
            let is_full = self.kept.len() > KEPT_MAX || self.kept_size > KEPT_SIZE_MAX;
            let Some((key, came, size)) =
                self.kept.pop_front_if(|(_, came, _)| is_full || now.saturating_sub(*came) > keep)
            else {
                return;
            };
            self.kept_size = self.kept_size.saturating_sub(size);
            let is_it = |entry: &Entry| matches!(&entry.state, State::Kept { came: at, .. } if *at == came);
            if self.entries.get(&key).is_some_and(is_it) {
                self.entries.remove(&key);
            }
        }
    }
}

impl Entry {
    fn share(
        &self,
        who: &AgentId,
        Sharing { age_max, not_before }: Sharing,
        now: Duration,
    ) -> Option<(Flight, Via)> {
        if self.started < not_before {
            return None;
        }
        match &self.state {
            State::Flying { flight, agent, is_airborne } => {
                let will_do = agent == who || is_airborne.load(Ordering::Acquire);
                Some((flight.upgrade().filter(|_| will_do)?, Via::Shared))
            }
            State::Kept { answer, came } if now.saturating_sub(*came) <= age_max => {
                let answer = Arc::clone(answer);
                Some((std::future::ready(Ok(answer)).boxed().shared(), Via::Kept))
            }
            State::Kept { .. } => None,
        }
    }

    fn is_dead(&self) -> bool {
        match &self.state {
            State::Flying { flight, .. } => flight.upgrade().is_none(),
            State::Kept { .. } => false,
        }
    }
}

const ENTRIES_MAX: usize = 16_384;
const KEPT_MAX: usize = 4_096;
/// In bytes.
const KEPT_SIZE_MAX: usize = 64 << 20;
/// What came at the same time goes at the same time.
const SWEEP_LATE: Duration = Duration::from_millis(10);
/// More than one answer comes for each question, so this keeps up.
const SWEEP_MAX: usize = 32;
