//! A whole broker over fakes, and short words for what happens to it. Every step checks the lease table.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::approval::ApprovalLimits;
use crate::audit::{OutcomeResult, RecordId, RecordKind, Ruling, ValueDigest};
use crate::broker::{Acquire, Broker, Refusal};
use crate::decision::Obligations;
use crate::digester::ValueDigester;
use crate::gate::Gate;
use crate::handle::Handle;
use crate::identity::Identity;
use crate::lease::{LeaseEvent, LeaseEvents, LeaseLimits, LeaseTable};
use crate::reference::SecretReference;
use crate::request::{AccessRequest, Call, Life};
use crate::testing::{self, FakeClock, FakeLog, FakePolicy, FakeVault};
use crate::text::Purpose;

/// Two fields of one item, one of another, and one that nobody knows.
pub(super) const A: &str = "op://v/one/a";
pub(super) const B: &str = "op://v/one/b";
pub(super) const C: &str = "op://v/two/c";
pub(super) const UNKNOWN: &str = "op://v/none/x";

pub(super) const LIMITS: LeaseLimits = LeaseLimits {
    leases_max: 20,
    leases_per_agent_max: 10,
    handles_max: 1000,
    handles_per_agent_max: 1000,
    dead_handles_max: 1000,
};

pub(super) struct World {
    pub(super) clock: FakeClock,
    pub(super) log: Arc<FakeLog>,
    pub(super) policy: Arc<FakePolicy>,
    pub(super) vault: Arc<FakeVault>,
    pub(super) broker: Arc<Broker>,
    /// Expiry and renewal, from the first [`World::keep`] on.
    keepers: Mutex<JoinSet<()>>,
}

/// A lease as its holder sees it.
pub(super) struct Lease {
    pub(super) events: LeaseEvents,
    /// What was issued, in order, renewals included.
    pub(super) handles: Vec<Handle>,
}

/// Allows everything on the usual terms.
pub(super) fn allow(_: &AccessRequest) -> Option<Obligations> {
    Some(Obligations::default())
}

/// Allows everything, this often.
pub(super) fn uses(uses: u32) -> impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static {
    move |_| Some(Obligations { uses, ..Obligations::default() })
}

/// Allows everything but this.
pub(super) fn deny(
    what: impl Fn(&AccessRequest) -> bool + Send + 'static,
) -> impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static {
    move |request| (!what(request)).then(Obligations::default)
}

