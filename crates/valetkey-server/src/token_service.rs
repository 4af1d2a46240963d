//! `TokenService`: decide and record, then keep or revoke a token.
//!
//! The order, which a crash may interrupt anywhere: the record, the row in the database, the table in memory.
//! So no token counts that is not written down, and a revocation that was promised is still one after a restart.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use tonic::{Request, Response, Status};
use valetkey_audit::{NewToken, StoredToken, TokenPlace, TokenStore, TokenStoreError, TokenUsage};
use valetkey_core::{
    AdminAction, AdminRequest, AdminResource, AuditRecord, Bearer, BearerDigest, Broker, Call, PublicId,
    Reason, RecordId, RecordKind, Timestamp,
};
use valetkey_proto::v1;
use valetkey_proto::v1::token_service_server::TokenService;
use valetkey_proto::v1::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest,
    RevokeTokenResponse,
};
use zeroize::Zeroizing;

use crate::convert::{self, NewTokenAsk, TokenPurpose, Violation, timestamp};
use crate::events::Signer;
use crate::identity::call_of;
use crate::status;
use crate::token::{Origin, TOKEN_PREFIX, TokenDigest, Tokens, prefix};

/// The service.
#[derive(Clone)]
pub(crate) struct TokenDesk {
    pub(crate) broker: Arc<Broker>,
    pub(crate) store: Arc<TokenStore>,
    pub(crate) tokens: Arc<Tokens>,
    /// Makes tokens for the Events API, where that is served.
    pub(crate) signer: Option<Arc<Signer>>,
}

