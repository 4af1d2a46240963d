//! Connections that are refused before they bring a request: recorded, but no more than one record for each reason
//! and second, with the number of those in between. Whoever can connect could fill the disk otherwise.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use valetkey_core::{AuditRecord, Broker, Reason, RecordKind, RequestId};

use crate::identity::evidence::Origin;

/// Where refused connections are told of. Never waits: what does not fit is counted.
#[derive(Clone)]
pub(crate) struct Refusals {
    told: mpsc::Sender<Refusal>,
    lost: Arc<AtomicU64>,
}

/// A connection that was refused.
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
    pub(crate) origin: Origin,
}

/// The other end of [`Refusals`].
pub(crate) struct Told {
    told: mpsc::Receiver<Refusal>,
    lost: Arc<AtomicU64>,
}

impl Refusals {
    pub(crate) fn new() -> (Self, Told) {
        let (sender, told) = mpsc::channel(WAITING_MAX);
        let lost = Arc::default();
        (Self { told: sender, lost: Arc::clone(&lost) }, Told { told, lost })
    }

    pub(crate) fn tell(&self, refusal: Refusal) {
        if self.told.try_send(refusal).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes refusals down, for as long as it is polled: the first of a reason at once, then one for each window, for all
/// that came in it.
pub(crate) async fn write_down(mut told: Told, broker: Arc<Broker>) {
    // At most one entry for each reason.
    let mut quiet: HashMap<Reason, Option<(Refusal, u64)>> = HashMap::new();
    let mut window = tokio::time::interval(WINDOW);
    loop {
        tokio::select! {
            refusal = told.told.recv() => {
                let Some(refusal) = refusal else { return };
                match quiet.get_mut(&refusal.reason) {
                    None => {
                        quiet.insert(refusal.reason, None);
                        write(&broker, refusal, 0).await;
                    }
                    Some(waiting) => {
                        let others = waiting.take().map_or(0, |(_, others)| others + 1);
                        *waiting = Some((refusal, others));
                    }
                }
            }
            _ = window.tick() => {
                let (waiting, idle): (Vec<_>, Vec<_>) = quiet.drain().partition(|(_, waiting)| waiting.is_some());
                drop(idle);
                // Told once, with the first; where nothing waits, they wait too.
                let mut lost = match waiting.is_empty() {
                    true => 0,
                    false => told.lost.swap(0, Ordering::Relaxed),
                };
                if lost > 0 {
                    tracing::warn!(lost, "refused connections came too fast to be recorded one by one");
                }
                for (reason, waiting) in waiting {
                    let Some((refusal, others)) = waiting else { continue };
                    quiet.insert(reason, None);
                    write(&broker, refusal, others + std::mem::take(&mut lost)).await;
                }
            }
        }
    }
}

async fn write(broker: &Broker, refusal: Refusal, others: u64) {
    let Refusal { reason, detail, origin } = refusal;
    tracing::info!(reason = reason.as_str(), %origin, others, "a connection was refused");
    let detail = match others {
        0 => detail,
        _ => format!("{others} others and: {detail}"),
    };
    let record = AuditRecord::refusal(broker.clock().now(), RecordKind::Unauthenticated, reason);
    let (request, client) = (Some(RequestId::random()), Some(origin.to_string().into()));
    let record = AuditRecord { request, client, ..record.with_detail(&detail) };
    if let Err(error) = broker.note(record).await {
        tracing::error!(%error, "a refused connection is not written down");
    }
}

const WAITING_MAX: usize = 256;
const WINDOW: Duration = Duration::from_secs(1);
