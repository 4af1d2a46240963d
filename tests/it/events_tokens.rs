//! The Events API: whose tokens open it, how often, and what becomes of those who mean ill.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use data_encoding::BASE64URL_NOPAD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tonic::Code;
use valetkey_core::testing::FakeClock;
use valetkey_core::{Reason, RecordId, RecordKind};
use valetkey_proto::v1::{
    CreateTokenRequest, EventsFeature, ListTokensRequest, RevokeTokenRequest, TokenUsage,
};
use valetkey_server::EventsRate;
use valetkey_tests::contract::hold;
use valetkey_tests::events::{AUDIT, HOST, Scene, USAGES, create_token, drain, hold_error};
use valetkey_tests::issuer::Signer;
use valetkey_tests::{Setup, TestBroker, reason};

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_tokens_open_it_and_they_open_nothing_else() -> Result<()> {
    let scene = Scene::new().await?;
    let parts: Vec<_> = scene.token.split('.').collect();
    let claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[1].as_bytes())?)?;
    let header: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[0].as_bytes())?)?;
    // What its clients take out of it.
    assert_eq!((&header["alg"], &claims["aud"]), (&json!("ES256"), &json!([HOST])));
    assert_eq!(claims["1password.com/fts"], json!(["itemusages", "auditevents", "signinattempts"]));
    assert_eq!(
        claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(end, begin)| end - begin),
        Some(7_776_000)
    );

    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let unsigned = format!("{}.{}.", part(&json!({"alg": "none"})), parts[1]);
    let mut wider = claims.clone();
    wider["sub"] = json!("person:omar");
    let changed = format!("{}.{}.{}", parts[0], part(&wider), parts[2]);
    let kid = header["kid"].as_str().context("no kid")?;
    let forged = Signer::es256(kid)?.token(&claims)?;
    let foreign = Signer::es256("other")?.token(&claims)?;
    let mut cut = scene.token.clone();
    cut.pop();
    let omar = scene.broker.token("omar")?.to_owned();
    let cases: [(&str, Option<&str>, Reason); 8] = [
        ("nothing", None, Reason::TokenMissing),
        ("a token of the API", Some(&omar), Reason::JwtMalformed),
        ("none", Some(&unsigned), Reason::JwtAlgorithm),
        ("changed", Some(&changed), Reason::JwtSignature),
        ("another key", Some(&forged), Reason::JwtSignature),
        ("another key id", Some(&foreign), Reason::JwtKeyUnknown),
        ("cut", Some(&cut), Reason::JwtMalformed),
        ("text", Some("x"), Reason::JwtMalformed),
    ];
    let stranger = scene.place.stranger(&scene.broker)?;
    for (what, token, why) in cases {
        let asker = token.map_or_else(|| stranger.clone(), |token| stranger.with(token));
        for path in
            ["/api/auth/introspect", "/api/v2/auth/introspect", USAGES, "/api/v2/auditevents", "/elsewhere"]
        {
            let method = if path.contains("introspect") { Method::GET } else { Method::POST };
            let mark = scene.broker.mark();
            let answer = asker.ask(method, path, "{}").await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what} {path}");
            hold_error(&answer.body)?;
            let [record] = &scene.broker.since(mark).await?[..] else {
                anyhow::bail!("{what}: not one record")
            };
            assert_eq!((record.kind, record.reason), (RecordKind::Unauthenticated, why), "{what}");
            assert!(record.caller.is_none() && record.detail.as_deref() == Some(path), "{record:?}");
        }
    }

    // Nor does it open the broker's own API.
    let mark = scene.broker.mark();
    let mut client = scene.broker.client_with(Some(&format!("Bearer {}", scene.token))).await?;
    let refused = client.tokens.list_tokens(ListTokensRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let [record] = &scene.broker.since(mark).await?[..] else { anyhow::bail!("not one record") };
    assert_eq!(record.reason, Reason::JwtIssuer);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_listed_revoked_and_end() -> Result<()> {
    let clock = FakeClock::default();
    let scene = Scene::with(Setup::new()?.clock(&clock), EventsRate::default()).await?;
    let introspect = scene.asker.ask(Method::GET, "/api/auth/introspect", "").await?.body;
    hold(1, "Introspection", &introspect).map_err(anyhow::Error::msg)?;
    assert_eq!(introspect["Features"], json!(["itemusages", "auditevents", "signinattempts"]));
    let introspect = scene.asker.ask(Method::GET, "/api/v2/auth/introspect", "").await?.body;
    hold(2, "IntrospectionV2", &introspect).map_err(anyhow::Error::msg)?;

    // A token for one thing is refused the others.
    let features = [EventsFeature::AuditEvents, EventsFeature::AuditEvents];
    let made = create_token(&scene.broker, "ana", &features).await?;
    let one = scene.place.stranger(&scene.broker)?.with(&made.secret_token);
    one.page(AUDIT, "{}").await?;
    let mark = scene.broker.mark();
    assert_eq!(one.ask(Method::POST, USAGES, "{}").await?.status, StatusCode::UNAUTHORIZED);
    let [record] = &scene.broker.since(mark).await?[..] else { anyhow::bail!("not one record") };
    assert_eq!((record.kind, record.reason), (RecordKind::ReadAudit, Reason::CallerKind));

    let mut omar = scene.broker.client("omar").await?;
    let listed = omar.tokens.list_tokens(ListTokensRequest::default()).await?.into_inner().tokens;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|it| it.usage() == TokenUsage::Events && it.token_id.starts_with("vke_")));
    assert!(listed.iter().all(|it| it.identity == "person:ana"), "{listed:?}");
    let recorded = scene.broker.records("kind:token_create").await?;
    assert!(recorded.iter().any(|it| it.detail.ends_with(", for events: auditevents")), "{recorded:#?}");

    let token_id = made.token.context("no token")?.token_id;
    omar.tokens.revoke_token(RevokeTokenRequest { token_id }).await?;
    assert_eq!(one.ask(Method::POST, AUDIT, "{}").await?.status, StatusCode::UNAUTHORIZED);
    scene.asker.page(AUDIT, "{}").await?;
    let scene = Scene { broker: scene.place.start(scene.broker.stop().await?.clock(&clock)).await?, ..scene };
    let again = scene.place.stranger(&scene.broker)?;
    again.with(&scene.token).page(AUDIT, "{}").await?;
    clock.advance(Duration::from_secs(90 * 24 * 3600));
    let mark = scene.broker.mark();
    let late = again.with(&scene.token).ask(Method::POST, AUDIT, "{}").await?;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    let records = scene.broker.since(mark).await?;
    assert!(records.iter().any(|it| it.reason == Reason::CredentialExpired), "{records:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_have_a_token() -> Result<()> {
    let scene = Scene::new().await?;
    let mut omar = scene.broker.client("omar").await?;
    let mut refused = async |identity: &str, usage: i32, features: &[i32]| {
        let ask = CreateTokenRequest {
            identity: identity.to_owned(),
            ttl: None,
            usage,
            events_features: features.to_vec(),
        };
        omar.tokens.create_token(ask).await.map(drop).map_err(|status| reason(&status))
    };
    let events = TokenUsage::Events.into();
    assert_eq!(refused("agent:travel-bot", events, &[]).await, Err("INVALID_IDENTITY".into()));
    assert_eq!(refused("tool:web.search", events, &[]).await, Err("INVALID_IDENTITY".into()));
    assert_eq!(refused("person:ana", 9, &[]).await, Err("INVALID_TOKEN_USAGE".into()));
    assert_eq!(refused("person:ana", events, &[0]).await, Err("INVALID_TOKEN_USAGE".into()));
    assert_eq!(refused("person:ana", events, &[1, 1, 1, 1]).await, Err("INVALID_TOKEN_USAGE".into()));
    assert_eq!(refused("person:ana", 0, &[1]).await, Err("INVALID_TOKEN_USAGE".into()));
    assert_eq!(refused("person:ana", events, &[3, 1]).await, Ok(()));

    let without = TestBroker::start().await?;
    let error = create_token(&without, "ana", &[]).await.map(drop).unwrap_err();
    let status = error.downcast_ref::<tonic::Status>().context("no status")?;
    assert_eq!((status.code(), reason(status).as_str()), (Code::FailedPrecondition, "EVENTS_NOT_SERVED"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_ask_so_often() -> Result<()> {
    let clock = FakeClock::default();
    let rate = EventsRate { per_minute_max: 3, per_hour_max: 4 };
    let scene = Scene::with(Setup::new()?.clock(&clock), rate).await?;
    let other = scene.token_for("ana", &[]).await?;
    for _ in 0..3 {
        scene.asker.page(USAGES, "{}").await?;
    }
    let mark = scene.broker.mark();
    for _ in 0..3 {
        let refused = scene.asker.ask(Method::GET, "/api/auth/introspect", "").await?;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.retry_after.is_some_and(|wait| (1..=61).contains(&wait)), "{refused:?}");
        hold_error(&refused.body)?;
    }
    let [record] = &scene.broker.since(mark).await?[..] else { anyhow::bail!("not one record") };
    assert_eq!((record.kind, record.reason), (RecordKind::Limit, Reason::IdentityLimit));
    other.page(USAGES, "{}").await?;
    clock.advance(Duration::from_secs(60));
    scene.asker.page(USAGES, "{}").await?;
    let refused = scene.asker.ask(Method::POST, USAGES, "{}").await?;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.retry_after.is_some_and(|wait| wait > 60), "the hour's: {refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests() -> Result<()> {
    let scene = Scene::new().await?;
    let (_, cursor) = drain(&scene.asker, AUDIT, "{}").await?;
    for (what, path, body) in [
        ("no JSON", USAGES, "limit=20".to_owned()),
        ("half", USAGES, "{\"limit\":".to_owned()),
        ("deep", USAGES, format!("{{\"x\":{}", "[".repeat(10_000))),
        ("deep at once", USAGES, "[".repeat(10_000)),
        ("no limit", USAGES, "{\"limit\":0}".to_owned()),
        ("too much", USAGES, "{\"limit\":1001}".to_owned()),
        ("no time", USAGES, "{\"start_time\":\"yesterday\"}".to_owned()),
        ("no cursor", USAGES, "{\"cursor\":\"made up\"}".to_owned()),
        ("another path's cursor", USAGES, json!({ "cursor": cursor }).to_string()),
        ("not text", USAGES, "{\"\u{0}\":1}".to_owned()),
        ("huge", USAGES, format!("{{\"x\":\"{}\"}}", "x".repeat(200_000))),
    ] {
        let answer = scene.asker.ask(Method::POST, path, body).await;
        // A body that is far too large may be cut before the answer is read.
        if what == "huge" && answer.is_err() {
            continue;
        }
        let answer = answer?;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}: {answer:?}");
        hold_error(&answer.body)?;
    }
    for (method, path) in [
        (Method::GET, USAGES),
        (Method::POST, "/api/auth/introspect"),
        (Method::POST, "/api/v3/auditevents"),
        (Method::POST, "/api/v1/itemusages/"),
        (Method::GET, "/"),
    ] {
        let answer = scene.asker.ask(method, path, "").await?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        hold_error(&answer.body)?;
    }
    let malformed = scene.broker.since(RecordId(0)).await?;
    let malformed = malformed.iter().filter(|it| it.kind == RecordKind::Malformed);
    assert!(malformed.count() >= 15);
    scene.asker.page(USAGES, "\t{\r\n\"limit\":\t20 }\n").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_given_up() -> Result<()> {
    let scene = Scene::new().await?;
    let head = format!(
        "POST {USAGES} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        scene.token
    );
    assert!(raw(&scene, &head).await?.starts_with("HTTP/1.1 400 "));
    // Headers without end.
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n", "x".repeat(100_000));
    let answer = raw(&scene, &head).await.unwrap_or_default();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // What is no TLS gets no HTTP.
    let address = scene.broker.events_address.context("no address")?;
    let plain = tokio::task::spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(address)?;
        socket.write_all(b"GET /api/auth/introspect HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        anyhow::Ok(answer)
    });
    assert!(!plain.await??.starts_with(b"HTTP"));
    Ok(())
}

/// Sends this over TLS, and reads what comes first.
async fn raw(scene: &Scene, text: &str) -> Result<String> {
    let address = scene.broker.events_address.context("no address")?;
    let config = Arc::new(scene.place.trust()?);
    let text = text.to_owned();
    let talk = move || {
        let name = rustls::pki_types::ServerName::try_from("localhost")?;
        let socket = std::net::TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut stream = rustls::StreamOwned::new(rustls::ClientConnection::new(config, name)?, socket);
        stream.write_all(text.as_bytes())?;
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer)?;
        anyhow::Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
    };
    tokio::task::spawn_blocking(talk).await?
}

#[tokio::test]
async fn a_key_that_is_gone_is_not_made_again() -> Result<()> {
    let scene = Scene::new().await?;
    let key = scene.broker.dir.path().join("events-signing.key");
    let Scene { place, broker, token: _, asker: _ } = scene;
    let setup = broker.stop().await?;
    std::fs::rename(&key, key.with_extension("away"))?;
    let refused = place.start(setup).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("is missing") && refused.contains("openssl genpkey"), "{refused}");
    Ok(())
}