#[tonic::async_trait]
impl TokenService for TokenDesk {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let call = call_of(&request)?;
        let NewTokenAsk { identity, ttl, purpose } = match convert::token(request.into_inner()) {
            Ok(parsed) => parsed,
            Err(violations) => return Err(self.invalid(&call, RecordKind::TokenCreate, &violations).await),
        };
        let now = self.broker.clock().now();
        let expire_time = now.after(ttl);
        let (usage, about) = purpose.print();
        let bearer = Bearer::random(prefix(usage));
        let detail = format!("{}{} for {identity}, until {expire_time}{about}", prefix(usage), bearer.id());
        let record = self.permit(&call, AdminAction::CreateToken, &detail).await?;
        if self.tokens.count() >= TOKENS_MAX {
            self.tell(&call, RecordKind::TokenCreate, Err("TOKEN_LIMIT")).await;
            return Err(status::token_limit(TOKENS_MAX, record));
        }
        let made = self.secret(&purpose, &bearer, (now, expire_time), record);
        let (mut secret, digest) = match made {
            Ok(made) => made,
            Err(status) => {
                self.tell(&call, RecordKind::TokenCreate, Err("EVENTS_NOT_SERVED")).await;
                return Err(status);
            }
        };
        let token = NewToken {
            id: bearer.id(),
            digest,
            identity: identity.clone(),
            usage,
            creator: call.caller.clone(),
            create_time: now,
            expire_time,
        };
        let (asker, clock) = (Arc::clone(&call), Arc::clone(self.broker.clock()));
        let kept = self
            .with_store(move |store| {
                // At the last moment: a creator that is revoked while this waits must leave nothing behind.
                if let Some(reason) = asker.over(clock.monotonic()) {
                    return Ok(Err(reason));
                }
                store.insert(&token)?;
                Ok(Ok(StoredToken { token, revoked: None, use_time: None }))
            })
            .await?;
        let token = match kept {
            Ok(token) => token,
            Err(reason) => return Err(self.over(&call, reason).await),
        };
        let digest = TokenDigest::new(token.token.id, token.token.digest).until(expire_time);
        let told = format!("{}{} is made", prefix(usage), token.token.id);
        self.tokens.add(digest, identity, usage, Origin::Database);
        self.tell(&call, RecordKind::TokenCreate, Ok(told)).await;
        Ok(Response::new(CreateTokenResponse {
            secret_token: std::mem::take(&mut *secret),
            token: Some(print(token, now)),
            record_id: record.to_string(),
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let call = call_of(&request)?;
        let ListTokensRequest { page_size, page_token } = request.into_inner();
        let (limit, before) = match parse_page(page_size, &page_token) {
            Ok(parsed) => parsed,
            Err(violation) => return Err(self.invalid(&call, RecordKind::TokenList, &[violation]).await),
        };
        self.permit(&call, AdminAction::ListTokens, "").await?;
        let mut tokens = self.with_store(move |store| store.list(before, limit + 1)).await?;
        let has_more = tokens.len() > limit;
        tokens.truncate(limit);
        let next = tokens.last().filter(|_| has_more).map(page_token_of).unwrap_or_default();
        let now = self.broker.clock().now();
        let tokens = tokens.into_iter().map(|token| print(token, now)).collect();
        Ok(Response::new(ListTokensResponse { tokens, next_page_token: next }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let call = call_of(&request)?;
        let RevokeTokenRequest { token_id } = request.into_inner();
        let id = match convert::token_id(&token_id) {
            Ok(id) => id,
            Err(violations) => return Err(self.invalid(&call, RecordKind::TokenRevoke, &violations).await),
        };
        let record = self.permit(&call, AdminAction::RevokeToken, &token_id).await?;
        if self.tokens.origin(id) == Some(Origin::Configuration) {
            self.tell(&call, RecordKind::TokenRevoke, Err("TOKEN_CONFIGURED")).await;
            return Err(status::token_configured(record));
        }
        // In a task of its own: a caller that goes away must not leave a token alive whose row says that it is revoked.
        let (desk, revoker) = (self.clone(), Arc::clone(&call));
        let done = tokio::spawn(async move { desk.revoke(id, &revoker).await }).await;
        let ended = done.unwrap_or_else(|_| Err(status::audit_unavailable()))?;
        let ended = ended.ok_or_else(|| status::token_not_found(record))?;
        let leases_ended = u32::try_from(ended).unwrap_or(u32::MAX);
        Ok(Response::new(RevokeTokenResponse { leases_ended, record_id: record.to_string() }))
    }
}

impl TokenDesk {
    /// What is handed to the bearer, and what is kept of it.
    fn secret(
        &self,
        purpose: &TokenPurpose,
        bearer: &Bearer,
        life: (Timestamp, Timestamp),
        record: RecordId,
    ) -> Result<(Zeroizing<String>, BearerDigest), Status> {
        match (purpose, &self.signer) {
            (TokenPurpose::Api, _) => Ok((bearer.expose_secret(), bearer.digest())),
            (TokenPurpose::Events(_), None) => Err(status::events_not_served(record)),
            (TokenPurpose::Events(features), Some(signer)) => {
                let token = signer.issue(bearer.id(), features, life);
                let token = token.ok_or_else(|| status::internal(&record.to_string()))?;
                let digest = Signer::digest(&token);
                Ok((token, digest))
            }
        }
    }

    /// Revokes a token and ends what was opened with it; how many leases that were. `None` where no such token was
    /// live.
    async fn revoke(&self, id: PublicId, call: &Call) -> Result<Option<usize>, Status> {
        let (now, revoker) = (self.broker.clock().now(), call.caller.clone());
        let written = self.with_store(move |store| store.revoke(id, &revoker, now)).await?;
        // Also where the row was there before: what is in memory is what counts.
        let credential = self.tokens.revoke(id);
        let known = written || credential.is_some();
        let named =
            credential.as_ref().map_or_else(|| format!("{TOKEN_PREFIX}{id}"), |it| it.id().to_string());
        let ended = credential.map_or(0, |credential| self.broker.end_opened_with(&credential));
        // Its last use is to be seen beside the revocation.
        note_uses(&self.tokens, &self.store).await;
        let told = match known {
            true => Ok(format!("{named} is revoked; leases ended: {ended}")),
            false => Err("TOKEN_NOT_FOUND"),
        };
        self.tell(call, RecordKind::TokenRevoke, told).await;
        Ok(known.then_some(ended))
    }

    /// Writes down what came of an act that was allowed. It is done, or not, whether that can be written or not.
    async fn tell(&self, call: &Call, kind: RecordKind, told: Result<String, &'static str>) {
        let (reason, detail) = match &told {
            Ok(done) => (Reason::Done, done.as_str()),
            Err(code) => (Reason::Failed, *code),
        };
        let event = AuditRecord::event(self.broker.clock().now(), kind, reason).by(call).with_detail(detail);
        if let Err(error) = self.broker.note(event).await {
            tracing::error!(%error, detail, "what came of an act about a token is not written down");
        }
    }

    async fn permit(&self, call: &Arc<Call>, action: AdminAction, detail: &str) -> Result<RecordId, Status> {
        let request = AdminRequest {
            call: Arc::clone(call),
            action,
            resource: AdminResource::Broker,
            detail: detail.into(),
        };
        match self.broker.permit(&request).await {
            Ok(permission) => Ok(permission.record()),
            Err(refusal) => Err(status::refused(&refusal, &call.id.to_string())),
        }
    }

    /// Makes no token for a creator that no longer counts, and records it.
    async fn over(&self, call: &Call, reason: Reason) -> Status {
        let record =
            AuditRecord::refusal(self.broker.clock().now(), RecordKind::TokenCreate, reason).by(call);
        let noted = self.broker.note(record).await;
        noted.map_or_else(|_| status::audit_unavailable(), |_| status::unauthenticated())
    }

    /// Refuses a message whose fields break their rules, and records it.
    async fn invalid(&self, call: &Call, kind: RecordKind, violations: &[Violation]) -> Status {
        let detail: Vec<_> = violations.iter().map(ToString::to_string).collect();
        let record = AuditRecord::refusal(self.broker.clock().now(), kind, Reason::FieldInvalid).by(call);
        let record = self.broker.note(record.with_detail(&detail.join("; "))).await;
        record.map_or_else(|_| status::audit_unavailable(), |record| status::invalid(violations, record))
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TokenStore) -> Result<T, TokenStoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "a token could not be kept, found or revoked");
                Err(status::audit_unavailable())
            }
            Err(_) => Err(status::audit_unavailable()),
        }
    }
}

