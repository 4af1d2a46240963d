//! On whose behalf: proved by a token of the person's, seen by policies, recorded, and the end of the lease.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tonic::{Code, Response, Status};
use valetkey_core::testing::FakeClock;
use valetkey_core::{Clock, Reason, RecordKind};
use valetkey_proto::v1::EndCause;
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_tests::issuer::{Signer, StandIn};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::{Setup, TestBroker, acquire};

const SEARCH: &str = "web.search";
const DATABASE: &str = "op://Production/Database/password";
const PEOPLE: &str = "https://people.test";

/// For ana, and nobody else.
const POLICIES: &str = r#"
    // What an agent may have for one person.
    @id("for-reviewers")
    permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"production")
    when {
        context.tool == Tool::"web.search" && context.session has on_behalf_of &&
        context.session.on_behalf_of in Group::"reviewers"
    };
    @id("for-reviewers-redeem")
    permit (principal == Tool::"web.search", action == Action::"redeem", resource in Vault::"production")
    when { context.session has on_behalf_of && context.session.on_behalf_of == Person::"ana" };
"#;

struct Scene {
    broker: TestBroker,
    clock: FakeClock,
    key: Signer,
    _server: StandIn,
}

impl Scene {
    async fn new() -> Result<Self> {
        let (clock, key, server) = (FakeClock::default(), Signer::es256("a")?, StandIn::start().await?);
        server.publish(&[&key]);
        let people = format!(
            "issuer = \"{PEOPLE}\"\naudience = \"valetkey\"\njwks_url = \"{}\"\non_behalf_of = true\n\
             rules = [{{ person = \"{{sub}}\" }}]",
            server.url()
        );
        let workloads = people.replace("on_behalf_of = true\n", "").replace(PEOPLE, "https://workloads.test");
        let workloads = workloads.replace("person = ", "agent = ");
        let setup = Setup::new()?.clock(&clock).issuer(&people).issuer(&workloads);
        std::fs::write(setup.dir().join("policies/more.cedar"), POLICIES)?;
        Ok(Self { broker: setup.start().await?, clock, key, _server: server })
    }

    fn claims(&self, person: &str, seconds: i64) -> Value {
        let now = self.clock.now().as_micros() / 1_000_000;
        json!({"iss": PEOPLE, "aud": "valetkey", "sub": person, "iat": now, "exp": now + seconds})
    }

    fn token(&self, person: &str) -> Result<String> {
        self.key.token(&self.claims(person, 600))
    }

    async fn acquire(&self, person: &str) -> Result<Lease, Status> {
        let client = self.broker.client_for("travel-bot", person).await;
        let mut client = client.map_err(|error| Status::internal(error.to_string()))?;
        Lease::open(&mut client, acquire(SEARCH, &[DATABASE])).await
    }
}

#[tokio::test]
async fn policies_and_records_see_the_person() -> Result<()> {
    let scene = Scene::new().await?;
    let mark = scene.broker.mark();
    let lease = scene.acquire(&scene.token("ana")?).await?;
    // The tool says nothing of the person: it is the lease's.
    scene.broker.client(SEARCH).await?.redeem(lease.handle(0)?).await?;
    for record in scene.broker.settled(mark).await? {
        assert_eq!(record.on_behalf_of.as_deref(), Some("ana"), "{record:#?}");
        assert!(record.credential.is_some_and(|it| it.starts_with("vkt_")), "the caller's own");
    }
    let found = scene.broker.records("person:ana kind:redeem").await?;
    assert_eq!(found.iter().map(|it| it.on_behalf_of.as_str()).collect::<Vec<_>>(), ["ana"]);

    let denied = Refused {
        code: Code::PermissionDenied,
        reason: "ACCESS_DENIED",
        kind: RecordKind::Acquire,
        why: Reason::PolicyNoPermit,
    };
    let (mark, counts) = (scene.broker.mark(), scene.broker.broker.leases().counts());
    let answer = scene.acquire(&scene.token("eve")?).await;
    let (_, record) = scene.broker.check_refused("another person", mark, counts, answer, denied).await?;
    assert_eq!(record.on_behalf_of.as_deref(), Some("eve"));
    let mark = scene.broker.mark();
    let answer =
        scene.broker.client("travel-bot").await?.leases.acquire_lease(acquire(SEARCH, &[DATABASE])).await;
    scene.broker.check_refused("nobody", mark, counts, answer.map(Response::into_inner), denied).await?;
    Ok(())
}

