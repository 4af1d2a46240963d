//! What the log says of use, in numbers: the rows that reports are made of.
//!
//! A record counts on the day of its own time, whenever its outcome came. A use is a handle that was issued or a value
//! that was released. Counting is exact up to [`Counted::seen`], and what lies outside of a scope is not there.

use std::ops::Range;

use valetkey_core::{OutcomeResult, Reason, RecordId, RecordKind, Timestamp};

/// A day in UTC, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

/// Days from `start` on and before `end`.
pub type Days = Range<Day>;

/// Whose use is counted. Names of vaults and items in any case; all else as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Everybody's.
    Everybody,
    /// An agent's.
    Agent(String),
    /// Of a vault, by id or by a name that it had.
    Vault(String),
    /// Of an item, by id or by a name that it had.
    Item(String),
    /// By a tool.
    Tool(String),
}

/// A thing with an id and the name that it had then, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thing {
    /// The source's id.
    pub id: String,
    /// The name.
    pub name: String,
}

/// Records that agree in all of this, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Who asked; absent where no agent is concerned.
    pub agent: Option<String>,
    /// With which tool; likewise.
    pub tool: Option<String>,
    /// Of which vault; absent where the reference led to none.
    pub vault: Option<Thing>,
    /// Of which item; likewise.
    pub item: Option<Thing>,
    /// What was asked. [`RecordKind::Acquire`], [`RecordKind::Renew`], [`RecordKind::Redeem`] alone.
    pub kind: RecordKind,
    /// What came of it.
    pub result: UsageResult,
    /// How often.
    pub count: u64,
    /// The last one, by its number.
    pub last: RecordId,
    /// When that was.
    pub last_time: Timestamp,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UsageResult {
    /// It was refused.
    Refused(Reason),
    /// It was allowed, and this came of it; `None` where that is still to come.
    Allowed(Option<OutcomeResult>),
}

/// The first time that an agent used an item with a tool: a handle was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstUse {
    /// The agent.
    pub agent: String,
    /// The tool.
    pub tool: String,
    /// The vault, as it was called then.
    pub vault: Thing,
    /// The item, likewise.
    pub item: Thing,
    /// The record.
    pub record: RecordId,
    /// When.
    pub time: Timestamp,
}

/// Refusals that agree in all of this, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals {
    /// Who asked; absent where no agent is concerned.
    pub agent: Option<String>,
    /// With which tool; likewise.
    pub tool: Option<String>,
    /// Of which vault; absent where the reference led to none.
    pub vault: Option<Thing>,
    /// Of which item; likewise.
    pub item: Option<Thing>,
    /// What was asked; of any kind.
    pub kind: RecordKind,
    /// Why it was refused.
    pub reason: Reason,
    /// How often.
    pub count: u64,
    /// The last one, by its number.
    pub last: RecordId,
    /// When that was.
    pub last_time: Timestamp,
}

/// The last time that an agent used an item, by any tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    /// The agent.
    pub agent: String,
    /// The vault, as it was called then.
    pub vault: Thing,
    /// The item, likewise.
    pub item: Thing,
    /// The record.
    pub record: RecordId,
    /// When.
    pub time: Timestamp,
}

/// What a policy determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyUse {
    /// The policy's id.
    pub policy: String,
    /// How many records name it.
    pub count: u64,
    /// The last one.
    pub last: RecordId,
    /// When that was.
    pub last_time: Timestamp,
}

/// An answer, and up to which record it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted<T> {
    /// The answer.
    pub rows: T,
    /// Every record up to here was counted.
    pub seen: RecordId,
}

/// How far the index follows the log. Answers are exact all the same: what is not in the index is read from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexProgress {
    /// Every record up to here is in the index.
    pub indexed: RecordId,
    /// The last record of the log.
    pub last: RecordId,
}

impl IndexProgress {
    /// Records that are not in the index.
    #[must_use]
    pub fn lag(self) -> u64 {
        self.last.0.saturating_sub(self.indexed.0)
    }
}

impl Day {
    /// Its first microsecond.
    pub(crate) fn start_us(self) -> i64 {
        self.0.saturating_mul(DAY_US)
    }

    /// The day of a moment.
    pub(crate) fn of_us(time_us: i64) -> Self {
        Self(time_us.div_euclid(DAY_US))
    }
}

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
