//! Signed tokens of issuers: who is taken, who is refused and why, keys that change, and issuers that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tonic::{Code, Status};
use valetkey_audit::StoredRecord;
use valetkey_core::testing::FakeClock;
use valetkey_core::{Clock, Reason, RecordKind};
use valetkey_proto::v1::{CheckAccessRequest, CheckAccessResponse, Decision};
use valetkey_tests::issuer::{Answer, Signer, StandIn};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::{Setup, TestBroker, acquire, unix_micros};

const BOOK: &str = "navan.book_flight";
const NAVAN: &str = "op://Tutorial/Navan/username";
const DATABASE: &str = "op://Production/Database/password";
const ISSUER: &str = "https://issuer.test";

/// The lines of an issuer's section whose keys are there.
fn issuer(name: &str, url: &str) -> String {
    format!(
        "issuer = \"{name}\"\naudience = \"valetkey\"\njwks_url = \"{url}\"\nclaims = [\"repository\"]\n\
         rules = [{{ when = {{ sub = \"svc:*\" }}, agent = \"{{sub:*}}\" }}, \
         {{ when = {{ sub = \"tool:**\" }}, tool = \"{{sub:*}}\" }}]"
    )
}

/// Claims that are good for ten minutes, with these in place of those.
fn claims(now: i64, change: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "valetkey", "sub": "svc:travel-bot", "iat": now, "exp": now + 600,
    });
    if let (Value::Object(claims), Value::Object(change)) = (&mut claims, change) {
        claims.extend(change);
        claims.retain(|_, value| !value.is_null());
    }
    claims
}

fn now() -> i64 {
    unix_micros() / 1_000_000
}

async fn check(broker: &TestBroker, token: &str) -> Result<CheckAccessResponse, Status> {
    let client = broker.client_with(Some(&format!("Bearer {token}"))).await;
    let mut client = client.map_err(|error| Status::internal(error.to_string()))?;
    let ask = CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
    Ok(client.leases.check_access(ask).await?.into_inner())
}

async fn refused(broker: &TestBroker, what: &str, token: &str, why: Reason) -> Result<StoredRecord> {
    let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
    let answer = check(broker, token).await;
    let expected = Refused {
        code: Code::Unauthenticated,
        reason: "AGENT_UNAUTHENTICATED",
        kind: RecordKind::Unauthenticated,
        why,
    };
    let (status, record) = broker.check_refused(what, mark, counts, answer, expected).await?;
    assert_eq!(status.message(), "no valid token came with the request", "{what}");
    assert_eq!(record.caller, None, "{what}");
    // What can be read has an id that opens nothing.
    let id = record.credential.as_deref();
    assert!(id.is_none_or(|id| id.starts_with("jwt_") && id.len() == 20), "{what}: {id:?}");
    Ok(record)
}

/// A broker that knows one issuer, which publishes these keys.
async fn with_issuer(keys: &[&Signer]) -> Result<(TestBroker, StandIn)> {
    let server = StandIn::start().await?;
    server.publish(keys);
    let broker = Setup::new()?.issuer(&issuer(ISSUER, &server.url())).start().await?;
    Ok((broker, server))
}

