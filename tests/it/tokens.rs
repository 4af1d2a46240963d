//! Tokens of the broker's own: made, used, listed, and revoked where it hurts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tonic::{Code, Status};
use valetkey_core::testing::FakeClock;
use valetkey_core::{Reason, RecordKind, Ruling};
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::{
    CheckAccessRequest, CreateTokenRequest, CreateTokenResponse, EndCause, ListTokensRequest,
    RevokeTokenRequest, Token, TokenState, WatchAuditRecordsRequest,
};
use valetkey_tests::hunt::Hunt;
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::{Setup, TestBroker, acquire};

const BOOK: &str = "navan.book_flight";
const NAVAN: &str = "op://Tutorial/Navan/username";

async fn create(broker: &TestBroker, identity: &str, seconds: i64) -> Result<CreateTokenResponse, Status> {
    let omar = broker.client("omar").await;
    let ttl = (seconds != 0).then_some(prost_types::Duration { seconds, nanos: 0 });
    let ask = CreateTokenRequest { identity: identity.to_owned(), ttl, ..Default::default() };
    let mut omar = omar.map_err(|error| Status::internal(error.to_string()))?;
    Ok(omar.tokens.create_token(ask).await?.into_inner())
}

async fn revoke(broker: &TestBroker, id: &str) -> Result<u32, Status> {
    let omar = broker.client("omar").await;
    let mut omar = omar.map_err(|error| Status::internal(error.to_string()))?;
    let ask = RevokeTokenRequest { token_id: id.to_owned() };
    Ok(omar.tokens.revoke_token(ask).await?.into_inner().leases_ended)
}

async fn list(broker: &TestBroker) -> Result<Vec<Token>> {
    let mut omar = broker.client("omar").await?;
    Ok(omar.tokens.list_tokens(ListTokensRequest::default()).await?.into_inner().tokens)
}

async fn check(broker: &TestBroker, secret: &str) -> Result<(), Status> {
    let client = broker.client_with(Some(&format!("Bearer {secret}"))).await;
    let mut client = client.map_err(|error| Status::internal(error.to_string()))?;
    let ask = CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
    client.leases.check_access(ask).await.map(drop)
}

