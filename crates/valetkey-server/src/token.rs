//! Bearer tokens of our own: `vkt_…` strings, and the signed ones for the Events API. Their digests stand in the
//! configuration, or in the audit database where `TokenService` made them; the live ones are kept here.
//!
//! Not here: the form of those for the Events API (`events/key.rs`).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use valetkey_audit::TokenUsage;
use valetkey_core::{
    AgentId, Bearer, BearerDigest, BearerError, Clock, Credential, Identity, PublicId, Reason, Timestamp,
};

use crate::identity::bearers::{Shown, Unshown};

/// What a token begins with.
pub const TOKEN_PREFIX: &str = "vkt_";

/// What the id of a token for the Events API begins with.
pub(crate) const EVENTS_TOKEN_PREFIX: &str = "vke_";

/// What the id of a token begins with: records tell by it what was shown.
pub(crate) fn prefix(usage: TokenUsage) -> &'static str {
    match usage {
        TokenUsage::Api => TOKEN_PREFIX,
        TokenUsage::Events => EVENTS_TOKEN_PREFIX,
    }
}

/// What is kept of a token: `vkt_<id>:<64 hexadecimal digits>`, and when it ends. Not a secret.
#[derive(Clone, Copy)]
pub struct TokenDigest {
    id: PublicId,
    digest: BearerDigest,
    expires: Option<Timestamp>,
}

/// The live tokens and whose they are.
pub struct Tokens {
    live: RwLock<HashMap<PublicId, Live>>,
    /// The last uses of those that are gone, until they are written down. At most one a token.
    gone: Mutex<Vec<(PublicId, Timestamp)>>,
    clock: Arc<dyn Clock>,
}

struct Live {
    digest: BearerDigest,
    /// It opens this and nothing else.
    usage: TokenUsage,
    shown: Shown,
    origin: Origin,
    /// When it was last used, in microseconds since 1970, to the minute. 0: not since that was written down.
    used: AtomicI64,
}

/// Where a token is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The configuration.
    Configuration,
    /// The audit database.
    Database,
}

impl TokenDigest {
    /// The digest of a token that does not end by itself.
    #[must_use]
    pub fn of(token: &Bearer) -> Self {
        Self { id: token.id(), digest: token.digest(), expires: None }
    }

    /// From its parts.
    pub(crate) fn new(id: PublicId, digest: BearerDigest) -> Self {
        Self { id, digest, expires: None }
    }

    /// The same, for a token that ends then.
    #[must_use]
    pub fn until(self, expires: Timestamp) -> Self {
        Self { expires: Some(expires), ..self }
    }

    /// The part that may be logged.
    #[must_use]
    pub fn id(&self) -> PublicId {
        self.id
    }

    /// Parses the form that stands in a configuration.
    ///
    /// # Errors
    /// [`BearerError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, BearerError> {
        let (id, digest) =
            text.strip_prefix(TOKEN_PREFIX).and_then(|rest| rest.split_once(':')).ok_or(BearerError)?;
        Ok(Self::new(PublicId::parse(id)?, BearerDigest::parse(digest)?))
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN_PREFIX}{}:{}", self.id, self.digest)
    }
}

impl Tokens {
    /// The tokens of a configuration. Of two with one id the later would win; the configuration refuses them.
    #[must_use]
    pub fn new(configured: impl IntoIterator<Item = (TokenDigest, Identity)>, clock: Arc<dyn Clock>) -> Self {
        let tokens = Self { live: RwLock::default(), gone: Mutex::default(), clock };
        for (digest, identity) in configured {
            tokens.add(digest, identity, TokenUsage::Api, Origin::Configuration);
        }
        tokens
    }

    /// Takes a token from now on.
    pub(crate) fn add(&self, token: TokenDigest, identity: Identity, usage: TokenUsage, origin: Origin) {
        let TokenDigest { id, digest, expires } = token;
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let end = expires.map(|expires| monotonic.saturating_add(expires.since(now)));
        let credential = Credential::new(format!("{}{id}", prefix(usage)), end);
        let shown = Shown { identity, credential, claims: [].into() };
        let live = Live { digest, usage, shown, origin, used: AtomicI64::new(0) };
        self.write().insert(id, live);
    }

    /// The agents that have a live token.
    pub(crate) fn agents(&self) -> Vec<AgentId> {
        let now = self.clock.monotonic();
        let live = self.read();
        let shown = live.values().map(|it| &it.shown).filter(|shown| !is_over(&shown.credential, now));
        let agent = |shown: &Shown| match &shown.identity {
            Identity::Agent(agent) => Some(agent.clone()),
            Identity::Tool(_) | Identity::Person(_) => None,
        };
        shown.filter_map(agent).collect()
    }

    /// Takes a token no more. What was authenticated by it is revoked with it; `None` where there is none.
    pub(crate) fn revoke(&self, id: PublicId) -> Option<Credential> {
        let live = self.write().remove(&id)?;
        live.shown.credential.revoke();
        self.lock_gone().extend(live.take_use(id));
        Some(live.shown.credential)
    }

    /// Where a live token is known from.
    pub(crate) fn origin(&self, id: PublicId) -> Option<Origin> {
        self.read().get(&id).map(|live| live.origin)
    }

    /// How many of the database's tokens are live. Forgets those that are over.
    pub(crate) fn count(&self) -> usize {
        let now = self.clock.monotonic();
        let mut live = self.write();
        live.retain(|id, it| {
            let is_kept = it.origin == Origin::Configuration || !is_over(&it.shown.credential, now);
            if !is_kept {
                self.lock_gone().extend(it.take_use(*id));
            }
            is_kept
        });
        live.values().filter(|it| it.origin == Origin::Database).count()
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`Unshown`]. The caller is not told.
    pub(crate) fn identify(&self, token: &str) -> Result<Shown, Unshown> {
        let token = Bearer::parse(TOKEN_PREFIX, token).map_err(|_| Reason::TokenMalformed)?;
        self.find(token.id(), token.digest(), TokenUsage::Api)
    }

