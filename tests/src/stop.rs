//! A broker that stops at a named step and waits to be killed: wrappers around its ports, so that the code
//! under test is the code that ships.

use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use valetkey_core::{
    AuditError, AuditLog, AuditOutcome, AuditRecord, Grant, OutcomeResult, RecordId, RecordKind,
    ResolveFailure, Resolved, Resolver,
};
use valetkey_server::Ports;

/// A step between a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An acquire is decided, its record not yet with the log.
    AcquireDecided,
    /// Its record is durable.
    AcquireRecorded,
    /// Its value is there.
    AcquireResolved,
    /// Its handle is in the table; the outcome is not yet with the log.
    AcquireIssued,
    /// The log has the outcome; nothing is streamed yet.
    AcquireSettled,
    /// A redeem is decided, its record not yet with the log.
    RedeemDecided,
    /// Its record is durable.
    RedeemRecorded,
    /// Its value is open; the outcome is not yet with the log.
    RedeemReleased,
    /// The log has the outcome; the answer is not sent yet.
    RedeemSettled,
}

/// A port that stops at a step.
pub struct StopAt<P: ?Sized> {
    step: Step,
    port: Arc<P>,
}

impl Step {
    /// Every step, in the order of a request.
    pub const ALL: [Self; 9] = [
        Self::AcquireDecided,
        Self::AcquireRecorded,
        Self::AcquireResolved,
        Self::AcquireIssued,
        Self::AcquireSettled,
        Self::RedeemDecided,
        Self::RedeemRecorded,
        Self::RedeemReleased,
        Self::RedeemSettled,
    ];

    /// The step of that name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name).context("there is no such step")
    }

    /// Its name, for a command line.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    #[expect(clippy::print_stdout, reason = "this is how the process talks to the test")]
    fn reached(self) {
        println!("reached");
        loop {
            std::thread::park();
        }
    }
}

impl<P: ?Sized> StopAt<P> {
    fn reach(&self, step: Step) {
        if self.step == step {
            step.reached();
        }
    }
}

impl StopAt<dyn AuditLog> {
    /// Wraps a broker's ports.
    #[must_use]
    pub fn wrap(step: Step, ports: Ports) -> Ports {
        let Ports { log, directory, resolver } = ports;
        Ports {
            log: Arc::new(StopAt { step, port: log }),
            directory,
            resolver: Arc::new(StopAt { step, port: resolver }),
        }
    }
}

#[async_trait]
impl AuditLog for StopAt<dyn AuditLog> {
    async fn record(&self, records: Vec<AuditRecord>) -> Result<Vec<RecordId>, AuditError> {
        let kind = records.first().map(|record| record.kind);
        match kind {
            Some(RecordKind::Acquire) => self.reach(Step::AcquireDecided),
            Some(RecordKind::Redeem) => self.reach(Step::RedeemDecided),
            _ => {}
        }
        let recorded = self.port.record(records).await;
        match kind {
            Some(RecordKind::Acquire) => self.reach(Step::AcquireRecorded),
            Some(RecordKind::Redeem) => self.reach(Step::RedeemRecorded),
            _ => {}
        }
        recorded
    }

    fn record_outcome(&self, grant: Grant, outcome: AuditOutcome) {
        let result = outcome.result;
        match result {
            OutcomeResult::Issued => self.reach(Step::AcquireIssued),
            OutcomeResult::Released => self.reach(Step::RedeemReleased),
            OutcomeResult::Failed | OutcomeResult::Withheld | OutcomeResult::Interrupted => {}
        }
        self.port.record_outcome(grant, outcome);
        match result {
            OutcomeResult::Issued => self.reach(Step::AcquireSettled),
            OutcomeResult::Released => self.reach(Step::RedeemSettled),
            OutcomeResult::Failed | OutcomeResult::Withheld | OutcomeResult::Interrupted => {}
        }
    }
}

#[async_trait]
impl Resolver for StopAt<dyn Resolver> {
    async fn resolve(&self, grants: &[&Grant]) -> Vec<Result<Resolved, ResolveFailure>> {
        let resolved = self.port.resolve(grants).await;
        self.reach(Step::AcquireResolved);
        resolved
    }
}