/// Whether a request is for that reference.
pub(super) fn is(text: &'static str) -> impl Fn(&AccessRequest) -> bool + Send + 'static {
    move |request| request.reference.as_str() == text
}

pub(super) fn tool() -> Identity {
    Identity::Tool(testing::tool("tool"))
}

pub(super) fn agent(name: &str) -> Identity {
    Identity::Agent(testing::agent(name))
}

pub(super) fn person() -> Identity {
    Identity::Person(testing::person("olga"))
}

impl World {
    pub(super) fn new(rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static) -> Self {
        Self::bounded(LIMITS, rule)
    }

    pub(super) fn bounded(
        limits: LeaseLimits,
        rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static,
    ) -> Self {
        Self::with(limits, ApprovalLimits::default(), rule)
    }

    pub(super) fn approving(
        limits: ApprovalLimits,
        rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static,
    ) -> Self {
        Self::with(LIMITS, limits, rule)
    }

    fn with(
        limits: LeaseLimits,
        approvals: ApprovalLimits,
        rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static,
    ) -> Self {
        let clock = FakeClock::default();
        let shared: Arc<dyn crate::Clock> = Arc::new(clock.clone());
        let (log, policy) = (Arc::new(FakeLog::default()), Arc::new(FakePolicy::new(rule)));
        let vault = Arc::new(FakeVault::new(&[(A, "canary-a"), (B, "canary-b"), (C, "canary-c")]));
        let gate = Gate::new(policy.clone(), log.clone(), Arc::clone(&shared)).with_approvals(approvals);
        let table = LeaseTable::new(limits, Arc::clone(&shared));
        let digester = ValueDigester::parse(&ValueDigester::random_key()).ok();
        let broker = Broker::new(gate, vault.clone(), vault.clone(), table, shared, digester);
        Self { clock, log, policy, vault, broker, keepers: Mutex::default() }
    }

    pub(super) fn ask(&self, references: &[&str]) -> Acquire {
        Acquire {
            call: testing::call(agent("bot")),
            agent: testing::agent("bot"),
            tool: testing::tool("tool"),
            references: references.iter().map(|text| SecretReference::parse(text).unwrap()).collect(),
            purpose: Purpose::parse("a test").unwrap(),
            life: Life::Usual(Duration::from_secs(60)),
            partial: false,
            session: None,
            destination: None,
        }
    }

    pub(super) async fn try_acquire(&self, ask: Acquire) -> Result<Lease, Refusal> {
        let events = self.broker.acquire(ask).await;
        self.broker.leases().assert_consistent();
        events.map(|events| Lease { events, handles: Vec::new() })
    }

    pub(super) async fn acquire(&self, references: &[&str]) -> Lease {
        self.try_acquire(self.ask(references)).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    pub(super) async fn acquire_partial(&self, references: &[&str]) -> Lease {
        let ask = Acquire { partial: true, ..self.ask(references) };
        self.try_acquire(ask).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    /// Redeems as the tool: the value, or why not as the log says it.
    pub(super) async fn redeem(&self, handle: &Handle) -> Result<String, String> {
        self.redeem_text(tool(), &handle.expose_secret()).await
    }

    pub(super) async fn redeem_text(&self, caller: Identity, handle: &str) -> Result<String, String> {
        self.redeem_by(&testing::call(caller), handle).await
    }

    pub(super) async fn redeem_by(&self, call: &Arc<Call>, handle: &str) -> Result<String, String> {
        let redeemed = self.broker.redeem(call, handle, None).await;
        self.broker.leases().assert_consistent();
        match redeemed {
            Ok(redeemed) => Ok(String::from_utf8(redeemed.value.expose_secret().to_vec()).unwrap()),
            Err(refusal) => Err(self.why(&refusal)),
        }
    }

    /// Why something was refused: the kind of the refusal, and the reason in its record or outcome.
    pub(super) fn why(&self, refusal: &Refusal) -> String {
        let (kind, record) = match refusal {
            Refusal::Denied { denial, .. } => ("denied", denial.record),
            Refusal::Unresolved { record, .. } => ("unresolved", *record),
            Refusal::ApprovalRequired { record, .. } => ("waits", *record),
            Refusal::AskLimit { full, record } => (full.limit, *record),
            Refusal::AskNotFound { record } => ("no ask", *record),
            Refusal::HandleMalformed { record } => ("malformed", *record),
            Refusal::HandleNotActive { record } => ("inactive", *record),
            Refusal::LeaseNotFound { record } => ("no lease", *record),
            Refusal::LeaseLimit { full, record } => (full.limit, *record),
            Refusal::Draining { record } => ("draining", *record),
            Refusal::AgentLimit { full } => return format!("{}: not recorded", full.limit),
            Refusal::PolicyInFlux => return "in flux".to_owned(),
            Refusal::AuditUnavailable(_) => return "no log".to_owned(),
            Refusal::CredentialRevoked => return "revoked".to_owned(),
            Refusal::Broken => return "broken".to_owned(),
        };
        let reason = self.log.records()[usize::try_from(record.0).unwrap() - 1].reason.as_str();
        let outcome = self.log.outcomes().into_iter().find(|(of, _)| *of == record);
        let reason = outcome.and_then(|(_, outcome)| outcome.reason).unwrap_or(reason);
        format!("{kind} {reason}")
    }

    /// Lets the keepers run until both wait again.
    pub(super) async fn keep(&self) {
        self.start_keepers();
        yields().await;
        self.broker.leases().assert_consistent();
    }

    fn start_keepers(&self) {
        let mut keepers = self.keepers.lock().unwrap();
        if keepers.is_empty() {
            let (one, two) = (Arc::clone(&self.broker), Arc::clone(&self.broker));
            keepers.spawn(async move { one.keep_leases().await });
            keepers.spawn(async move { two.renew_leases().await });
        }
    }

    /// Lets time go by, in one step.
    pub(super) async fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.keep().await;
    }

    /// Puts another rule in force, as a reload does. How many handles that revoked.
    pub(super) fn change(
        &self,
        rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static,
    ) -> usize {
        let revoked = change(&self.policy, &self.broker, rule);
        self.broker.leases().assert_consistent();
        revoked
    }

    /// Puts another rule in force in the middle of what writes the next records.
    pub(super) fn change_later(&self, rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static) {
        let (policy, broker) = (Arc::clone(&self.policy), Arc::clone(&self.broker));
        self.log.on_next_record(move || {
            change(&policy, &broker, rule);
        });
    }

    /// The reasons in the records of a kind, in order.
    pub(super) fn reasons(&self, kind: RecordKind) -> Vec<&'static str> {
        let of_kind = |record: &crate::AuditRecord| (record.kind == kind).then(|| record.reason.as_str());
        self.log.records().iter().filter_map(of_kind).collect()
    }

    /// The results of all outcomes and their reasons, in order of their records.
    pub(super) fn outcomes(&self) -> Vec<(OutcomeResult, Option<&'static str>)> {
        let mut outcomes = self.log.outcomes();
        outcomes.sort_by_key(|(record, _)| *record);
        outcomes.into_iter().map(|(_, outcome)| (outcome.result, outcome.reason)).collect()
    }

    /// The digests of the outcomes, likewise.
    pub(super) fn digests(&self) -> Vec<Option<ValueDigest>> {
        let mut outcomes = self.log.outcomes();
        outcomes.sort_by_key(|(record, _)| *record);
        outcomes.into_iter().map(|(_, outcome)| outcome.value_digest).collect()
    }

    /// Checks what must hold when every lease is gone: nothing is left behind, every grant has its one
    /// outcome, and nothing secret is in the log.
    pub(super) async fn finish(self) {
        self.keep().await;
        self.keepers.into_inner().unwrap().shutdown().await;
        self.broker.flush().await.unwrap();
        self.broker.leases().assert_at_rest();
        let (records, outcomes) = (self.log.records(), self.log.outcomes());
        for (record, id) in records.iter().zip(1..).map(|(record, id)| (record, RecordId(id))) {
            let expected = usize::from(record.ruling == Ruling::Allow && record.kind.has_outcome());
            let has = outcomes.iter().filter(|(of, _)| *of == id).count();
            assert_eq!(has, expected, "outcomes of {record:?}");
        }
        let text = format!("{records:?}{outcomes:?}");
        assert!(!text.contains("canary"), "a value is in the log");
        let secret = |at: usize| text.as_bytes().get(at + 20) == Some(&b'_');
        assert!(!text.match_indices("vkh_").any(|(at, _)| secret(at)), "a handle is in the log");
    }
}

fn change(
    policy: &FakePolicy,
    broker: &Broker,
    rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static,
) -> usize {
    use crate::policy::PolicyEngine;
    policy.install(rule);
    broker.policies_changed(policy.revision())
}

impl Lease {
    /// The events that are there now, one line each.
    pub(super) fn read(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(event) = self.next_now() {
            let Some(event) = event else {
                lines.push("closed".to_owned());
                break;
            };
            lines.push(self.line(event));
        }
        lines
    }

    /// The next event, if it is there now. Unconstrained: tokio holds up a task that reads very much.
    fn next_now(&mut self) -> Option<Option<LeaseEvent>> {
        let next = pin!(tokio::task::unconstrained(self.events.next()));
        match next.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        }
    }

    fn line(&mut self, event: LeaseEvent) -> String {
        match event {
            LeaseEvent::Opened { lease, references } => {
                assert_eq!(lease, self.events.lease());
                format!("opened {}", references.len())
            }
            LeaseEvent::Issued(issued) => {
                self.handles.push(issued.handle);
                format!("issued {}", issued.reference)
            }
            LeaseEvent::Refused { reference, reason, .. } => format!("refused {reference} {reason}"),
            LeaseEvent::Renewed { issued, previous } => {
                let known = self.handles.iter().any(|handle| handle.id() == previous);
                assert!(known && issued.handle.id() != previous);
                self.handles.push(issued.handle);
                format!("renewed {}", issued.reference)
            }
            LeaseEvent::Revoked { reference, cause, .. } => format!("revoked {reference} {cause:?}"),
            LeaseEvent::Draining { .. } => "draining".to_owned(),
            LeaseEvent::Ended(cause) => format!("ended {cause:?}"),
        }
    }

    /// The handles of a lease that has just been acquired.
    pub(super) fn issued(&mut self) -> &[Handle] {
        self.read();
        &self.handles
    }
}

/// Long enough for everything that is ready to run.
async fn yields() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