    /// Whose the token of that id and digest is, where it is for this.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn find(
        &self,
        id: PublicId,
        digest: BearerDigest,
        usage: TokenUsage,
    ) -> Result<Shown, Unshown> {
        let unshown = |reason| Unshown {
            reason,
            credential: Some(format!("{}{id}", prefix(usage)).into()),
            said: None,
        };
        let known = self.read();
        let live = known.get(&id).filter(|live| live.usage == usage);
        let live = live.ok_or_else(|| unshown(Reason::TokenUnknown))?;
        if !live.digest.matches(&digest) {
            return Err(unshown(Reason::TokenUnknown));
        }
        if is_over(&live.shown.credential, self.clock.monotonic()) {
            return Err(unshown(Reason::CredentialExpired));
        }
        let minute = self.clock.now().as_micros().div_euclid(MINUTE) * MINUTE;
        live.used.store(minute, Ordering::Relaxed);
        Ok(live.shown.clone())
    }

    /// The uses of the database's tokens since this was last asked, each to the minute.
    pub(crate) fn take_uses(&self) -> Vec<(PublicId, Timestamp)> {
        let mut uses = std::mem::take(&mut *self.lock_gone());
        uses.extend(self.read().iter().filter_map(|(id, live)| live.take_use(*id)));
        uses
    }

    fn lock_gone(&self) -> std::sync::MutexGuard<'_, Vec<(PublicId, Timestamp)>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<PublicId, Live>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<PublicId, Live>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// When it was used, if it was since this was last asked. Only of those that the database has.
    fn take_use(&self, id: PublicId) -> Option<(PublicId, Timestamp)> {
        let used = self.used.swap(0, Ordering::Relaxed);
        (used != 0 && self.origin == Origin::Database).then(|| (id, Timestamp::from_micros(used)))
    }
}

fn is_over(credential: &Credential, now: Duration) -> bool {
    credential.expires().is_some_and(|end| now >= end)
}

const MINUTE: i64 = 60_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use valetkey_core::testing::{FakeClock, agent};

    #[test]
    fn tokens_identify_until_they_are_over_or_revoked() {
        let clock = FakeClock::default();
        let bot = Identity::Agent(agent("bot"));
        let [token, other, short] = [(); 3].map(|()| Bearer::random(TOKEN_PREFIX));
        let digest = TokenDigest::parse(&TokenDigest::of(&token).to_string()).ok().unwrap();
        let tokens = Tokens::new([(digest, bot.clone())], Arc::new(clock.clone()));
        let end = clock.now().after(Duration::from_secs(90));
        tokens.add(TokenDigest::of(&short).until(end), bot.clone(), TokenUsage::Api, Origin::Database);
        let check = |token: &str, who: Result<&Identity, Reason>| {
            let found = tokens.identify(token).map(|it| it.identity).map_err(|unshown| unshown.reason);
            assert_eq!(found, who.cloned(), "{token}");
        };
        check(&token.expose_secret(), Ok(&bot));
        check(&other.expose_secret(), Err(Reason::TokenUnknown));
        check(&Bearer::random("vkh_").expose_secret(), Err(Reason::TokenMalformed));
        check("", Err(Reason::TokenMalformed));
        let forged = short.expose_secret().replacen(&short.id().to_string(), &token.id().to_string(), 1);
        check(&forged, Err(Reason::TokenMalformed));

        clock.advance(Duration::from_secs(70));
        check(&short.expose_secret(), Ok(&bot));
        let minute = clock.now().as_micros() / MINUTE * MINUTE;
        assert_eq!(tokens.take_uses(), [(short.id(), Timestamp::from_micros(minute))]);
        assert_eq!((tokens.take_uses(), tokens.count()), (vec![], 1));
        clock.advance(Duration::from_secs(20));
        check(&short.expose_secret(), Err(Reason::CredentialExpired));
        assert_eq!(tokens.count(), 0);

        let credential = tokens.identify(&token.expose_secret()).unwrap().credential;
        let unknown = tokens.identify(&other.expose_secret()).unwrap_err();
        assert_eq!(unknown.credential.as_deref(), Some(&*format!("vkt_{}", other.id())), "it names itself");
        assert!(tokens.revoke(token.id()).is_some() && credential.is_revoked());
        check(&token.expose_secret(), Err(Reason::TokenUnknown));
        assert!(tokens.revoke(token.id()).is_none());
    }

    #[test]
    fn the_last_use_outlives_the_token() {
        let clock = FakeClock::default();
        let tokens = Tokens::new([], Arc::new(clock.clone()));
        let [revoked, over] = [(); 2].map(|()| Bearer::random(TOKEN_PREFIX));
        let end = clock.now().after(Duration::from_secs(90));
        for token in [&revoked, &over] {
            let digest = TokenDigest::of(token).until(end);
            tokens.add(digest, Identity::Agent(agent("bot")), TokenUsage::Api, Origin::Database);
            assert!(tokens.identify(&token.expose_secret()).is_ok());
        }
        let minute = Timestamp::from_micros(clock.now().as_micros() / MINUTE * MINUTE);
        assert!(tokens.revoke(revoked.id()).is_some());
        clock.advance(Duration::from_secs(90));
        assert_eq!(tokens.count(), 0);
        assert_eq!(tokens.take_uses(), [(revoked.id(), minute), (over.id(), minute)]);
        assert_eq!(tokens.take_uses(), []);
    }
}