/// Writes down when tokens were last used, for as long as it is polled: at most one transaction in so long.
pub(crate) async fn keep_uses(tokens: Arc<Tokens>, store: Arc<TokenStore>) {
    loop {
        tokio::time::sleep(USES_EVERY).await;
        note_uses(&tokens, &store).await;
    }
}

/// Writes down when tokens were last used. What cannot be written is lost: nothing is decided by it.
pub(crate) async fn note_uses(tokens: &Tokens, store: &Arc<TokenStore>) {
    let (uses, store) = (tokens.take_uses(), Arc::clone(store));
    if uses.is_empty() {
        return;
    }
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.note_uses(&uses)).await {
        tracing::warn!(%error, "when tokens were last used is not written down");
    }
}

/// Takes over the tokens that the database has.
pub(crate) fn load(store: &TokenStore, tokens: &Tokens, now: Timestamp) -> Result<(), TokenStoreError> {
    for StoredToken { token, revoked: _, use_time: _ } in store.live(now, TOKENS_MAX)? {
        let NewToken { id, digest, identity, usage, creator: _, create_time: _, expire_time } = token;
        tokens.add(TokenDigest::new(id, digest).until(expire_time), identity, usage, Origin::Database);
    }
    Ok(())
}

fn print(token: StoredToken, now: Timestamp) -> v1::Token {
    let StoredToken { token, revoked, use_time } = token;
    let NewToken { id, digest: _, identity, usage, creator, create_time, expire_time } = token;
    let state = match &revoked {
        Some(_) => v1::TokenState::Revoked,
        None if expire_time <= now => v1::TokenState::Expired,
        None => v1::TokenState::Active,
    };
    let (revoke_time, revoker) = revoked.map_or((None, String::new()), |(time, who)| (Some(time), who));
    v1::Token {
        token_id: format!("{}{id}", prefix(usage)),
        identity: identity.to_string(),
        state: state.into(),
        creator: creator.to_string(),
        create_time: Some(timestamp(create_time)),
        expire_time: Some(timestamp(expire_time)),
        use_time: use_time.map(timestamp),
        revoke_time: revoke_time.map(timestamp),
        revoker,
        usage: match usage {
            TokenUsage::Api => v1::TokenUsage::Api.into(),
            TokenUsage::Events => v1::TokenUsage::Events.into(),
        },
    }
}

fn parse_page(page_size: i32, page_token: &str) -> Result<(usize, Option<TokenPlace>), Violation> {
    let limit = match usize::try_from(page_size) {
        Ok(0) => PAGE_SIZE_USUAL,
        Ok(size) => size.min(PAGE_SIZE_MAX),
        Err(_) => return Err(Violation::new("page_size", "INVALID_PAGE_SIZE", "must not be negative")),
    };
    if page_token.is_empty() {
        return Ok((limit, None));
    }
    let wrong = || Violation::new("page_token", "INVALID_PAGE_TOKEN", "is not a page token");
    let place = place_of(page_token).ok_or_else(wrong)?;
    Ok((limit, Some(place)))
}

