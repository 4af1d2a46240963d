//! The keys of one issuer, kept fresh: read again before they are old, and where a token names one that is
//! not known; used on for a bounded time where that fails.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use valetkey_core::{Clock, Reason};

use super::fetch::{FetchError, Source};
use super::keys::KeySet;

/// The keys, and when they were read.
pub(super) struct Keyring {
    /// Whose they are, for the log.
    issuer: String,
    source: Source,
    clock: Arc<dyn Clock>,
    held: RwLock<Held>,
    /// Moves when a reading has ended, well or not.
    readings: watch::Sender<u64>,
}

#[derive(Default)]
struct Held {
    keys: Option<Arc<KeySet>>,
    /// When `keys` were read, on the monotonic clock.
    read: Duration,
    /// When the last reading began.
    tried: Option<Duration>,
    /// When a token last had them read again.
    demanded: Option<Duration>,
    is_reading: bool,
    /// Whether the last reading failed; said once.
    is_failing: bool,
}

impl Keyring {
    pub(super) fn new(issuer: String, source: Source, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { issuer, source, clock, held: RwLock::default(), readings: watch::Sender::new(0) })
    }

    /// The keys for a token that names this one. Where it is not among them they are read again, but not
    /// often, and the token waits for that, but not long.
    ///
    /// # Errors
    /// [`Reason::JwtKeysUnavailable`] where there are none that may still be believed.
    pub(super) async fn keys_for(self: &Arc<Self>, key_id: Option<&str>) -> Result<Arc<KeySet>, Reason> {
        let known = || self.keys().is_some_and(|keys| keys.knows(key_id));
        let find = async {
            // Twice: a reading that was under way already may have missed what it is waited for.
            for _ in 0..2 {
                if !known() {
                    self.read_on_demand().await;
                }
            }
        };
        let _ = tokio::time::timeout(WAIT_MAX, find).await;
        self.keys().ok_or(Reason::JwtKeysUnavailable)
    }

    /// Waits for the reading that is under way, or for one that it begins where it may.
    async fn read_on_demand(self: &Arc<Self>) {
        let mut readings = self.readings.subscribe();
        if self.begin_on_demand() {
            let ring = Arc::clone(self);
            // By itself: a caller that stops waiting, or goes, must not stop it for the others.
            tokio::spawn(async move { ring.read().await });
        }
        if self.held().is_reading {
            let _ = readings.changed().await;
        }
    }

    /// Reads the keys before they are old, for as long as it is polled.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            let now = self.clock.monotonic();
            if self.held_mut().begin(now) {
                self.read().await;
            }
            let pause = if self.held().is_failing { RETRY } else { REFRESH };
            self.clock.sleep_until(self.clock.monotonic() + pause).await;
        }
    }

    /// Those that may be believed.
    fn keys(&self) -> Option<Arc<KeySet>> {
        let now = self.clock.monotonic();
        let held = self.held();
        held.keys.clone().filter(|_| now.saturating_sub(held.read) <= STALE_MAX)
    }

    /// Begins a reading for a token, unless one is under way, or one for a token began not long ago. The first
    /// of all, which a token may be ahead of, is not one for a token.
    fn begin_on_demand(&self) -> bool {
        let now = self.clock.monotonic();
        let mut held = self.held_mut();
        let has_keys = held.keys.is_some();
        let last = if has_keys { held.demanded } else { held.tried };
        if last.is_some_and(|last| now.saturating_sub(last) < DEMAND_GAP) || !held.begin(now) {
            return false;
        }
        if has_keys {
            held.demanded = Some(now);
        }
        true
    }

    /// Reads them, and keeps nothing.
    ///
    /// # Errors
    /// What is wrong, with its first cause.
    pub(super) async fn check(&self) -> Result<(), String> {
        let text = |error: FetchError| match error.cause() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        self.fetch().await.map(drop).map_err(text)
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        KeySet::parse(&self.source.read().await?).map_err(FetchError::Keys)
    }

    async fn read(&self) {
        let _end = EndReading(self);
        let asked = self.clock.monotonic();
        let result = self.fetch().await;
        let mut held = self.held_mut();
        let was_failing = std::mem::replace(&mut held.is_failing, result.is_err());
        match result {
            Ok(keys) => {
                held.keys = Some(Arc::new(keys));
                // From the question on: an answer that was long on its way is as old as that.
                held.read = asked;
                drop(held);
                if was_failing {
                    tracing::info!(issuer = self.issuer, "the issuer's keys can be read again");
                }
            }
            Err(error) if !was_failing => {
                tracing::error!(
                    issuer = self.issuer, %error, cause = error.cause(),
                    "the issuer's keys cannot be read; those from before are used for an hour at most"
                );
            }
            Err(error) => {
                tracing::debug!(issuer = self.issuer, %error, "the issuer's keys still cannot be read")
            }
        }
    }

    fn held_mut(&self) -> std::sync::RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> std::sync::RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Begins a reading, unless one is under way. Whoever begins one must call [`Keyring::read`].
    fn begin(&mut self, now: Duration) -> bool {
        if std::mem::replace(&mut self.is_reading, true) {
            return false;
        }
        self.tried = Some(now);
        true
    }
}

/// Notes the end of a reading, however it came.
struct EndReading<'a>(&'a Keyring);

impl Drop for EndReading<'_> {
    fn drop(&mut self) {
        self.0.held_mut().is_reading = false;
        self.0.readings.send_modify(|readings| *readings = readings.wrapping_add(1));
    }
}

/// How long keys are used without looking whether there are others.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// How soon a reading that failed is tried again.
const RETRY: Duration = Duration::from_secs(15);
/// How long keys are used that cannot be read again: so long may a key go on that its issuer has withdrawn.
const STALE_MAX: Duration = Duration::from_secs(60 * 60);
/// How often at most tokens that name unknown keys have the keys read.
const DEMAND_GAP: Duration = Duration::from_secs(30);
/// How long such a token waits for it.
const WAIT_MAX: Duration = Duration::from_secs(2);
