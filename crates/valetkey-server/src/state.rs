//! What the broker is doing, for operators: its leases, its log, its sources.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use valetkey_audit::AuditReader;
use valetkey_core::{Broker, PolicyEngine, ResolveError, Timestamp};
use valetkey_onepassword::{SourceFigures, SourceState, Sources, Spending};
use valetkey_proto::v1;

use crate::convert::timestamp;

/// What is looked at.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) broker: Arc<Broker>,
    pub(crate) engine: Arc<dyn PolicyEngine>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) audit_available: watch::Receiver<bool>,
    pub(crate) audit: AuditReader,
    /// The last durable record, as it moves.
    pub(crate) audit_committed: watch::Receiver<u64>,
    pub(crate) started: Timestamp,
}

impl State {
    /// All of it, as it is now. Asks no source.
    pub(crate) fn show(&self) -> v1::GetStatusResponse {
        let now = self.broker.clock().now();
        let (leases, handles) = self.broker.leases().counts();
        v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(timestamp(self.started)),
            policy_revision: self.engine.revision().digest_text(),
            leases: wide(leases),
            handles: wide(handles),
            audit_available: *self.audit_available.borrow(),
            audit_index_lag: self.audit_committed.borrow().saturating_sub(self.audit.indexed().0),
            sources: self.sources.figures().into_iter().map(|figures| source(figures, now)).collect(),
        }
    }
}

fn source(figures: SourceFigures, now: Timestamp) -> v1::SourceStatus {
    let SourceFigures {
        name,
        kind,
        state,
        hour,
        day,
        reads,
        shared_reads,
        cache_hits,
        last_success,
        last_failure,
    } = figures;
    let (state, wait) = match state {
        SourceState::Ready => (v1::SourceState::Ready, None),
        SourceState::Failing { error: _ } => (v1::SourceState::Failing, None),
        SourceState::Spent { retry_after } => (v1::SourceState::Limited, Some(retry_after)),
        SourceState::Paused { error, remaining } => (paused(&error), Some(remaining)),
    };
    let later = |wait: Duration| timestamp(now.after(wait));
    v1::SourceStatus {
        name: name.to_string(),
        kind: kind.to_owned(),
        state: state.into(),
        last_error: last_failure.map(|(_, error)| error.code().to_owned()).unwrap_or_default(),
        retry_time: wait.map(later),
        last_success_time: last_success.map(timestamp),
        hour: quota(hour),
        day: quota(day),
        reads,
        shared_reads,
        cached_reads: cache_hits,
    }
}

fn paused(error: &ResolveError) -> v1::SourceState {
    match error {
        ResolveError::RateLimited { .. } | ResolveError::BudgetSpent { .. } => v1::SourceState::Limited,
        ResolveError::CredentialsRefused => v1::SourceState::CredentialsRefused,
        _ => v1::SourceState::Unavailable,
    }
}

fn quota(Spending { used, left }: Spending) -> Option<v1::SourceQuota> {
    left.map(|left| v1::SourceQuota { used: used.into(), left: left.into() })
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