#[tokio::test]
async fn a_token_outlives_the_broker_and_its_secret_is_nowhere() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mark = broker.mark();
    let made = create(&broker, "agent:travel-bot", 0).await?;
    let token = made.token.clone().context("no token")?;
    assert_eq!((token.identity.as_str(), token.creator.as_str()), ("agent:travel-bot", "person:omar"));
    let life = token.expire_time.context("no end")?.seconds - token.create_time.context("no begin")?.seconds;
    assert_eq!(life, 90 * 24 * 3600);
    assert!(made.secret_token.starts_with(&format!("{}_", token.token_id)), "{}", token.token_id);
    check(&broker, &made.secret_token).await?;
    let records = broker.since(mark).await?;
    let made_by: Vec<_> =
        records.iter().map(|it| (it.kind, it.caller.as_deref(), it.credential.clone())).collect();
    let omar = broker.token("omar")?.get(..20).map(ToOwned::to_owned);
    let expected = [
        (RecordKind::TokenCreate, Some("person:omar"), omar.clone()),
        (RecordKind::TokenCreate, Some("person:omar"), omar),
        (RecordKind::Check, Some("agent:travel-bot"), Some(token.token_id.clone())),
    ];
    assert_eq!(made_by, expected);
    for record in &records[..2] {
        assert!(record.detail.as_deref().is_some_and(|it| it.contains(&token.token_id)), "{records:#?}");
    }
    assert_eq!((records[1].ruling, records[1].reason), (Ruling::Event, Reason::Done), "what came of it");

    let mut hunt = Hunt::default();
    hunt.add_bearer("the token", &made.secret_token);
    hunt.search("its Debug form", format!("{made:?}"));
    hunt.search("the records", format!("{records:?}"));
    let setup = broker.stop().await?;
    hunt.search_files(setup.dir(), &["vault.json"])?;
    assert_eq!(hunt.found().0, [""; 0]);

    let broker = setup.start().await?;
    let listed = list(&broker).await?;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].use_time.is_some_and(|time| time.seconds % 60 == 0), "{listed:?}");
    assert_eq!(listed[0].state(), TokenState::Active);
    check(&broker, &made.secret_token).await?;
    assert_eq!(revoke(&broker, &token.token_id).await?, 0);
    let broker = broker.stop().await?.start().await?;
    assert_eq!(
        check(&broker, &made.secret_token).await.map_err(|status| status.code()),
        Err(Code::Unauthenticated)
    );
    let listed = list(&broker).await?;
    assert_eq!((listed[0].state(), listed[0].revoker.as_str()), (TokenState::Revoked, "person:omar"));

    // What was used last right before it was revoked was used last.
    let made = create(&broker, "agent:travel-bot", 0).await?;
    check(&broker, &made.secret_token).await?;
    revoke(&broker, &made.token.unwrap_or_default().token_id).await?;
    let listed = list(&broker).await?;
    assert!(listed[0].state() == TokenState::Revoked && listed[0].use_time.is_some(), "{listed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_live_streams_within_a_second() -> Result<()> {
    let broker = Arc::new(TestBroker::start().await?);
    let agent = create(&broker, "agent:travel-bot", 3600).await?;
    let person = create(&broker, "person:ana", 3600).await?;
    let operator = create(&broker, "person:omar", 3600).await?;
    let as_whom = |made: &CreateTokenResponse| format!("Bearer {}", made.secret_token);
    let id = |made: &CreateTokenResponse| made.token.clone().unwrap_or_default().token_id;

    let mut bot = broker.client_with(Some(&as_whom(&agent))).await?;
    let mut lease = Lease::open(&mut bot, acquire(BOOK, &[NAVAN])).await?;
    let mut other = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[NAVAN])).await?;
    let begin = Instant::now();
    assert_eq!(revoke(&broker, &id(&agent)).await?, 1);
    let Some(Event::Ended(ended)) = lease.next().await? else { anyhow::bail!("it goes on") };
    assert_eq!(ended.cause(), EndCause::Credential);
    assert!(lease.next().await?.is_none());
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let dead = broker.client(BOOK).await?.redeem(lease.handle(0)?).await;
    assert_eq!(dead.map_err(|status| status.code()).err(), Some(Code::FailedPrecondition));
    assert!(
        broker.client(BOOK).await?.redeem(other.handle(0)?).await.is_ok(),
        "the same agent's, by another token"
    );
    let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
    let unknown = Refused {
        code: Code::Unauthenticated,
        reason: "AGENT_UNAUTHENTICATED",
        kind: RecordKind::Unauthenticated,
        why: Reason::TokenUnknown,
    };
    let (_, record) = broker
        .check_refused("a revoked token", mark, counts, check(&broker, &agent.secret_token).await, unknown)
        .await?;
    assert_eq!(record.credential, Some(id(&agent)), "which one");
    let mark_end = broker.records("kind:lease_end reason:END_CREDENTIAL").await?;
    assert_eq!(mark_end.len(), 1);

    // Streams that are no leases: one of ours, and one of the transport's.
    let mut ana = broker.client_with(Some(&as_whom(&person))).await?;
    let watch = WatchAuditRecordsRequest { filter: "kind:stop".into(), after_record_id: String::new() };
    let mut watch = ana.audit.watch_audit_records(watch).await?.into_inner();
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", broker.address))?.connect().await?;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let mut ask = tonic::Request::new(tonic_health::pb::HealthCheckRequest::default());
    ask.metadata_mut().insert("authorization", as_whom(&operator).parse()?);
    let mut health = health.watch(ask).await?.into_inner();
    assert!(health.message().await?.is_some());
    let begin = Instant::now();
    for made in [&person, &operator] {
        assert_eq!(revoke(&broker, &id(made)).await?, 0);
    }
    let ends = async { [watch.message().await.map(drop), health.message().await.map(drop)] };
    for end in tokio::time::timeout(Duration::from_secs(10), ends).await.context("they go on")? {
        assert_eq!(end.err().map(|status| status.code()), Some(Code::Unauthenticated));
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(tokio::time::timeout(Duration::from_millis(50), other.next()).await.is_err(), "others go on");
    Ok(())
}

