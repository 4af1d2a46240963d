//! The core's client: made once for a token, kept, and made again after it was lost; never in a loop.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use valetkey_core::ResolveError;

use super::fault::fault;
use super::ffi::Core;
use super::request;
use crate::token::{Hosts, ServiceAccountToken, TokenSource};
use crate::upstream::UpstreamError;

/// The client of one service account. Signing in takes four requests and about a second, so it is done by one
/// for all who wait, and after a failure not before a pause that doubles each time.
pub(super) struct Session {
    core: Arc<Core>,
    token: TokenSource,
    hosts: Hosts,
    timeout: Duration,
    /// Never held across an await.
    state: Mutex<State>,
    /// Held by the one who signs in.
    signing_in: tokio::sync::Mutex<()>,
    /// Requests of sign-ins that nobody has taken to count.
    spending: AtomicU32,
}

#[derive(Default)]
struct State {
    client_id: Option<u64>,
    /// Clients that could not be made or were lost, since a call last succeeded.
    failures: u32,
    /// Whether the last sign-in came to nothing because nobody answered.
    is_unreachable: bool,
    /// Until when nobody signs in, and why.
    pause: Option<(Instant, UpstreamError)>,
}

impl Session {
    pub(super) fn new(core: Arc<Core>, token: TokenSource, hosts: Hosts, timeout: Duration) -> Arc<Self> {
        let (state, signing_in, spending) = Default::default();
        Arc::new(Self { core, token, hosts, timeout, state, signing_in, spending })
    }

    /// The id of the client.
    pub(super) async fn client_id(self: &Arc<Self>) -> Result<u64, UpstreamError> {
        if let Some(known) = self.known() {
            return known;
        }
        let session = Arc::clone(self);
        // A task of its own: the caller may give up, and what was begun would be paid for twice.
        let signed_in = tokio::spawn(async move { session.sign_in().await });
        signed_in.await.unwrap_or_else(|_| Err(unavailable("the sign-in was cut off")))
    }

    /// Whether the next question goes without signing in first.
    pub(super) fn is_signed_in(&self) -> bool {
        self.state().client_id.is_some()
    }

    /// The requests that were made for signing in since this was last asked.
    pub(super) fn take_spending(&self) -> u32 {
        self.spending.swap(0, Ordering::AcqRel)
    }

    /// Lets a test go on without waiting.
    #[cfg(test)]
    pub(super) fn end_pause(&self) {
        self.state().pause = None;
    }

    /// A call through the client of this id succeeded.
    pub(super) fn worked(&self, client_id: u64) {
        let mut state = self.state();
        if state.client_id == Some(client_id) {
            state.failures = 0;
        }
    }

    /// The client of this id is of no more use, because of `error`.
    pub(super) fn lost(&self, client_id: u64, error: &UpstreamError) {
        let mut state = self.state();
        if state.client_id != Some(client_id) {
            return; // Somebody said so before.
        }
        state.client_id = None;
        state.fail(error);
        drop(state);
        tracing::warn!(client_id, error = %error.error, "the SDK core's client is lost");
        self.release(client_id);
    }

    /// Signs in, unless somebody else just did.
    async fn sign_in(&self) -> Result<u64, UpstreamError> {
        let _alone = self.signing_in.lock().await;
        if let Some(known) = self.known() {
            return known;
        }
        let outcome = timeout(self.timeout, self.make_client()).await;
        let outcome = outcome.unwrap_or_else(|_| Err(unavailable("the sign-in was not answered in time")));
        let mut state = self.state();
        match &outcome {
            Ok(client_id) => {
                (state.client_id, state.pause, state.is_unreachable) = (Some(*client_id), None, false);
                tracing::info!(client_id, "the SDK core is signed in");
            }
            Err(error) => {
                state.is_unreachable = error.error == ResolveError::Unavailable;
                state.fail(error);
            }
        }
        // That the question was not sent is known; what the sign-in cost is counted beside it.
        outcome.map_err(UpstreamError::into_unsent)
    }

    async fn make_client(&self) -> Result<u64, UpstreamError> {
        let refused = |error: crate::TokenError| {
            UpstreamError::unsent(ResolveError::CredentialsRefused, &error.to_string())
        };
        let token = self.token.read(self.hosts).map_err(refused)?;
        self.knock(&token).await?;
        let config = request::client_config(&token);
        // Before it is sent: whatever comes of it, it is counted.
        self.spending.fetch_add(SIGN_IN_COST, Ordering::AcqRel);
        let answer = self.core.init_client(&config).await.map_err(|error| fault(None, &error).error)?;
        let client_id = std::str::from_utf8(answer.bytes()).ok().and_then(|id| id.parse().ok());
        client_id.ok_or_else(|| unavailable("the SDK core gave a client without an id"))
    }

    /// Whether the service can be reached, where it could not the last time. The core does not say whether it
    /// got as far as sending something; this never does, so that an outage costs nothing.
    async fn knock(&self, token: &ServiceAccountToken) -> Result<(), UpstreamError> {
        if !self.state().is_unreachable || has_proxy() {
            return Ok(());
        }
        let unsent = |why: String| UpstreamError::unsent(ResolveError::Unavailable, &why);
        token.knock().await.map_err(|error| unsent(format!("1Password cannot be reached: {error}")))
    }

    /// What can be said without signing in.
    fn known(&self) -> Option<Result<u64, UpstreamError>> {
        let state = self.state();
        if let Some(client_id) = state.client_id {
            return Some(Ok(client_id));
        }
        let (until, error) = state.pause.as_ref()?;
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        let mut error = error.clone().into_unsent();
        if let ResolveError::RateLimited { retry_after } = &mut error.error {
            *retry_after = left;
        }
        Some(Err(error))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the core forget the account's keys. That it does not is no reason to stop.
    fn release(&self, client_id: u64) {
        if self.core.release_client(client_id.to_string().as_bytes()).is_err() {
            tracing::debug!(client_id, "the SDK core did not release a client");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(client_id) = self.state().client_id {
            self.release(client_id);
        }
    }
}

impl State {
    fn fail(&mut self, error: &UpstreamError) {
        let doubled = PAUSE_MIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let at_least = match error.error {
            ResolveError::RateLimited { retry_after } => retry_after,
            _ => Duration::ZERO,
        };
        self.failures = self.failures.saturating_add(1);
        self.pause = Some((Instant::now() + doubled.max(at_least).min(PAUSE_MAX), error.clone()));
    }
}

/// Whether the core's requests take another way than straight to the service.
fn has_proxy() -> bool {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    PROXY_VARIABLES.iter().any(set)
}

fn unavailable(detail: &str) -> UpstreamError {
    UpstreamError::new(ResolveError::Unavailable, detail)
}

/// Four for signing in, one each for the keys of the account and of the vault.
pub(super) const SIGN_IN_COST: u32 = 6;
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Four requests a sign-in: a token that was revoked costs less than 400 requests a day, where the smallest
/// plan has 1,000.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
