//! Approvals: what waits for a person, and what persons have decided.
//!
//! All of it is in memory and bounded: a restart forgets it, and then it has to be asked and approved again. Nothing
//! here decides. An approval takes one hurdle away, at the gate, where policy is asked first each time.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::audit::RecordId;
use crate::clock::{Clock, Timestamp};
use crate::identity::{AgentId, GroupId, PersonId, ToolId};
use crate::lease::LeaseId;
use crate::request::{AccessRequest, Call, Claim};
use crate::target::Target;
use crate::text::{Destination, Purpose, Session};

/// The bounds of approvals.
#[derive(Debug, Clone, Copy)]
pub struct ApprovalLimits {
    /// How long an ask waits for a person.
    pub wait: Duration,
    /// How long what a person has decided holds.
    pub good_for: Duration,
    /// Asks that wait at the same time, and as many decisions.
    pub asks_max: usize,
    /// Asks of one agent that wait at the same time.
    pub asks_per_agent_max: usize,
}

/// What an agent asked for and was refused, because a person has to approve it first.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The lease that it would have been.
    pub id: LeaseId,
    /// Who asked, and for whom.
    pub subject: Subject,
    /// What needs the approval; at least one. What the same ask needs no approval for is not here.
    pub wants: Arc<[Want]>,
    /// Why, in the agent's words. Nobody has checked them.
    pub purpose: Option<Purpose>,
    /// The agent's own name for its run, likewise.
    pub session: Option<Session>,
    /// The groups that an approver must be in, all of them.
    pub groups: Arc<[GroupId]>,
    /// When it was asked first.
    pub create_time: Timestamp,
    /// When it no longer waits.
    pub expire_time: Timestamp,
}

/// Everything that an approval is for, beside the target: what differs in any of it needs an approval of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The agent.
    pub agent: AgentId,
    /// The person on whose behalf.
    pub person: Option<PersonId>,
    /// The tool.
    pub tool: ToolId,
    /// Where the secrets are to be sent, as the agent says.
    pub destination: Option<Destination>,
    /// What the agent's credential says about it beside its name.
    pub claims: Arc<[Claim]>,
}

/// One reference that needs an approval.
#[derive(Debug, Clone)]
pub struct Want {
    /// As asked first.
    pub reference: Arc<str>,
    /// What it means. This is what is approved, however it is spelled.
    pub target: Arc<Target>,
    /// The record of the refusal.
    pub record: RecordId,
}

/// What a person does with an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Lets it be granted, for a while.
    Approve,
    /// Has it refused, for a while.
    Reject,
}

/// A bound of what waits is reached; which, and how much it is.
#[derive(Debug, Clone, Copy)]
pub struct AsksFull {
    /// `asks` or `asks_per_agent`.
    pub limit: &'static str,
    /// The bound.
    pub max: usize,
}

impl fmt::Display for AsksFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too much waits for approval: {} may be at most {}", self.limit, self.max)
    }
}

/// What a person has decided about one target, as long as it holds.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub(crate) choice: Choice,
    pub(crate) ask: LeaseId,
    /// The call that decided.
    pub(crate) by: Arc<Call>,
    /// Its record.
    pub(crate) record: RecordId,
}

/// What waits and what is decided.
pub(crate) struct Approvals {
    /// Held for a look or a change, never while policy is asked or anything is written.
    state: Mutex<State>,
    limits: ApprovalLimits,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    /// Counts the asks: their order, and the places of pages.
    asked: u64,
    /// The oldest first.
    waiting: BTreeMap<u64, Waiting>,
    /// The oldest first.
    settled: Vec<Settled>,
}

struct Waiting {
    ask: Arc<Ask>,
    /// On the monotonic clock.
    until: Duration,
}

struct Settled {
    subject: Subject,
    targets: Vec<(Arc<Target>, Decided)>,
    /// On the monotonic clock.
    until: Duration,
}

impl Default for ApprovalLimits {
    fn default() -> Self {
        let quarter = Duration::from_secs(15 * 60);
        Self { wait: quarter, good_for: quarter, asks_max: 1_024, asks_per_agent_max: 16 }
    }
}

impl Subject {
    /// Of a request.
    #[must_use]
    pub fn of(request: &AccessRequest) -> Self {
        // By name, so that whatever is added to a request is thought of here. Session, purpose and life are the agent's
        // to choose, and policy sees them again.
        let AccessRequest {
            call: _,
            opened_by,
            kind: _,
            agent,
            tool,
            reference: _,
            target: _,
            life: _,
            purpose: _,
            session: _,
            destination,
            lease: _,
            handle: _,
        } = request;
        Self {
            agent: agent.clone(),
            person: opened_by.behalf.as_ref().map(|behalf| behalf.person.clone()),
            tool: tool.clone(),
            destination: destination.clone(),
            claims: Arc::clone(&opened_by.claims),
        }
    }
}