#[tokio::test]
async fn a_workload_is_known_by_its_token() -> Result<()> {
    let keys = [Signer::es256("a")?, Signer::eddsa("b")?, Signer::rs256("c")?];
    let (broker, _server) = with_issuer(&keys.each_ref()).await?;
    for key in &keys {
        let token = key.token(&claims(now(), json!({})))?;
        let mut bot = broker.client_with(Some(&format!("Bearer {token}"))).await?;
        let mark = broker.mark();
        let lease = Lease::open(&mut bot, acquire(BOOK, &[NAVAN])).await?;
        let tool =
            key.token(&claims(now(), json!({"sub": format!("tool:{BOOK}"), "aud": ["x", "valetkey"]})))?;
        let mut tool = broker.client_with(Some(&format!("bearer {tool}"))).await?;
        assert!(!tool.redeem(lease.handle(0)?).await?.secret_value.is_empty());
        let mut records = broker.settled(mark).await?;
        records.retain(|it| it.caller.is_some());
        let callers: Vec<_> = records.iter().map(|it| it.caller.as_deref().unwrap_or_default()).collect();
        assert_eq!(callers, ["agent:travel-bot", "tool:navan.book_flight"]);
        for record in records {
            let credential = record.credential.context("no credential")?;
            assert!(credential.starts_with("jwt_") && credential.len() == 20, "{credential}");
        }
    }
    // A little before and after its time: clocks differ.
    for change in [
        json!({"exp": now() - 20}),
        json!({"nbf": now() + 20}),
        json!({"iat": now() + 20}),
        json!({"iat": null}),
    ] {
        let answer = check(&broker, &keys[0].token(&claims(now(), change.clone()))?).await;
        assert_eq!(answer.map(|it| it.decision()).ok(), Some(Decision::Allow), "{change}");
    }
    // One that names no key means any of its type.
    let token = keys[0].sign(&json!({"alg": "ES256"}), &claims(now(), json!({})))?;
    assert!(check(&broker, &token).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn every_refusal_has_its_reason_in_the_record_alone() -> Result<()> {
    let (key, other, rsa) = (Signer::es256("a")?, Signer::es256("a")?, Signer::rs256("c")?);
    let (broker, _server) = with_issuer(&[&key, &rsa]).await?;
    let (now, good) = (now(), claims(now(), json!({})));
    let header = |alg: &str| key.sign(&json!({"alg": alg, "kid": "a"}), &good);
    refused(&broker, "not signed", &header("none")?, Reason::JwtAlgorithm).await?;
    refused(&broker, "a shared secret", &header("HS256")?, Reason::JwtAlgorithm).await?;
    refused(&broker, "not allowed", &header("ES384")?, Reason::JwtAlgorithm).await?;
    refused(&broker, "a key of another type", &header("RS256")?, Reason::JwtKeyMismatch).await?;
    let confused = rsa.sign(&json!({"alg": "EdDSA", "kid": "c"}), &good)?;
    refused(&broker, "a key of another algorithm", &confused, Reason::JwtKeyMismatch).await?;
    let unknown = key.sign(&json!({"alg": "ES256", "kid": "z"}), &good)?;
    refused(&broker, "an unknown key", &unknown, Reason::JwtKeyUnknown).await?;
    refused(&broker, "another's signature", &other.token(&good)?, Reason::JwtSignature).await?;
    let swapped = [key.token(&good)?, key.token(&claims(now, json!({"sub": "svc:other"})))?];
    let parts: Vec<Vec<&str>> = swapped.iter().map(|token| token.split('.').collect()).collect();
    let mixed = [parts[0][0], parts[1][1], parts[0][2]].join(".");
    refused(&broker, "other claims", &mixed, Reason::JwtSignature).await?;
    refused(&broker, "no signature", &[parts[0][0], parts[0][1], ""].join("."), Reason::JwtSignature).await?;

    for (change, why) in [
        (json!({"iss": "https://other.test"}), Reason::JwtIssuer),
        (json!({"iss": null}), Reason::JwtIssuer),
        (json!({"iss": "https://issuer.test/"}), Reason::JwtIssuer),
        (json!({"aud": "other"}), Reason::JwtAudience),
        (json!({"aud": ["other", "Valetkey"]}), Reason::JwtAudience),
        (json!({"aud": null}), Reason::JwtAudience),
        (json!({"exp": now - 31, "iat": now - 600}), Reason::JwtExpired),
        (json!({"exp": null}), Reason::JwtLifeTooLong),
        (json!({"exp": now + 24 * 3600 + 5}), Reason::JwtLifeTooLong),
        (json!({"exp": now + 24 * 3600 + 5, "iat": null}), Reason::JwtLifeTooLong),
        (json!({"exp": i64::MAX}), Reason::JwtLifeTooLong),
        (json!({"exp": "tomorrow"}), Reason::JwtMalformed),
        (json!({"nbf": now + 40}), Reason::JwtNotYetValid),
        (json!({"iat": now + 40}), Reason::JwtNotYetValid),
        (json!({"sub": "nobody"}), Reason::JwtNoRule),
        (json!({"sub": "svc:a/b"}), Reason::JwtNoRule),
        (json!({"sub": "tool:a b"}), Reason::JwtNoRule),
        (json!({"sub": null}), Reason::JwtNoRule),
        (json!({"filling": "x".repeat(9_000)}), Reason::JwtMalformed),
    ] {
        refused(&broker, &change.to_string(), &key.token(&claims(now, change.clone()))?, why).await?;
    }
    let critical = key.sign(&json!({"alg": "ES256", "kid": "a", "crit": ["b64"], "b64": false}), &good)?;
    refused(&broker, "what must be understood", &critical, Reason::JwtMalformed).await?;
    for text in ["a.b.c", "..", "e30.e30.e30", ".", "e30.e30", &format!("{}.", parts[0][0])] {
        refused(&broker, text, text, Reason::JwtMalformed).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_says_what_was_claimed_and_what_was_signed() -> Result<()> {
    let (key, other) = (Signer::es256("a")?, Signer::es256("a")?);
    let (broker, _server) = with_issuer(&[&key]).await?;
    let told = claims(now(), json!({"sub": "svc:a/b", "jti": "run-7"}));
    let signed =
        "its token, which is signed, says issuer `https://issuer.test`, subject `svc:a/b`, token id `run-7`";
    let record = refused(&broker, "no rule", &key.token(&told)?, Reason::JwtNoRule).await?;
    assert_eq!(record.detail, Some(format!("/valetkey.v1.LeaseService/CheckAccess; {signed}")));
    assert!(record.credential.is_some());

    let claimed = signed.replace("which is signed, says", "@").replace("token, @", "token claims, unproved,");
    let record = refused(&broker, "not signed", &other.token(&told)?, Reason::JwtSignature).await?;
    assert_eq!(record.detail, Some(format!("/valetkey.v1.LeaseService/CheckAccess; {claimed}")));

    // What somebody makes up stays within its quotes, is no control character, and is cut.
    let sub = format!("a`, token id `b\n{}", "x".repeat(500));
    let made_up = other.token(&claims(now(), json!({"iss": "https://nobody.test", "sub": sub})))?;
    let record = refused(&broker, "made up", &made_up, Reason::JwtIssuer).await?;
    let detail = record.detail.context("no detail")?;
    assert!(detail.contains("issuer `https://nobody.test`, subject `a', token id 'b\\u{a}xxx"), "{detail}");
    assert!(detail.len() < 400, "{detail}");
    Ok(())
}

#[tokio::test]
async fn a_token_for_one_use_has_one() -> Result<()> {
    let (key, server) = (Signer::es256("a")?, StandIn::start().await?);
    server.publish(&[&key]);
    let lines = format!("{}\nsingle_use = true", issuer(ISSUER, &server.url()));
    let broker = Setup::new()?.issuer(&lines).start().await?;
    let once = key.token(&claims(now(), json!({"jti": "1"})))?;
    assert!(check(&broker, &once).await.is_ok());
    refused(&broker, "a replay", &once, Reason::JwtReplayed).await?;
    let again = key.token(&claims(now(), json!({"jti": "1", "exp": now() + 500})))?;
    refused(&broker, "another with its id", &again, Reason::JwtReplayed).await?;
    refused(&broker, "one without an id", &key.token(&claims(now(), json!({})))?, Reason::JwtReplayed)
        .await?;
    assert!(check(&broker, &key.token(&claims(now(), json!({"jti": "2"})))?).await.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_under_load_without_a_refusal() -> Result<()> {
    let (old, new) = (Arc::new(Signer::es256("old")?), Arc::new(Signer::es256("new")?));
    let (broker, server) = with_issuer(&[&old]).await?;
    let (broker, is_changed) = (Arc::new(broker), Arc::new(AtomicBool::new(false)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (old, new, is_changed) = (Arc::clone(&old), Arc::clone(&new), Arc::clone(&is_changed));
        let broker = Arc::clone(&broker);
        callers.spawn(async move {
            let mut by_new = 0;
            while by_new < 5 {
                let is_new = is_changed.load(Ordering::SeqCst);
                let key = if is_new { &new } else { &old };
                let answer = check(&broker, &key.token(&claims(now(), json!({})))?).await?;
                anyhow::ensure!(answer.decision() == Decision::Allow);
                by_new += usize::from(is_new);
            }
            Ok(())
        });
    }
    while broker.records("kind:check").await?.len() < 12 {
        tokio::task::yield_now().await;
    }
    server.publish(&[&old, &new]);
    is_changed.store(true, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    // The old one is gone: known to the broker until the keys are read again.
    assert!(server.asked() <= 3, "asked {} times", server.asked());
    Ok(())
}

#[tokio::test]
async fn an_issuer_that_fails_is_believed_for_an_hour() -> Result<()> {
    let (clock, key, server) = (FakeClock::default(), Signer::es256("a")?, StandIn::start().await?);
    server.publish(&[&key]);
    let broker = Setup::new()?.clock(&clock).issuer(&issuer(ISSUER, &server.url())).start().await?;
    let token = |clock: &FakeClock| key.token(&claims(clock.now().as_micros() / 1_000_000, json!({})));
    assert!(check(&broker, &token(&clock)?).await.is_ok());
    server.answer(Answer::Down);
    for minutes in [6, 30, 23] {
        clock.advance(Duration::from_secs(minutes * 60));
        assert!(check(&broker, &token(&clock)?).await.is_ok(), "{minutes} minutes on");
    }
    clock.advance(Duration::from_secs(2 * 60));
    refused(&broker, "keys of long ago", &token(&clock)?, Reason::JwtKeysUnavailable).await?;
    server.publish(&[&key]);
    clock.advance(Duration::from_secs(31));
    assert!(check(&broker, &token(&clock)?).await.is_ok(), "as soon as it is back");
    Ok(())
}

#[tokio::test]
async fn keys_of_no_use_are_no_keys() -> Result<()> {
    let (key, weak) = (Signer::es256("a")?, json!({"keys": [{"kty": "oct", "kid": "a", "k": "AAAA"}]}));
    let huge = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(600 * 1024));
    let good = json!({"keys": [key.jwk()]}).to_string();
    let answers = [
        ("down", Answer::Down),
        ("silent", Answer::Silent),
        ("busy", Answer::With(503, good.clone())),
        ("moved", Answer::With(302, good)),
        ("html", Answer::With(200, "<html>".into())),
        ("weak", Answer::With(200, weak.to_string())),
        ("huge", Answer::With(200, huge)),
    ];
    let (mut setup, mut servers) = (Setup::new()?, Vec::new());
    for (name, answer) in &answers {
        let server = StandIn::start().await?;
        server.answer(answer.clone());
        setup = setup.issuer(&issuer(name, &server.url()));
        servers.push(server);
    }
    std::fs::write(setup.dir().join("keys.json"), "[]")?;
    for file in ["absent", "keys"] {
        let lines = issuer(file, "").replace("jwks_url = \"\"", &format!("jwks_file = \"{file}.json\""));
        setup = setup.issuer(&lines);
    }
    let broker = setup.start().await?;
    for name in answers.iter().map(|(name, _)| *name).chain(["absent", "keys"]) {
        let token = key.token(&claims(now(), json!({"iss": name})))?;
        let begin = Instant::now();
        refused(&broker, name, &token, Reason::JwtKeysUnavailable).await?;
        assert!(begin.elapsed() < Duration::from_secs(5), "{name} took {:?}", begin.elapsed());
    }
    // A file that is mended is read when a token needs it.
    let token = key.token(&claims(now(), json!({"iss": "absent"})))?;
    refused(&broker, "so soon", &token, Reason::JwtKeysUnavailable).await?;
    Ok(())
}

#[tokio::test]
async fn unknown_keys_do_not_make_the_broker_ask_and_ask() -> Result<()> {
    let key = Signer::es256("a")?;
    let (broker, server) = with_issuer(&[&key]).await?;
    assert!(check(&broker, &key.token(&claims(now(), json!({})))?).await.is_ok());
    for n in 0..20 {
        let unknown = key.sign(&json!({"alg": "ES256", "kid": n.to_string()}), &claims(now(), json!({})))?;
        refused(&broker, "an unknown key", &unknown, Reason::JwtKeyUnknown).await?;
    }
    assert!(server.asked() <= 3, "asked {} times", server.asked());
    Ok(())
}

#[tokio::test]
async fn policies_see_what_a_token_claims() -> Result<()> {
    let (key, server) = (Signer::es256("a")?, StandIn::start().await?);
    server.publish(&[&key]);
    let setup = Setup::new()?.issuer(&issuer(ISSUER, &server.url()));
    let policy = r#"
        // What runs in one repository.
        @id("of-repository")
        permit (principal is Agent, action == Action::"acquire", resource in Vault::"production")
        when { context.session has claims && context.session.claims.contains("repository=acme/app") };
    "#;
    std::fs::write(setup.dir().join("policies/more.cedar"), policy)?;
    let broker = setup.start().await?;
    for (repository, decision) in [("acme/app", Decision::Allow), ("acme/other", Decision::Deny)] {
        let token = key.token(&claims(now(), json!({"sub": "svc:ci", "repository": repository})))?;
        let mut bot = broker.client_with(Some(&format!("Bearer {token}"))).await?;
        let ask = CheckAccessRequest { tool: BOOK.into(), reference: DATABASE.into(), ..Default::default() };
        let answer = bot.leases.check_access(ask).await?.into_inner();
        assert_eq!(answer.decision(), decision, "{repository}");
    }
    Ok(())
}
