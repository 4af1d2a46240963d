//! Fakes of the ports, for tests of this crate and of the adapters. Behind the feature `test-util`, which
//! only dev-dependencies enable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::audit::{AuditError, AuditLog, AuditOutcome, AuditRecord, Reason, RecordId};
use crate::bearer::PublicId;
use crate::clock::{Clock, Timestamp};
use crate::credential::Credential;
use crate::decision::{Allow, AuditScope, Decision, Deny, Obligations, PolicyId, Revision};
use crate::gate::{Grant, Survey};
use crate::handle::Handle;
use crate::identity::{AgentId, GroupId, Identity, KeyThumbprint, Name, PersonId, ToolId};
use crate::inventory::{Access, AccessQuestion, Inventory, KnownItem};
use crate::policy::PolicyEngine;
use crate::reference::SecretReference;
use crate::request::{AccessKind, AccessRequest, AdminRequest, Call, Life, RequestId};
use crate::resolver::{
    Directory, Gap, Located, Provenance, ResolveError, ResolveFailure, Resolved, Resolver,
};
use crate::secret::SecretValue;
use crate::target::{Facet, FieldTarget, Named, Target};
use crate::text::Purpose;

/// A clock that moves when it is told to. Clones share one time.
#[derive(Clone)]
pub struct FakeClock(watch::Sender<Duration>);

/// A log in memory that can be made to fail.
#[derive(Default)]
pub struct FakeLog {
    state: Mutex<FakeLogState>,
}

#[derive(Default)]
struct FakeLogState {
    records: Vec<AuditRecord>,
    outcomes: Vec<(RecordId, AuditOutcome)>,
    broken: bool,
    hook: Option<Hook>,
}

/// Something to happen once, in the middle of something else.
type Hook = Box<dyn FnOnce() + Send>;

/// A policy that allows what its function allows.
pub struct FakePolicy {
    rule: Mutex<Rule>,
    admin: Mutex<AdminRule>,
    generation: Mutex<u64>,
}

type Rule = Box<dyn Fn(&AccessRequest) -> Option<Obligations> + Send>;
type AdminRule = Box<dyn Fn(&AdminRequest) -> bool + Send>;

/// A vault in memory: references, word by word, and their values.
#[derive(Default)]
pub struct FakeVault {
    state: Mutex<FakeVaultState>,
}

#[derive(Default)]
struct FakeVaultState {
    values: HashMap<String, &'static str>,
    /// What is not known of a reference.
    gaps: HashMap<String, Gap>,
    reads: Vec<RecordId>,
    surveys: Vec<RecordId>,
    error: Option<ResolveError>,
    learn_error: Option<ResolveError>,
    /// How many of the next reads fail, and how.
    next_errors: Option<(usize, ResolveError)>,
    hook: Option<Hook>,
}

impl Default for FakeClock {
    fn default() -> Self {
        Self(watch::Sender::new(Duration::from_secs(1)))
    }
}

impl FakeClock {
    /// Moves time on.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_780_000_000_000_000).after(*self.0.borrow())
    }

    fn monotonic(&self) -> Duration {
        *self.0.borrow()
    }

    async fn sleep_until(&self, instant: Duration) {
        // The sender lives as long as `self`, so this returns only when the time has come.
        let _ = self.0.subscribe().wait_for(|now| *now >= instant).await;
    }
}

impl FakeLog {
    /// What was recorded, in order.
    #[must_use]
    pub fn records(&self) -> Vec<AuditRecord> {
        self.lock().records.clone()
    }

    /// The outcomes, in order.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(RecordId, AuditOutcome)> {
        self.lock().outcomes.clone()
    }

    /// Makes writing fail, or work again.
    pub fn set_broken(&self, broken: bool) {
        self.lock().broken = broken;
    }

    /// Runs `hook` once, when the next records are written but nobody has acted on them yet.
    pub fn on_next_record(&self, hook: impl FnOnce() + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    fn lock(&self) -> MutexGuard<'_, FakeLogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuditLog for FakeLog {
    async fn record(&self, records: Vec<AuditRecord>) -> Result<Vec<RecordId>, AuditError> {
        // A real log waits for its disk: let others run meanwhile.
        tokio::task::yield_now().await;
        let mut state = self.lock();
        if state.broken {
            return Err(AuditError("it was told to fail".into()));
        }
        let first = state.records.len() as u64 + 1;
        let ids = (first..first + records.len() as u64).map(RecordId).collect();
        state.records.extend(records);
        let hook = state.hook.take();
        drop(state);
        if let Some(hook) = hook {
            hook();
        }
        Ok(ids)
    }

    fn record_outcome(&self, grant: Grant, outcome: AuditOutcome) {
        self.lock().outcomes.push((grant.record(), outcome));
    }
}

impl FakePolicy {
    /// Allows what `rule` gives obligations for.
    pub fn new(rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static) -> Self {
        let persons = |request: &AdminRequest| matches!(request.call.caller, Identity::Person(_));
        Self {
            rule: Mutex::new(Box::new(rule)),
            admin: Mutex::new(Box::new(persons)),
            generation: Mutex::new(1),
        }
    }

