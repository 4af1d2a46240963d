//! What is refused again and again, and the Events API's polls: written down one by one at first, then counted, and the counts written when a
//! window ends and when the broker stops. So the records of a window, counts included, add up to the refusals, and
//! a flood costs a few records and no more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use valetkey_core::{
    AuditError, AuditRecord, Broker, Clock, Identity, Reason, RecordId, RecordKind, Timestamp,
};

/// How many refusals of a kind are written down one by one in each window of a minute.
#[derive(Debug, Clone, Copy)]
pub struct RepeatLimits {
    /// Of callers without an identity, in all.
    pub unauthenticated_max: usize,
    /// Of one address without an identity, or of one identity whose messages cannot be read or whose person is not
    /// proved.
    pub per_source_max: usize,
}

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// A caller without identity.
    Unauthenticated,
    /// A known caller, on behalf of a person who is not proved.
    Behalf,
    /// A message that cannot be read.
    Malformed,
    /// An identity over this bound of its own. Written down once a window.
    Limit(&'static str),
    /// Nothing is refused: a token goes on asking the Events API for this. Written down once a window.
    Poll(&'static str),
}

/// Who is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Whoever is at an address; of IPv6, in a network of 64 bits.
    Address(IpAddr),
    /// A known caller.
    Identity(Identity),
    /// The same, by what it showed.
    Credential(Identity, Arc<str>),
    /// Whoever has no address, and all for whom there is no room.
    Others,
}

/// The counts.
pub(crate) struct Repeats {
    window: Mutex<Window>,
    opened: Notify,
    limits: RepeatLimits,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Window {
    /// When it ends; `None` where nothing was refused since the last one.
    end: Option<Duration>,
    /// Nobody writes counts any more: everything is written down at once.
    closed: bool,
    unauthenticated: usize,
    /// At most [`TALLIES_MAX`], and one of the others for each kind.
    tallies: HashMap<(What, Source), Tally>,
}

#[derive(Default)]
struct Tally {
    written: usize,
    counted: u64,
    /// The first and the last that were counted.
    span: Option<(Timestamp, Timestamp)>,
}

impl Default for RepeatLimits {
    fn default() -> Self {
        Self { unauthenticated_max: 60, per_source_max: 10 }
    }
}

impl Repeats {
    pub(crate) fn new(limits: RepeatLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { window: Mutex::default(), opened: Notify::new(), limits, clock })
    }

    /// Writes a refusal down, or counts it: then it has no record of its own, and costs no wait for the disk.
    pub(crate) async fn note(
        &self,
        broker: &Broker,
        what: What,
        source: Source,
        record: AuditRecord,
    ) -> Result<Option<RecordId>, AuditError> {
        match self.is_counted(what, source) {
            true => Ok(None),
            // What is handed to the log is written also where the caller goes meanwhile.
            false => broker.note(record).await.map(Some),
        }
    }

    /// Whether it is counted; where it is not, it is to be written down now.
    pub(crate) fn is_counted(&self, what: What, source: Source) -> bool {
        self.count(what, source, true)
    }

    /// Takes it for written down, whatever was before it.
    pub(crate) fn written(&self, what: What, source: Source) {
        self.count(what, source, false);
    }

    fn count(&self, what: What, source: Source, may_count: bool) -> bool {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let mut window = self.lock();
        if window.closed {
            return false;
        }
        if window.end.is_none() {
            window.end = Some(monotonic + WINDOW);
            self.opened.notify_one();
        }
        let RepeatLimits { unauthenticated_max, per_source_max } = self.limits;
        let (max, in_all) = match what {
            What::Unauthenticated => (per_source_max, window.unauthenticated < unauthenticated_max),
            What::Behalf | What::Malformed => (per_source_max, true),
            What::Limit(_) | What::Poll(_) => (1, true),
        };
        let tally = window.tally(what, source);
        if !may_count || (tally.written < max && in_all) {
            tally.written += 1;
            window.unauthenticated += usize::from(what == What::Unauthenticated);
            return false;
        }
        tally.counted += 1;
        let first = tally.span.map_or(now, |(first, _)| first);
        tally.span = Some((first, now));
        true
    }