#[tokio::test]
async fn a_token_ends_by_itself_and_its_lease_with_it() -> Result<()> {
    let clock = FakeClock::default();
    let broker = Setup::new()?.clock(&clock).start().await?;
    let made = create(&broker, "agent:travel-bot", 100).await?;
    let mut bot = broker.client_with(Some(&format!("Bearer {}", made.secret_token))).await?;
    let mut lease = Lease::open(&mut bot, acquire(BOOK, &[NAVAN])).await?;
    clock.advance(Duration::from_secs(50));
    assert!(matches!(lease.next().await?, Some(Event::Renewed(_))));
    clock.advance(Duration::from_secs(50));
    let Some(Event::Ended(ended)) = lease.next().await? else { anyhow::bail!("it goes on") };
    assert_eq!(ended.cause(), EndCause::Credential);
    let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
    let over = Refused {
        code: Code::Unauthenticated,
        reason: "AGENT_UNAUTHENTICATED",
        kind: RecordKind::Unauthenticated,
        why: Reason::CredentialExpired,
    };
    broker
        .check_refused("a token that is over", mark, counts, check(&broker, &made.secret_token).await, over)
        .await?;
    assert_eq!(list(&broker).await?[0].state(), TokenState::Expired);
    Ok(())
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused() -> Result<()> {
    let broker = TestBroker::start().await?;
    let invalid =
        |reason, kind| Refused { code: Code::InvalidArgument, reason, kind, why: Reason::FieldInvalid };
    let making = |reason| invalid(reason, RecordKind::TokenCreate);
    let day = 24 * 3600;
    for (identity, seconds, expected) in [
        ("", 0, making("INVALID_IDENTITY")),
        ("travel-bot", 0, making("INVALID_IDENTITY")),
        ("robot:travel-bot", 0, making("INVALID_IDENTITY")),
        ("agent:travel bot", 0, making("INVALID_IDENTITY")),
        ("agent:bot", -1, making("INVALID_TTL")),
        ("agent:bot", 59, making("INVALID_TTL")),
        ("agent:bot", 365 * day + 1, making("INVALID_TTL")),
    ] {
        let mark = broker.mark();
        let answer = create(&broker, identity, seconds).await;
        broker.check_refused(identity, mark, (0, 0), answer, expected).await?;
    }
    let made = create(&broker, "agent:bot", 60).await?;
    for id in ["", "vkt_", "vkl_0123456789abcdef", &made.secret_token] {
        let mark = broker.mark();
        let answer = revoke(&broker, id).await;
        let (status, _) = broker
            .check_refused(id, mark, (0, 0), answer, invalid("INVALID_TOKEN_ID", RecordKind::TokenRevoke))
            .await?;
        assert!(!status.message().contains(&made.secret_token), "{status:?}");
    }
    let configured = broker.token("travel-bot")?.get(..20).context("no id")?.to_owned();
    for (id, code, reason) in [
        ("vkt_0123456789abcdef", Code::NotFound, "TOKEN_NOT_FOUND"),
        (configured.as_str(), Code::FailedPrecondition, "TOKEN_CONFIGURED"),
    ] {
        let mark = broker.mark();
        let status = revoke(&broker, id).await.err().context("it was revoked")?;
        let [allowed, told] = &broker.since(mark).await?[..] else { anyhow::bail!("not two records") };
        assert_eq!((allowed.ruling, told.ruling), (Ruling::Allow, Ruling::Event));
        assert_eq!((told.reason, told.detail.as_deref()), (Reason::Failed, Some(reason)));
        assert_eq!((told.kind, &told.request), (RecordKind::TokenRevoke, &allowed.request));
        assert_eq!((status.code(), valetkey_tests::reason(&status).as_str()), (code, reason));
    }
    for page_token in ["x", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAA="] {
        let mark = broker.mark();
        let ask = ListTokensRequest { page_size: 1, page_token: page_token.into() };
        let answer = broker.client("omar").await?.tokens.list_tokens(ask).await;
        let expected = invalid("INVALID_PAGE_TOKEN", RecordKind::TokenList);
        broker.check_refused(page_token, mark, (0, 0), answer, expected).await?;
    }
    Ok(())
}

#[tokio::test]
async fn pages_leave_nothing_out() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(create(&broker, &format!("agent:bot-{n}"), 60).await?.token.unwrap_or_default().identity);
    }
    let (mut omar, mut seen, mut page_token) = (broker.client("omar").await?, Vec::new(), String::new());
    loop {
        let page =
            omar.tokens.list_tokens(ListTokensRequest { page_size: 2, page_token }).await?.into_inner();
        seen.extend(page.tokens.into_iter().map(|token| token.identity));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    made.reverse();
    assert_eq!(seen, made);
    Ok(())
}
