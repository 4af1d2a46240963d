//! What happens to leases by themselves: expiry, renewal, and the records of both.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::Broker;
use crate::audit::AuditError;
use crate::gate::Verdict;
use crate::handle::Handle;
use crate::lease::{EndCause, LeaseEvent, Renewable};
use crate::request::{AccessKind, AccessRequest};

impl Broker {
    /// Expires handles and writes down what happened to leases, for as long as it is polled. Exactly one
    /// task runs this.
    pub async fn keep_leases(&self) {
        loop {
            self.leases.wait().await;
            self.leases.expire_due();
            if self.flush().await.is_err() {
                // The log is away. Nothing new is granted meanwhile; what happened is kept and retried.
                self.clock.sleep_until(self.clock.monotonic() + FLUSH_RETRY).await;
            }
        }
    }

    /// Renews handles before they expire, for as long as it is polled. Exactly one task runs this, apart
    /// from [`Broker::keep_leases`], so that a slow source delays no expiry.
    /// Each vault's go on by themselves, so that one slow source delays no other's renewals.
    pub async fn renew_leases(&self) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                due = self.leases.wait_renewable(), if under_way.len() < RENEWALS_AT_ONCE => {
                    under_way.extend(by_vault(due).into_iter().map(|of_vault| self.renew(of_vault)));
                }
                Some(()) = under_way.next() => {}
            }
        }
    }

    async fn renew(&self, due: Vec<Renewable>) {
        let (due, last): (Vec<_>, Vec<_>) = due.into_iter().partition(Renewable::can_outlive_previous);
        last.iter().for_each(|it| self.leases.renewal_denied(it.previous, EndCause::Credential));
        let (requests, rest): (Vec<_>, Vec<_>) = due
            .into_iter()
            .map(|renewable| {
                let handle = Handle::random();
                let request = AccessRequest {
                    kind: AccessKind::Renew,
                    handle: Some(handle.id()),
                    ..renewable.request.as_ref().clone()
                };
                (request, (renewable, handle))
            })
            .unzip();
        let admitted = async { self.gate.admit(self.locate_all(requests).await?).await };
        let Ok(verdicts) = admitted.await else {
            return rest.iter().for_each(|(it, _)| self.leases.renewal_failed(it.previous));
        };
        let mut granted = Vec::new();
        for (verdict, (renewable, handle)) in verdicts.into_iter().zip(rest) {
            match verdict {
                Verdict::Allow(grant) => granted.push((grant, handle, renewable)),
                // Its approval has had its time, or never was where the policies ask for one since.
                Verdict::Await(_) | Verdict::Deny(_) => {
                    self.leases.renewal_denied(renewable.previous, EndCause::Policy)
                }
                Verdict::Unknown { .. } => self.leases.renewal_failed(renewable.previous),
            }
        }
        let fetched = self.fetch(&granted.iter().map(|(grant, _, _)| grant).collect::<Vec<_>>()).await;
        for ((grant, handle, renewable), result) in granted.into_iter().zip(fetched) {
            let Renewable { previous, lease, expires: _, request: _ } = renewable;
            match self.issue_or_refuse(grant, handle, result) {
                LeaseEvent::Issued(issued) => self.leases.renewed(lease, previous, issued),
                _ => self.leases.renewal_failed(previous),
            }
        }
    }

    /// Writes down what happened to leases.
    pub(super) async fn flush(&self) -> Result<(), AuditError> {
        loop {
            let notices = self.leases.take_notices(NOTICES_MAX);
            if notices.records().is_empty() {
                return Ok(());
            }
            self.gate.note_all(notices.records().to_vec()).await?;
            notices.written();
        }
    }
}

/// What is due, by the word that each reference has for its vault: one vault has one source.
fn by_vault(due: Vec<Renewable>) -> Vec<Vec<Renewable>> {
    let mut vaults: BTreeMap<String, Vec<Renewable>> = BTreeMap::new();
    for renewable in due {
        let vault = renewable.request.reference.vault().to_ascii_lowercase();
        vaults.entry(vault).or_default().push(renewable);
    }
    vaults.into_values().collect()
}

/// Above so many batches of renewals under way, no more are begun.
const RENEWALS_AT_ONCE: usize = 16;
const FLUSH_RETRY: Duration = Duration::from_secs(1);
/// Records of one write of what happened to leases.
const NOTICES_MAX: usize = 1024;