    /// Writes the counts at the end of each window, and what is left when it is told to stop. Exactly one task
    /// runs this, to its end: what it was writing when it was dropped would be lost, or written twice.
    pub(crate) async fn keep(self: Arc<Self>, broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
        let mut unwritten = Vec::new();
        loop {
            let due = async {
                match unwritten.is_empty() {
                    true => self.window_over().await,
                    false => self.clock.sleep_until(self.clock.monotonic() + RETRY).await,
                }
            };
            let stopping = tokio::select! {
                () = due => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            // While the log is away, what is counted stays in the table, which is bounded.
            if unwritten.is_empty() || stopping {
                unwritten.extend(self.take(stopping));
            }
            match broker.note_all(unwritten.clone()).await {
                Ok(()) => unwritten.clear(),
                Err(error) if stopping => {
                    tracing::error!(%error, "the counts of refusals are not written down")
                }
                // The log itself says so, once.
                Err(_) => {}
            }
            if stopping {
                return;
            }
        }
    }

    async fn window_over(&self) {
        loop {
            let end = self.lock().end;
            match end {
                Some(end) => return self.clock.sleep_until(end).await,
                None => self.opened.notified().await,
            }
        }
    }

    /// Ends the window; its counts as records.
    fn take(&self, closed: bool) -> Vec<AuditRecord> {
        let window = std::mem::replace(&mut *self.lock(), Window { closed, ..Window::default() });
        let counted = window.tallies.into_iter().filter(|(_, tally)| tally.counted > 0);
        counted.map(|((what, source), tally)| self.record(what, source, &tally)).collect()
    }

    fn record(&self, what: What, source: Source, tally: &Tally) -> AuditRecord {
        let Tally { written: _, counted, span } = tally;
        let now = self.clock.now();
        let (first, last) = span.unwrap_or((now, now));
        let (kind, named) = match what {
            What::Unauthenticated => (RecordKind::Unauthenticated, "attempts without an identity".to_owned()),
            What::Behalf => (RecordKind::Unauthenticated, "calls on behalf of nobody proved".to_owned()),
            What::Malformed => (RecordKind::Malformed, "messages that cannot be read".to_owned()),
            What::Limit(limit) => (RecordKind::Limit, format!("requests over {limit}")),
            What::Poll(endpoint) => (RecordKind::ReadAudit, format!("polls of {endpoint}")),
        };
        let record = match what {
            What::Poll(_) => AuditRecord::event(now, kind, Reason::Repeated),
            _ => AuditRecord::refusal(now, kind, Reason::Repeated),
        };
        let (record, of) = match source {
            Source::Address(address) => {
                let address = address.to_string();
                (AuditRecord { client: Some(address.as_str().into()), ..record }, address)
            }
            Source::Credential(caller, credential) => {
                let of = credential.to_string();
                (AuditRecord { caller: Some(caller), credential: Some(credential), ..record }, of)
            }
            Source::Identity(caller) => {
                let agent = match &caller {
                    Identity::Agent(agent) => Some(agent.clone()),
                    Identity::Tool(_) | Identity::Person(_) => None,
                };
                let of = caller.to_string();
                (AuditRecord { caller: Some(caller), agent, ..record }, of)
            }
            Source::Others => (record, "others".to_owned()),
        };
        record
            .with_detail(&format!("{counted} more {named} of {of}, the first at {first}, the last at {last}"))
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn tally(&mut self, what: What, source: Source) -> &mut Tally {
        let key = (what, source);
        let room = self.tallies.len() < TALLIES_MAX || self.tallies.contains_key(&key);
        self.tallies.entry(if room { key } else { (what, Source::Others) }).or_default()
    }
}

impl Source {
    /// Somebody at an address.
    pub(crate) fn at(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            // Whoever has one address of a network has them all.
            Some(IpAddr::V6(address)) => {
                Self::Address(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into())
            }
            Some(address) => Self::Address(address),
            None => Self::Others,
        }
    }
}

const WINDOW: Duration = Duration::from_secs(60);
const TALLIES_MAX: usize = 1_024;
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use valetkey_core::testing::{FakeClock, agent};