    /// Has `rule` say what is allowed beside secrets, instead of everything to persons; no new generation.
    pub fn administer(&self, rule: impl Fn(&AdminRequest) -> bool + Send + 'static) {
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// Puts another rule in force, as a new generation.
    pub fn install(&self, rule: impl Fn(&AccessRequest) -> Option<Obligations> + Send + 'static) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

impl PolicyEngine for FakePolicy {
    fn decide(&self, request: &AccessRequest) -> Decision {
        let revision = self.revision();
        match self.rule.lock().unwrap_or_else(PoisonError::into_inner)(request) {
            Some(obligations) => {
                Decision::Allow(Allow { policies: [PolicyId("fake".into())].into(), obligations, revision })
            }
            None => Decision::Deny(no_permit(revision)),
        }
    }

    fn may_allow(&self, request: &AccessRequest, _: Gap) -> bool {
        matches!(self.decide(request), Decision::Allow(_))
    }

    fn decide_admin(&self, request: &AdminRequest) -> Decision {
        let revision = self.revision();
        match self.admin.lock().unwrap_or_else(PoisonError::into_inner)(request) {
            true => Decision::Allow(Allow {
                policies: [PolicyId("fake".into())].into(),
                obligations: Obligations::default(),
                revision,
            }),
            false => Decision::Deny(no_permit(revision)),
        }
    }

    fn decide_audit(&self, caller: &Identity, vaults: &[Named]) -> (Decision, AuditScope) {
        let revision = self.revision();
        let allow = Allow {
            policies: [PolicyId("fake".into())].into(),
            obligations: Obligations::default(),
            revision,
        };
        match caller {
            Identity::Person(_) => (Decision::Allow(allow), AuditScope::Vaults(vaults.into())),
            Identity::Agent(_) | Identity::Tool(_) => {
                (Decision::Deny(no_permit(revision)), AuditScope::Vaults([].into()))
            }
        }
    }

    fn access(&self, items: &[KnownItem], questions: &[AccessQuestion]) -> Access {
        let all = |_: &AccessQuestion| (0..items.len()).collect();
        Access { items: questions.iter().map(all).collect(), exact: true }
    }

    fn agents(&self) -> Vec<AgentId> {
        Vec::new()
    }

    fn policies(&self) -> Vec<PolicyId> {
        vec![PolicyId("fake".into())]
    }

    fn revision(&self) -> Revision {
        let generation = *self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        Revision { generation, digest: [0; 8] }
    }
}

fn no_permit(revision: Revision) -> Deny {
    Deny { reason: Reason::PolicyNoPermit, policies: [].into(), advice: None, detail: None, revision }
}

impl FakeVault {
    /// A vault with these references and values.
    #[must_use]
    pub fn new(values: &[(&str, &'static str)]) -> Self {
        let values = values.iter().map(|(reference, value)| ((*reference).to_owned(), *value)).collect();
        Self { state: Mutex::new(FakeVaultState { values, ..FakeVaultState::default() }) }
    }

    /// The records under whose grants values were fetched.
    #[must_use]
    pub fn reads(&self) -> Vec<RecordId> {
        self.lock().reads.clone()
    }

    /// The records under whose surveys something was looked up.
    #[must_use]
    pub fn surveys(&self) -> Vec<RecordId> {
        self.lock().surveys.clone()
    }

    /// Forgets what a reference means, from this level on.
    pub fn forget(&self, reference: &str, gap: Gap) {
        self.lock().gaps.insert(reference.to_owned(), gap);
    }

    /// Puts a value in, or another in its place.
    pub fn set(&self, reference: &str, value: &'static str) {
        self.lock().values.insert(reference.to_owned(), value);
    }

    /// Takes a value out.
    pub fn remove(&self, reference: &str) {
        self.lock().values.remove(reference);
    }

    /// Makes fetching fail, or work again.
    pub fn set_error(&self, error: Option<ResolveError>) {
        self.lock().error = error;
    }

    /// Makes looking up fail, or work again.
    pub fn fail_learning(&self, error: Option<ResolveError>) {
        self.lock().learn_error = error;
    }

    /// Makes the next so many fetches fail.
    pub fn fail_next_reads(&self, count: usize, error: ResolveError) {
        self.lock().next_errors = Some((count, error));
    }

    /// Runs `hook` once, in the middle of the next fetch.
    pub fn on_next_read(&self, hook: impl FnOnce() + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    fn lock(&self) -> MutexGuard<'_, FakeVaultState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Directory for FakeVault {
    fn locate(&self, reference: &SecretReference) -> Located {
        let state = self.lock();
        let gap = state.gaps.get(reference.as_str()).copied();
        let target = if gap.is_none() && state.values.contains_key(reference.as_str()) {
            target(reference)
        } else {
            Target::Unresolved {
                vault: Some(named(reference.vault())),
                item: None,
                error: ResolveError::ItemNotFound,
            }
        };
        Located { target, gap }
    }

    async fn learn(&self, surveys: &[&Survey]) -> Vec<Result<(), ResolveFailure>> {
        let mut state = self.lock();
        let learn = |survey: &&Survey| {
            state.surveys.push(survey.record());
            if let Some(error) = state.learn_error.as_ref().or(state.error.as_ref()) {
                return Err(error.clone().into());
            }
            let next = match survey.gap() {
                Gap::Vaults => Some(Gap::Items),
                Gap::Items => Some(Gap::Fields),
                Gap::Fields => None,
            };
            let reference = survey.request().reference.as_str().to_owned();
            match next {
                Some(gap) => state.gaps.insert(reference, gap),
                None => state.gaps.remove(&reference),
            };
            Ok(())
        };
        surveys.iter().map(learn).collect()
    }

    fn inventory(&self) -> Inventory {
        Inventory::default()
    }
}

#[async_trait]
impl Resolver for FakeVault {
    async fn resolve(&self, grants: &[&Grant]) -> Vec<Result<Resolved, ResolveFailure>> {
        let hook = self.lock().hook.take();
        if let Some(hook) = hook {
            hook();
        }
        let mut state = self.lock();
        let fetch = |grant: &&Grant| {
            state.reads.push(grant.record());
            if let Some((left, error)) = &mut state.next_errors
                && *left > 0
            {
                *left -= 1;
                return Err(error.clone().into());
            }
            if let Some(error) = &state.error {
                return Err(error.clone().into());
            }
            let value =
                state.values.get(grant.request().reference.as_str()).ok_or(ResolveError::Unavailable)?;
            let value = SecretValue::new(value.as_bytes().to_vec());
            let read_time = Timestamp::from_micros(1_780_000_000_000_000);
            let provenance = Provenance { source: "fake".into(), item_version: Some(1), read_time };
            Ok(Resolved { value, provenance })
        };
        grants.iter().map(fetch).collect()
    }
}

/// A target for a reference, taken word by word.
#[must_use]
pub fn target(reference: &SecretReference) -> Target {
    Target::Field(FieldTarget {
        vault: named(reference.vault()),
        item: named(reference.item()),
        field_id: reference.field().to_lowercase().into(),
        field: reference.field().to_lowercase().into(),
        section: reference.section().unwrap_or_default().to_lowercase().into(),
        facet: Facet::Value,
    })
}

fn named(word: &str) -> Named {
    Named { id: word.to_lowercase().into(), name: word.to_lowercase().into(), name_is_unique: true }
}

/// A call of a caller.
#[must_use]
pub fn call(caller: Identity) -> Arc<Call> {
    Arc::new(Call {
        id: RequestId(PublicId::from_bytes([7; 10])),
        caller,
        key: None,
        client: "test".into(),
        trace: None,
        credential: Credential::new("test", None),
        claims: [].into(),
        behalf: None,
    })
}

/// A call of a caller over mutual TLS, with this key.
#[must_use]
pub fn call_with_key(caller: Identity, key: u8) -> Arc<Call> {
    Arc::new(Call { key: Some(KeyThumbprint([key; 32])), ..call(caller).as_ref().clone() })
}

/// The agent of that name.
///
/// # Panics
/// Where `name` is no name.
#[must_use]
#[expect(clippy::unwrap_used, reason = "for tests")]
pub fn agent(name: &str) -> AgentId {
    AgentId(Name::parse(name).unwrap())
}

/// The tool of that name.
///
/// # Panics
/// Where `name` is no name.
#[must_use]
#[expect(clippy::unwrap_used, reason = "for tests")]
pub fn tool(name: &str) -> ToolId {
    ToolId(Name::parse(name).unwrap())
}

/// The person of that name.
///
/// # Panics
/// Where `name` is no name.
#[must_use]
#[expect(clippy::unwrap_used, reason = "for tests")]
pub fn person(name: &str) -> PersonId {
    PersonId(Name::parse(name).unwrap())
}

/// The group of that name.
///
/// # Panics
/// Where `name` is no name.
#[must_use]
#[expect(clippy::unwrap_used, reason = "for tests")]
pub fn group(name: &str) -> GroupId {
    GroupId(Name::parse(name).unwrap())
}

/// The reference.
///
/// # Panics
/// Where `text` is none.
#[must_use]
#[expect(clippy::unwrap_used, reason = "for tests")]
pub fn reference(text: &str) -> SecretReference {
    SecretReference::parse(text).unwrap()
}

/// A fresh handle that belongs to no lease.
#[must_use]
pub fn handle() -> Handle {
    Handle::random()
}

/// A request of agent `bot` for `text`, for tool `tool`, taken word by word.
///
/// # Panics
/// Where `text` is no reference.
#[must_use]
#[expect(clippy::unwrap_used, reason = "for tests")]
pub fn request(text: &str) -> AccessRequest {
    let reference = reference(text);
    let call = call(Identity::Agent(agent("bot")));
    AccessRequest {
        opened_by: Arc::clone(&call),
        call,
        kind: AccessKind::Acquire,
        agent: agent("bot"),
        tool: tool("tool"),
        target: Arc::new(target(&reference)),
        reference,
        life: Life::Usual(Duration::from_secs(60)),
        purpose: Some(Purpose::parse("a test").unwrap()),
        session: None,
        destination: None,
        lease: None,
        handle: None,
    }
}