/// A position, and no permission: whoever makes one up gets what a list gives anyway.
fn page_token_of(last: &StoredToken) -> String {
    let (id, create_time) = (last.token.id, last.token.create_time);
    BASE64URL_NOPAD.encode(&[&create_time.as_micros().to_be_bytes()[..], id.as_bytes()].concat())
}

fn place_of(page_token: &str) -> Option<TokenPlace> {
    let bytes = BASE64URL_NOPAD.decode(page_token.as_bytes()).ok()?;
    let (micros, id) = bytes.split_first_chunk::<8>()?;
    let create_time = Timestamp::from_micros(i64::from_be_bytes(*micros));
    Some(TokenPlace { create_time, id: PublicId::from_bytes(id.try_into().ok()?) })
}

/// Tokens that count at the same time.
const TOKENS_MAX: usize = 10_000;
const PAGE_SIZE_USUAL: usize = 50;
const PAGE_SIZE_MAX: usize = 1000;
const USES_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};
    use valetkey_audit::{AuditStore, Missing, StoreOptions};
    use valetkey_core::testing::{self, FakeClock, FakeLog, FakePolicy, FakeVault};
    use valetkey_core::{Clock, Gate, Identity, LeaseLimits, LeaseTable};

    const LIMITS: LeaseLimits = LeaseLimits {
        leases_max: 1,
        leases_per_agent_max: 1,
        handles_max: 1,
        handles_per_agent_max: 1,
        dead_handles_max: 1,
    };

    fn desk(store: &Arc<TokenStore>, log: &Arc<FakeLog>) -> TokenDesk {
        let clock: Arc<dyn Clock> = Arc::new(FakeClock::default());
        let gate = Gate::new(Arc::new(FakePolicy::new(|_| None)), log.clone(), Arc::clone(&clock));
        let vault = Arc::new(FakeVault::default());
        let table = LeaseTable::new(LIMITS, Arc::clone(&clock));
        let broker = Broker::new(gate, vault.clone(), vault, table, Arc::clone(&clock), None);
        TokenDesk { broker, store: Arc::clone(store), tokens: Arc::new(Tokens::new([], clock)), signer: None }
    }

    fn by<T>(call: &Arc<Call>, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(Arc::clone(call));
        request
    }

    async fn create(desk: &TokenDesk, call: &Arc<Call>) -> Result<String, Status> {
        let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let message = CreateTokenRequest { identity: "agent:bot".to_owned(), ttl, ..Default::default() };
        let created = desk.create_token(by(call, message)).await?.into_inner();
        Ok(created.token.unwrap().token_id)
    }

    #[tokio::test]
    async fn a_revocation_that_is_interrupted_counts_all_the_same() {
        let path = std::env::temp_dir().join(format!("valetkey-desk-{}.db", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let options = StoreOptions { missing: Missing::Create, ..StoreOptions::default() };
        let audit = AuditStore::open(&path, options, Arc::new(FakeClock::default())).ok().unwrap();
        let log = Arc::new(FakeLog::default());
        let desk = desk(audit.tokens(), &log);
        let call = testing::call(Identity::Person(testing::person("omar")));
        let token_id = create(&desk, &call).await.unwrap();
        let id = convert::token_id(&token_id).ok().unwrap();
        let ask = || by(&call, RevokeTokenRequest { token_id: token_id.clone() });

        let mut interrupted = desk.revoke_token(ask());
        for _ in 0..3 {
            let _ = interrupted.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        assert_eq!(log.records().len(), 3, "it is permitted, and waits for the store");
        drop(interrupted);
        let gone = async {
            while desk.tokens.origin(id).is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the token counts no more");
        assert!(desk.revoke_token(ask()).await.is_err(), "there is no such token any more");

        // A row that says so already does not keep the token alive.
        let token_id = create(&desk, &call).await.unwrap();
        let id = convert::token_id(&token_id).ok().unwrap();
        assert!(desk.store.revoke(id, &call.caller, desk.broker.clock().now()).ok().unwrap());
        let ask = by(&call, RevokeTokenRequest { token_id });
        assert!(desk.revoke_token(ask).await.is_ok() && desk.tokens.origin(id).is_none());

        // A creator that is revoked while its record is written makes no token.
        let credential = call.credential.clone();
        log.on_next_record(move || credential.revoke());
        assert!(create(&desk, &call).await.is_err() && desk.tokens.count() == 0);
        audit.close();
        let _ = std::fs::remove_file(&path);
    }
}