    fn repeats(clock: &FakeClock) -> Arc<Repeats> {
        let limits = RepeatLimits { unauthenticated_max: 5, per_source_max: 2 };
        Repeats::new(limits, Arc::new(clock.clone()))
    }

    fn at(last: u8) -> Source {
        Source::at(Some(IpAddr::from([10, 0, 0, last])))
    }

    /// How many of so many are counted and not written.
    fn counted(repeats: &Repeats, what: What, source: &Source, times: usize) -> usize {
        (0..times).filter(|_| repeats.is_counted(what, source.clone())).count()
    }

    #[test]
    fn first_written_then_counted_then_told() {
        let clock = FakeClock::default();
        let repeats = repeats(&clock);
        assert_eq!(counted(&repeats, What::Unauthenticated, &at(1), 10), 8);
        assert_eq!(counted(&repeats, What::Unauthenticated, &at(2), 2), 0);
        assert_eq!(counted(&repeats, What::Unauthenticated, &at(3), 2), 1, "in all");
        let bot = Source::Identity(Identity::Agent(agent("bot")));
        assert_eq!(counted(&repeats, What::Limit("leases_per_agent"), &bot, 3), 2);
        assert_eq!(counted(&repeats, What::Limit("requests_per_second"), &bot, 1), 0);
        let mut told: Vec<_> = repeats.take(false).into_iter().filter_map(|record| record.detail).collect();
        told.sort();
        assert_eq!(told.len(), 3);
        assert!(told[0].starts_with("1 more attempts without an identity of 10.0.0.3, the first at 2026-"));
        assert!(told[1].starts_with("2 more requests over leases_per_agent of agent:bot, "));
        assert!(told[2].starts_with("8 more attempts without an identity of 10.0.0.1, "));
        // The next window begins anew.
        assert!(repeats.take(false).is_empty());
        assert_eq!(counted(&repeats, What::Unauthenticated, &at(1), 2), 0);
    }

    #[test]
    fn polls_are_events_and_one_a_window() {
        let repeats = repeats(&FakeClock::default());
        let poll = What::Poll("itemusages");
        let token = Source::Credential(Identity::Agent(agent("bot")), "vke_a".into());
        repeats.written(poll, token.clone());
        assert_eq!(counted(&repeats, poll, &token, 3), 3);
        repeats.written(poll, token.clone());
        let [record] = &repeats.take(false)[..] else { panic!("not one record") };
        assert_eq!((record.kind, record.ruling), (RecordKind::ReadAudit, valetkey_core::Ruling::Event));
        assert!(
            record
                .detail
                .as_deref()
                .is_some_and(|it| it.starts_with("3 more polls of itemusages of vke_a, "))
        );
        assert_eq!(counted(&repeats, poll, &token, 3), 2, "the next window begins anew");
    }

    #[test]
    fn the_table_is_bounded_and_loses_nothing() {
        let repeats = repeats(&FakeClock::default());
        let mut total = 0;
        for number in 0..3_000_u32 {
            let source = Source::at(Some(IpAddr::from((0x0a00_0000 + number).to_be_bytes())));
            total += counted(&repeats, What::Unauthenticated, &source, 1);
        }
        let records = repeats.take(false);
        assert!(records.len() <= TALLIES_MAX + 1);
        let numbers = records
            .iter()
            .filter_map(|record| record.detail.as_deref()?.split(' ').next()?.parse::<usize>().ok());
        assert_eq!(numbers.sum::<usize>(), total);
        assert_eq!(total, 2_995);
    }

    #[test]
    fn what_comes_after_the_end_is_written_at_once() {
        let repeats = repeats(&FakeClock::default());
        drop(repeats.take(true));
        assert_eq!(counted(&repeats, What::Unauthenticated, &at(1), 100), 0);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |text: &str| Source::at(Some(text.parse().unwrap()));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:0:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    }
}