#[tokio::test]
async fn what_proves_nobody_is_never_passed_over() -> Result<()> {
    let scene = Scene::new().await?;
    let with = |change: Value| {
        let mut claims = scene.claims("ana", 600);
        if let (Value::Object(claims), Value::Object(change)) = (&mut claims, change) {
            claims.extend(change);
        }
        scene.key.token(&claims)
    };
    let good = scene.token("ana")?;
    let now = scene.clock.now().as_micros() / 1_000_000;
    let unsigned = scene.key.sign(&json!({"alg": "none", "kid": "a"}), &scene.claims("ana", 600))?;
    for (what, token, why) in [
        ("a name", "ana".to_owned(), Reason::JwtMalformed),
        ("nothing", String::new(), Reason::JwtMalformed),
        ("not signed", unsigned, Reason::JwtAlgorithm),
        ("a scheme before it", format!("Bearer {good}"), Reason::JwtMalformed),
        ("the agent's own token", scene.broker.token("travel-bot")?.to_owned(), Reason::JwtMalformed),
        ("a workload's token", with(json!({"iss": "https://workloads.test"}))?, Reason::JwtAudience),
        ("another's audience", with(json!({"aud": "mail"}))?, Reason::JwtAudience),
        ("an old one", with(json!({"exp": now - 40, "iat": now - 600}))?, Reason::JwtExpired),
        ("another's signature", Signer::es256("a")?.token(&scene.claims("ana", 600))?, Reason::JwtSignature),
    ] {
        let (mark, counts) = (scene.broker.mark(), scene.broker.broker.leases().counts());
        let expected = Refused {
            code: Code::Unauthenticated,
            reason: "PERSON_UNAUTHENTICATED",
            kind: RecordKind::Unauthenticated,
            why,
        };
        let answer = scene.acquire(&token).await;
        let (_, record) = scene.broker.check_refused(what, mark, counts, answer, expected).await?;
        assert_eq!(record.caller.as_deref(), Some("agent:travel-bot"), "{what}");
        assert_eq!(record.on_behalf_of, None, "{what}");
    }
    // Two of them: which was meant is not for the broker to guess.
    let mut ask = tonic::Request::new(acquire(SEARCH, &[DATABASE]));
    for _ in 0..2 {
        ask.metadata_mut().append("x-valetkey-on-behalf-of", good.parse()?);
    }
    let (mark, counts) = (scene.broker.mark(), scene.broker.broker.leases().counts());
    let answer = scene.broker.client("travel-bot").await?.leases.acquire_lease(ask).await;
    let expected = Refused {
        code: Code::Unauthenticated,
        reason: "PERSON_UNAUTHENTICATED",
        kind: RecordKind::Unauthenticated,
        why: Reason::BehalfInvalid,
    };
    scene.broker.check_refused("two", mark, counts, answer.map(Response::into_inner), expected).await?;
    Ok(())
}

/// An agent holds the token of its person; it must not become that person by it.
#[tokio::test]
async fn a_token_on_behalf_is_no_identity() -> Result<()> {
    let scene = Scene::new().await?;
    let (mark, counts) = (scene.broker.mark(), scene.broker.broker.leases().counts());
    let mut thief = scene.broker.client_with(Some(&format!("Bearer {}", scene.token("ana")?))).await?;
    let answer = thief.audit.list_audit_records(valetkey_proto::v1::ListAuditRecordsRequest::default()).await;
    let expected = Refused {
        code: Code::Unauthenticated,
        reason: "AGENT_UNAUTHENTICATED",
        kind: RecordKind::Unauthenticated,
        why: Reason::JwtAudience,
    };
    scene.broker.check_refused("as a caller", mark, counts, answer, expected).await?;
    Ok(())
}

#[tokio::test]
async fn the_lease_ends_with_the_persons_token() -> Result<()> {
    let scene = Scene::new().await?;
    let token = scene.key.token(&scene.claims("ana", 70))?;
    let mut lease = scene.acquire(&token).await?;
    scene.clock.advance(Duration::from_secs(50));
    assert!(matches!(lease.next().await?, Some(Event::Renewed(_))));
    // The token counts for 30 s longer than it says, for clocks that differ: until second 100.
    scene.clock.advance(Duration::from_secs(48));
    scene.clock.advance(Duration::from_secs(3));
    let Some(Event::Ended(ended)) = lease.next().await? else { anyhow::bail!("it goes on") };
    assert_eq!(ended.cause(), EndCause::Credential);
    Ok(())
}