impl Approvals {
    pub(crate) fn new(limits: ApprovalLimits, clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), limits, clock }
    }

    /// How long a decision holds.
    pub(crate) fn good_for(&self) -> Duration {
        self.limits.good_for
    }

    /// What persons have decided about what a request asks for, and still holds, the newest first.
    pub(crate) fn decided(&self, request: &AccessRequest) -> Vec<Decided> {
        let subject = Subject::of(request);
        let state = self.lock();
        let about = state.settled.iter().rev().filter(|settled| settled.subject == subject);
        about
            .flat_map(|settled| &settled.targets)
            .filter(|(target, _)| *target == request.target)
            .map(|(_, decided)| decided.clone())
            .collect()
    }

    /// Puts an ask among those that wait, and returns it. Where the same is asked already, that one is returned: it
    /// keeps its id and its time.
    ///
    /// # Errors
    /// [`AsksFull`] names the bound that is reached.
    pub(crate) fn wait(
        &self,
        id: LeaseId,
        request: &AccessRequest,
        wants: Vec<Want>,
        groups: Arc<[GroupId]>,
    ) -> Result<Arc<Ask>, AsksFull> {
        let (subject, now) = (Subject::of(request), self.clock.monotonic());
        let mut state = self.lock();
        if let Some(same) = state.waiting.values_mut().find(|it| it.is_of(&subject, &wants)) {
            // The policies may ask for others by now.
            same.ask = Arc::new(Ask { groups, ..same.ask.as_ref().clone() });
            return Ok(Arc::clone(&same.ask));
        }
        let ApprovalLimits { wait, good_for: _, asks_max, asks_per_agent_max } = self.limits;
        let own = state.waiting.values().filter(|it| it.ask.subject.agent == subject.agent).count();
        for (limit, has, max) in
            [("asks_per_agent", own, asks_per_agent_max), ("asks", state.waiting.len(), asks_max)]
        {
            if has >= max {
                return Err(AsksFull { limit, max });
            }
        }
        let create_time = self.clock.now();
        let ask = Arc::new(Ask {
            id,
            subject,
            wants: wants.into(),
            purpose: request.purpose.clone(),
            session: request.session.clone(),
            groups,
            create_time,
            expire_time: create_time.after(wait),
        });
        state.asked += 1;
        let place = state.asked;
        state.waiting.insert(place, Waiting { ask: Arc::clone(&ask), until: now + wait });
        Ok(ask)
    }

    /// What waits, with its place, the oldest first, from after a place on.
    pub(crate) fn waiting(&self, after: u64) -> Vec<(u64, Arc<Ask>)> {
        let state = self.lock();
        let later = state.waiting.range(after.saturating_add(1)..);
        later.map(|(place, waiting)| (*place, Arc::clone(&waiting.ask))).collect()
    }

    /// The ask of that id, where it still waits.
    pub(crate) fn find(&self, id: LeaseId) -> Option<Arc<Ask>> {
        let state = self.lock();
        state.waiting.values().find(|it| it.ask.id == id).map(|it| Arc::clone(&it.ask))
    }

    /// Ends the wait of an ask with what a person has decided, whose records, one for each want, are durable. `false`
    /// where it no longer waits: then nothing is decided.
    ///
    /// # Errors
    /// [`AsksFull`] where too much is decided already; the ask waits on.
    pub(crate) fn decide(
        &self,
        ask: &Ask,
        choice: Choice,
        by: &Arc<Call>,
        records: &[RecordId],
    ) -> Result<bool, AsksFull> {
        let mut state = self.lock();
        let Some(place) =
            state.waiting.iter().find_map(|(place, it)| (it.ask.id == ask.id).then_some(*place))
        else {
            return Ok(false);
        };
        if state.settled.len() >= self.limits.asks_max {
            return Err(AsksFull { limit: "decisions", max: self.limits.asks_max });
        }
        state.waiting.remove(&place);
        let decided = |record| Decided { choice, ask: ask.id, by: Arc::clone(by), record };
        let targets = ask.wants.iter().zip(records);
        let targets = targets.map(|(want, record)| (Arc::clone(&want.target), decided(*record)));
        let until = self.clock.monotonic() + self.limits.good_for;
        state.settled.push(Settled { subject: ask.subject.clone(), targets: targets.collect(), until });
        Ok(true)
    }

    /// The state without what is over.
    fn lock(&self) -> MutexGuard<'_, State> {
        let now = self.clock.monotonic();
        // Nothing panics while it holds the lock; were it to happen, what is there is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.retain(|_, it| now < it.until);
        state.settled.retain(|it| now < it.until);
        state
    }
}

impl Waiting {
    fn is_of(&self, subject: &Subject, wants: &[Want]) -> bool {
        let targets =
            |wants: &[Want]| wants.iter().map(|want| Arc::clone(&want.target)).collect::<HashSet<_>>();
        self.ask.subject == *subject && targets(&self.ask.wants) == targets(wants)
    }
}
