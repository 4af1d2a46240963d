//! Approvals: what waits for a person, and what persons have decided.
//!
//! All of it is in memory and bounded: a restart forgets it, and then it has to be asked and approved again. Nothing
//! here decides. An approval takes one hurdle away, at the gate, where policy is asked first each time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::audit::RecordId;
use crate::clock::{Clock, Timestamp};
use crate::credential::Credential;
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
    ask: Arc<Ask>,
    /// Of each of its wants.
    decided: Vec<Decided>,
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

    /// What persons have decided about what a request asks for, and still holds, the newest first. An approval is for
    /// one subject as a whole; a rejection is not got around by what the agent says beside.
    pub(crate) fn decided(&self, request: &AccessRequest) -> Vec<Decided> {
        let subject = Subject::of(request);
        let (reference, state) = (request.reference.text(), self.lock());
        let mut all = Vec::new();
        for Settled { ask, decided, until: _ } in state.settled.iter().rev() {
            let about = ask.wants.iter().zip(decided).filter(|(want, it)| {
                let same = match it.choice {
                    Choice::Approve => ask.subject == subject,
                    Choice::Reject => ask.subject.is_same_party(&subject),
                };
                same && want.is_about(&reference, &request.target)
            });
            all.extend(about.map(|(_, it)| it.clone()));
        }
        all
    }

    /// Whether something holds that was decided with this credential.
    pub(crate) fn has_decided_with(&self, credential: &Credential) -> bool {
        let state = self.lock();
        state.settled.iter().flat_map(|it| &it.decided).any(|it| it.by.credential == *credential)
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

    /// The ask of that id about which this can be decided: one that waits, or one to take the approval back from.
    pub(crate) fn find(&self, id: LeaseId, choice: Choice) -> Option<Arc<Ask>> {
        let state = self.lock();
        let waiting = state.waiting.values().map(|it| &it.ask);
        let approved = state.settled.iter().filter(|it| it.may_become(choice)).map(|it| &it.ask);
        waiting.chain(approved).find(|ask| ask.id == id).map(Arc::clone)
    }

    /// Ends the wait of an ask with what a person has decided, whose records, one for each want, are durable; or takes
    /// an approval back. With a rejection goes whatever else waits of the same and would need it. `false` where there
    /// is nothing to decide any more.
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
        let until = self.clock.monotonic() + self.limits.good_for;
        let decided =
            |record: &RecordId| Decided { choice, ask: ask.id, by: Arc::clone(by), record: *record };
        let decided = records.iter().map(decided).collect();
        let place = state.waiting.iter().find_map(|(place, it)| (it.ask.id == ask.id).then_some(*place));
        match place {
            Some(_) if state.settled.len() >= self.limits.asks_max => {
                return Err(AsksFull { limit: "decisions", max: self.limits.asks_max });
            }
            Some(place) => {
                let Some(Waiting { ask, until: _ }) = state.waiting.remove(&place) else { return Ok(false) };
                state.settled.push(Settled { ask, decided, until });
            }
            None => {
                let approved = |it: &Settled| it.ask.id == ask.id && it.may_become(choice);
                let Some(place) = state.settled.iter().position(approved) else { return Ok(false) };
                let Settled { ask, .. } = state.settled.remove(place);
                state.settled.push(Settled { ask, decided, until });
            }
        }
        if choice == Choice::Reject {
            state.waiting.retain(|_, it| !it.ask.needs_any_of(ask));
        }
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

impl Subject {
    /// Whether the same agent asks for the same person and tool.
    fn is_same_party(&self, other: &Self) -> bool {
        let Self { agent, person, tool, destination: _, claims: _ } = self;
        (agent, person, tool) == (&other.agent, &other.person, &other.tool)
    }
}

impl Want {
    /// Whether a decision on this is one on that. What leads nowhere is told apart by its words alone: else a decision
    /// on one would be one on all.
    fn is_about(&self, reference: &str, target: &Target) -> bool {
        let by_meaning = matches!(target, Target::Field(_));
        *self.target == *target && (by_meaning || self.is_spelled(reference))
    }

    fn is_spelled(&self, reference: &str) -> bool {
        self.reference.to_lowercase() == reference.to_lowercase()
    }
}

impl Ask {
    /// Whether this is refused where that is rejected.
    fn needs_any_of(&self, rejected: &Self) -> bool {
        let is_rejected =
            |want: &Want| rejected.wants.iter().any(|it| it.is_about(&want.reference, &want.target));
        self.subject.is_same_party(&rejected.subject) && self.wants.iter().any(is_rejected)
    }
}

impl Settled {
    /// Whether this can be decided of it: an approval can be taken back, and nothing else be changed.
    fn may_become(&self, choice: Choice) -> bool {
        choice == Choice::Reject && self.decided.iter().all(|it| it.choice == Choice::Approve)
    }
}

impl Waiting {
    /// Whether the same is asked, in the same words. In other words it waits by itself: an agent that sees what counts
    /// as the same would see what exists.
    fn is_of(&self, subject: &Subject, wants: &[Want]) -> bool {
        let all_in = |some: &[Want], others: &[Want]| {
            some.iter().all(|want| {
                others.iter().any(|it| it.target == want.target && it.is_spelled(&want.reference))
            })
        };
        self.ask.subject == *subject && all_in(&self.ask.wants, wants) && all_in(wants, &self.ask.wants)
    }
}
