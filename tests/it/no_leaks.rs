//! Values, handles and tokens go where they must, and appear nowhere else.
//!
//! A vault of canaries, each value different, goes through every path; so does every handle, also in fields
//! where it has no business. Then logs, panics, database files, statuses, records and `Debug` forms are
//! searched for any twelve bytes of any of them.

use std::time::Duration;

use anyhow::{Context, Result};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use tonic::{Code, Request, Status};
use valetkey_audit::Fault;
use valetkey_core::Clock;
use valetkey_core::testing::FakeClock;
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::get_usage_report_request::Subject;
use valetkey_proto::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, CheckAccessRequest, CreateTokenRequest, EndLeaseRequest,
    FindValueRequest, GetAuditRecordRequest, GetUsageReportRequest, HandleRenewed, ListAuditRecordsRequest,
    ListRefusalsRequest, ListTokensRequest, ListUnusedAccessRequest, RedeemHandleRequest,
    RedeemHandleResponse, ReportPeriod, RevokeTokenRequest, WatchAuditRecordsRequest,
};
use valetkey_tests::hunt::Hunt;
use valetkey_tests::issuer::{Signer, StandIn};
use valetkey_tests::lease::{Lease, forged};
use valetkey_tests::raw::{Raw, RawCall, frame};
use valetkey_tests::trace::Trace;
use valetkey_tests::{CAST, Client, Setup, TestBroker, acquire};

const BOOK: &str = "navan.book_flight";

/// Everything for one tool, so that every value is on its way.
const ALL: &str = r#"
// For the canaries.
@id("all")
permit (principal == Agent::"travel-bot", action in [Action::"acquire", Action::"acquireSeed"], resource)
when { context.tool == Tool::"navan.book_flight" };

@id("all-redeem")
permit (principal == Tool::"navan.book_flight", action == Action::"redeem", resource);
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_anywhere_else() -> Result<()> {
    let trace = Trace::start()?;
    let clock = FakeClock::default();
    let (key, issuer) = (Signer::es256("a")?, StandIn::start().await?);
    issuer.publish(&[&key]);
    let setup = Setup::new()?.clock(&clock).issuer(&people(&issuer, "")).issuer(&people(&issuer, "true"));
    std::fs::write(setup.dir().join("policies/all.cedar"), ALL)?;
    let mut hunt = Hunt::default();
    let canaries = plant(&setup, &mut hunt)?;
    let broker = setup.start().await?;
    for (_, name) in CAST {
        hunt.add_bearer(&format!("the token of {name}"), broker.token(name)?);
    }

    let mut lease = values_flow(&broker, &canaries, &mut hunt).await?;
    refused_redeems(&broker, &lease, &mut hunt).await?;
    broken_references(&broker, &mut hunt).await?;
    time_passes(&broker, &clock, &mut lease, &mut hunt).await?;
    handles_where_they_have_no_business(&broker, &mut hunt).await?;
    handles_in_what_is_no_message(&broker, &mut hunt).await?;
    tokens_are_made_and_signed(&broker, &clock, &key, &mut hunt).await?;
    revoked_by_reload(&broker, &mut hunt).await?;
    the_log_is_read(&broker, &mut hunt).await?;
    values_are_looked_for(&broker, &canaries, &mut hunt).await?;
    hunt.search_files(broker.dir.path(), &["vault.json"])?;

    let released = broker.records("outcome:released").await?;
    the_writer_panics(&broker, &mut hunt).await?;
    let dir = std::sync::Arc::clone(&broker.dir);
    // The writer is gone, so stopping has something to say as well.
    let _ = broker.stop().await;
    hunt.search_files(dir.path(), &["vault.json"])?;
    let logs = trace.bytes();
    let mut digests = Hunt::default();
    for record in &released {
        let digest = record.outcome.as_ref().map(|it| it.value_digest.clone()).unwrap_or_default();
        digests.add("a digest", digest.as_bytes());
    }
    let key = std::fs::read_to_string(dir.path().join("audit.db-digest-key"))?;
    digests.add_bearer("the digest key", key.trim());
    digests.search("the logs", &logs);
    assert!(digests.found().0.is_empty() && !released.is_empty(), "{:#?}", digests.found().0);
    let said = |text: &str| String::from_utf8_lossy(&logs).contains(text);
    assert!(said("policies reloaded") && said("told to panic"), "nothing was captured");
    hunt.search("the logs", &logs);
    let (found, searched) = hunt.found();
    assert!(found.is_empty(), "{found:#?}");
    assert!(searched > 200, "only {searched} places were searched");
    Ok(())
}

/// An issuer's section; `behalf` is whether its tokens say on whose behalf.
fn people(issuer: &StandIn, behalf: &str) -> String {
    let behalf = if behalf.is_empty() { "false" } else { behalf };
    format!(
        "issuer = \"https://issuer.test\"\naudience = \"{behalf}\"\njwks_url = \"{}\"\non_behalf_of = {behalf}\n\
         rules = [{{ person = \"{{sub}}\" }}]",
        issuer.url()
    )
}

/// Tokens of the broker's own and signed ones: good, bad, and where they have no business.
async fn tokens_are_made_and_signed(
    broker: &TestBroker,
    clock: &FakeClock,
    key: &Signer,
    hunt: &mut Hunt,
) -> Result<()> {
    let mut omar = broker.client("omar").await?;
    let ask = CreateTokenRequest { identity: "agent:travel-bot".into(), ..Default::default() };
    let made = omar.tokens.create_token(ask).await?.into_inner();
    hunt.add_bearer("a token that was made", &made.secret_token);
    hunt.search("Debug of a token", format!("{made:?}"));
    let listed = omar.tokens.list_tokens(ListTokensRequest::default()).await?;
    hunt.search("the list of tokens", format!("{listed:?}"));
    let revoke = RevokeTokenRequest { token_id: made.secret_token.clone() };
    refused("a token for its id", omar.tokens.revoke_token(revoke).await, hunt)?;
    let create = CreateTokenRequest { identity: made.secret_token.clone(), ..Default::default() };
    refused("a token for a name", omar.tokens.create_token(create).await, hunt)?;

    let now = clock.now().as_micros() / 1_000_000;
    let signed = |audience: &str, exp: i64| {
        let claims = serde_json::json!({
            "iss": "https://issuer.test", "aud": audience, "sub": "ana", "iat": now - 90, "exp": exp,
        });
        key.token(&claims)
    };
    // A handle where a token has its claims, signed and not.
    let handle = valetkey_core::Bearer::random("vkh_").expose_secret().as_str().to_owned();
    hunt.add_bearer("a handle in a claim", &handle);
    for claims in [
        serde_json::json!({"iss": handle, "aud": "false", "sub": handle, "jti": handle, "exp": now + 600}),
        serde_json::json!({
            "iss": "https://issuer.test", "aud": "false", "sub": handle, "jti": handle, "exp": now - 600,
        }),
    ] {
        let mut caller = broker.client_with(Some(&format!("Bearer {}", key.token(&claims)?))).await?;
        let ask = ListAuditRecordsRequest::default();
        refused("a handle in a claim", caller.audit.list_audit_records(ask).await, hunt)?;
    }
    let (caller, behalf) = (signed("false", now + 600)?, signed("true", now + 600)?);
    let all = [caller.clone(), behalf.clone(), signed("false", now - 60)?, signed("other", now + 600)?];
    for token in &all {
        let signature = token.rsplit('.').next().context("no signature")?;
        hunt.add("a signed token", signature.as_bytes());
    }
    let filter = ListAuditRecordsRequest { filter: "person:ana".into(), ..Default::default() };
    let mut ana = broker.client_with(Some(&format!("Bearer {caller}"))).await?;
    hunt.search("a query by a signed token", format!("{:?}", ana.audit.list_audit_records(filter).await?));
    let ask = || CheckAccessRequest {
        tool: BOOK.into(),
        reference: "op://Tutorial/Navan/username".into(),
        ..Default::default()
    };
    hunt.search(
        "on behalf",
        format!("{:?}", broker.client_for("travel-bot", &behalf).await?.leases.check_access(ask()).await?),
    );
    for token in &all {
        let mut as_caller = broker.client_with(Some(&format!("Bearer {token}x"))).await?;
        refused("a bad signed token", as_caller.leases.check_access(ask()).await, hunt)?;
        let mut for_person = broker.client_for("travel-bot", &format!("{token}x")).await?;
        refused("a bad token of a person", for_person.leases.check_access(ask()).await, hunt)?;
        // In fields: whatever comes of it, the search is for the token.
        let mut bot = broker.client("travel-bot").await?;
        for ask in [
            AcquireLeaseRequest {
                purpose: token.clone(),
                ..acquire(BOOK, &["op://Tutorial/Navan/username"])
            },
            AcquireLeaseRequest { tool: token.clone(), ..acquire(BOOK, &["op://Tutorial/Navan/username"]) },
            acquire(BOOK, &[&format!("op://{token}/a/b")]),
        ] {
            match bot.leases.acquire_lease(AcquireLeaseRequest { session: token.clone(), ..ask }).await {
                Ok(events) => drop(events),
                Err(status) => hunt.search_status("a signed token in a field", &status),
            }
        }
    }
    Ok(())
}

/// The vault with a canary in place of each value: references and what they must give.
fn plant(setup: &Setup, hunt: &mut Hunt) -> Result<Vec<(String, String)>> {
    let path = setup.dir().join("vault.json");
    let mut vault: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let mut planted = Vec::new();
    for item in vault.get_mut("items").and_then(|items| items.as_array_mut()).context("no items")? {
        let text = |value: &serde_json::Value, path: &str| {
            value.pointer(path).and_then(|it| it.as_str()).map(ToOwned::to_owned).context("no text")
        };
        let (vault_id, item_id) = (text(item, "/vault/id")?, text(item, "/id")?);
        for field in item.get_mut("fields").and_then(|it| it.as_array_mut()).context("no fields")? {
            let reference = format!("op://{vault_id}/{item_id}/{}", text(field, "/id")?);
            let mut random = [0; 24];
            getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("{error}"))?;
            let value = if text(field, "/type")? == "TOTP" {
                let seed = BASE32_NOPAD.encode(&random);
                hunt.add(&reference, seed.as_bytes());
                hunt.add(&reference, &random);
                format!("otpauth://totp/Canary?secret={seed}")
            } else {
                let value = HEXLOWER.encode(&random);
                hunt.add(&reference, value.as_bytes());
                value
            };
            field.as_object_mut().context("no object")?.insert("value".into(), value.clone().into());
            planted.push((reference, value));
        }
    }
    std::fs::write(path, vault.to_string())?;
    Ok(planted)
}

/// Each value is acquired; all but the last are redeemed.
async fn values_flow(broker: &TestBroker, canaries: &[(String, String)], hunt: &mut Hunt) -> Result<Lease> {
    let references: Vec<_> = canaries.iter().map(|(reference, _)| reference.as_str()).collect();
    let lease = open(broker, acquire(BOOK, &references), hunt).await?;
    let mut tool = broker.client(BOOK).await?;
    for ((reference, value), issued) in canaries.iter().zip(&lease.issued).rev().skip(1) {
        let answer = tool.redeem(&issued.handle).await?;
        assert_eq!(answer.secret_value, value.as_bytes(), "{reference}");
        search_debug_forms(issued.handle.clone(), &answer, &lease, hunt);
    }
    let ask = CheckAccessRequest {
        tool: BOOK.into(),
        reference: "op://Tutorial/Navan/username".into(),
        ..Default::default()
    };
    let checked = broker.client("travel-bot").await?.leases.check_access(ask).await?;
    hunt.search("a check", format!("{checked:?}"));
    Ok(lease)
}

fn search_debug_forms(handle: String, answer: &RedeemHandleResponse, lease: &Lease, hunt: &mut Hunt) {
    let ask = RedeemHandleRequest { handle, destination: "a.b".into() };
    hunt.search("Debug of what asks", format!("{:?} {ask:#?}", Request::new(ask.clone())));
    hunt.search("Debug of what answers", format!("{:?} {answer:#?}", tonic::Response::new(answer.clone())));
    for issued in &lease.issued {
        let renewed = HandleRenewed { issued: Some(issued.clone()), previous_handle_id: String::new() };
        let event = |event| AcquireLeaseResponse { event: Some(event) };
        hunt.search(
            "Debug of what is issued",
            format!("{issued:?} {:?}", event(Event::Issued(issued.clone()))),
        );
        hunt.search(
            "Debug of what is renewed",
            format!("{renewed:?} {:?}", event(Event::Renewed(renewed.clone()))),
        );
    }
}

/// Wrong hands, replays, guesses, handles as tokens and tokens as handles.
async fn refused_redeems(broker: &TestBroker, lease: &Lease, hunt: &mut Hunt) -> Result<()> {
    let (spent, live) = (lease.handle(0)?, lease.handle(lease.issued.len() - 1)?);
    for who in ["web.search", "travel-bot", "ana", BOOK] {
        let mut client = broker.client(who).await?;
        let token = broker.token(who)?;
        for bad in [spent, &forged(live)?, &live.to_uppercase(), &format!("{live} "), token] {
            refused("a bad handle", client.redeem(bad).await, hunt)?;
        }
        if who != BOOK {
            refused("a handle in wrong hands", client.redeem(live).await, hunt)?;
        }
    }
    for authorization in [format!("Bearer {live}"), live.to_owned(), format!("Bearer {}", forged(live)?)] {
        let mut nobody = broker.client_with(Some(&authorization)).await?;
        refused("a handle as a token", nobody.redeem(live).await, hunt)?;
        let answer = nobody.leases.acquire_lease(acquire(BOOK, &["op://Tutorial/Navan/username"])).await;
        refused("a handle as a token", answer, hunt)?;
    }
    Ok(())
}

/// Allowed, and not there; and in part.
async fn broken_references(broker: &TestBroker, hunt: &mut Hunt) -> Result<()> {
    let mut bot = broker.client("travel-bot").await?;
    let bad = [
        "op://Tutorial/Nothing/x",
        "op://Tutorial/Navan/nothing",
        "op://Tutorial/Navan/username?attribute=otp",
    ];
    for reference in bad {
        refused(reference, bot.leases.acquire_lease(acquire(BOOK, &[reference])).await, hunt)?;
    }
    let all: Vec<_> = bad.into_iter().chain(["op://Tutorial/Navan/password"]).collect();
    let lease = open(broker, AcquireLeaseRequest { partial: true, ..acquire(BOOK, &all) }, hunt).await?;
    assert_eq!((lease.issued.len(), lease.refused.len()), (1, 3));
    hunt.search("refused references", format!("{:?}", lease.refused));
    Ok(())
}

/// Renewal, then expiry.
async fn time_passes(
    broker: &TestBroker,
    clock: &FakeClock,
    lease: &mut Lease,
    hunt: &mut Hunt,
) -> Result<()> {
    clock.advance(Duration::from_secs(50));
    let Some(Event::Renewed(renewed)) = lease.next().await? else { anyhow::bail!("no renewal") };
    hunt.search("Debug of a renewal", format!("{renewed:?}"));
    let fresh = renewed.issued.context("no handle")?.handle;
    hunt.add_bearer("a renewed handle", &fresh);
    clock.advance(Duration::from_secs(100));
    let last = lease.next().await?;
    assert!(matches!(last, Some(Event::Ended(_))), "{last:?}");
    hunt.search("the end", format!("{last:?}"));
    refused("an expired handle", broker.client(BOOK).await?.redeem(&fresh).await, hunt)
}

/// A live handle, and a token, in every text field of every message, in headers and in paths.
async fn handles_where_they_have_no_business(broker: &TestBroker, hunt: &mut Hunt) -> Result<()> {
    let lease = open(broker, acquire(BOOK, &["op://Tutorial/Navan/password"]), hunt).await?;
    let handle = lease.handle(0)?;
    for bearer in [handle, &handle.to_uppercase(), broker.token("travel-bot")?] {
        for text in [bearer.to_owned(), format!("use {bearer}, please"), format!("x{bearer}")] {
            in_an_agents_fields(broker, &text, hunt).await?;
            in_a_reviewers_fields(broker, &text, hunt).await?;
        }
    }
    Ok(())
}

async fn in_an_agents_fields(broker: &TestBroker, text: &str, hunt: &mut Hunt) -> Result<()> {
    let Client { mut leases, audit: _, operator: _, reports: _, tokens: _, approvals: _ } =
        broker.client("travel-bot").await?;
    let good = || acquire(BOOK, &["op://Tutorial/Navan/password"]);
    let into_reference = [
        text.to_owned(),
        format!("op://{text}/Navan/password"),
        format!("op://Tutorial/{text}/password"),
        format!("op://Tutorial/Navan/{text}"),
        format!("op://Tutorial/Navan/{text}/password?attribute={text}"),
    ];
    let mut asks: Vec<AcquireLeaseRequest> =
        into_reference.iter().map(|reference| acquire(BOOK, &[reference])).collect();
    asks.push(AcquireLeaseRequest {
        partial: true,
        ..acquire(BOOK, &[&into_reference[2], &into_reference[3]])
    });
    asks.push(AcquireLeaseRequest { tool: text.into(), ..good() });
    asks.push(AcquireLeaseRequest { purpose: text.into(), ..good() });
    asks.push(AcquireLeaseRequest { session: text.into(), ..good() });
    asks.push(AcquireLeaseRequest { destination: text.into(), ..good() });
    for ask in asks {
        let checks = ask.references.iter().map(|reference| CheckAccessRequest {
            tool: ask.tool.clone(),
            reference: reference.clone(),
            ttl: None,
            session: ask.session.clone(),
            destination: ask.destination.clone(),
        });
        for check in checks.collect::<Vec<_>>() {
            answered("a check", leases.check_access(check).await, hunt);
        }
        let mut asked = Request::new(ask);
        asked.metadata_mut().insert("traceparent", format!("00-{text}-01").parse()?);
        asked.metadata_mut().insert("x-other", text.parse()?);
        match leases.acquire_lease(asked).await {
            Err(status) => hunt.search_status("a misused field", &status),
            Ok(events) => {
                if let Some(message) = events.into_inner().message().await? {
                    hunt.search("what was opened", format!("{message:?}"));
                }
            }
        }
    }
    let end = EndLeaseRequest { lease_id: text.into() };
    answered("the end of a lease", leases.end_lease(end).await, hunt);
    let redeem = RedeemHandleRequest { handle: "vkh_".into(), destination: text.into() };
    answered("a redeem", leases.redeem_handle(redeem).await, hunt);
    Ok(())
}

async fn in_a_reviewers_fields(broker: &TestBroker, text: &str, hunt: &mut Hunt) -> Result<()> {
    let Client { leases: _, mut audit, operator: _, mut reports, tokens: _, approvals: _ } =
        broker.client("ana").await?;
    for filter in
        [text.to_owned(), format!("handle:{text}"), format!("agent:\"{text}\""), format!("{text}:x")]
    {
        let ask = ListAuditRecordsRequest { filter: filter.clone(), ..Default::default() };
        answered("a list", audit.list_audit_records(ask).await, hunt);
        let ask = WatchAuditRecordsRequest { filter, after_record_id: String::new() };
        answered("a watch", audit.watch_audit_records(ask).await, hunt);
    }
    let ask = ListAuditRecordsRequest { page_token: text.into(), ..Default::default() };
    answered("a list", audit.list_audit_records(ask).await, hunt);
    let ask = WatchAuditRecordsRequest { after_record_id: text.into(), ..Default::default() };
    answered("a watch", audit.watch_audit_records(ask).await, hunt);
    let ask = GetAuditRecordRequest { record_id: text.into() };
    answered("a record", audit.get_audit_record(ask).await, hunt);
    for subject in [Subject::Agent, Subject::Vault, Subject::Item, Subject::Tool] {
        let period = Some(ReportPeriod { first_day: text.into(), last_day: text.into() });
        let ask = GetUsageReportRequest { subject: Some(subject(text.into())), period };
        answered("a report", reports.get_usage_report(ask.clone()).await, hunt);
        let ask = GetUsageReportRequest { period: None, ..ask };
        answered("a report", reports.get_usage_report(ask).await, hunt);
    }
    let ask = ListRefusalsRequest { agent: text.into(), period: None };
    answered("refusals", reports.list_refusals(ask).await, hunt);
    let ask = ListUnusedAccessRequest { agent: text.into(), days: 0 };
    answered("unused access", reports.list_unused_access(ask).await, hunt);
    Ok(())
}

/// A live handle in paths, user agents, torn messages, and messages that are too large.
async fn handles_in_what_is_no_message(broker: &TestBroker, hunt: &mut Hunt) -> Result<()> {
    let lease = open(broker, acquire(BOOK, &["op://Tutorial/Navan/password"]), hunt).await?;
    let handle = lease.handle(0)?;
    let mut raw = Raw::connect(broker.address, 1 << 20).await?;
    let ask = RedeemHandleRequest { handle: handle.into(), destination: String::new() };
    let method = "/valetkey.v1.LeaseService/RedeemHandle";
    let torn = frame(&[&[10, 200], handle.as_bytes()].concat());
    let not_utf8 = frame(&[&[10, 62], handle.as_bytes(), &[0xff]].concat());
    let large = frame(&handle.as_bytes().repeat(20_000));
    for token in [None, Some(broker.token(BOOK)?), Some(broker.token("web.search")?)] {
        let call = RawCall::new(method, token, &ask).header("user-agent", handle);
        for call in [
            call.clone().body(torn.clone()),
            call.clone().body(not_utf8.clone()),
            call.clone().body(large.clone()),
            call.clone().body(handle.as_bytes().to_vec()),
            call.clone().header("grpc-encoding", handle),
            call.clone().header("content-type", handle),
            RawCall { path: format!("/valetkey.v1.LeaseService/{handle}"), ..call.clone() },
            RawCall { path: format!("/{handle}/x?{handle}"), ..call.clone() },
        ] {
            // Some are refused by the transport, which closes the stream; and a wrong content type is none
            // of the broker's business.
            if let Ok(answer) = raw.call(call).await {
                hunt.search_status("no message", &answer.status());
                hunt.search("headers", format!("{:?}", answer.headers));
            }
        }
    }
    Ok(())
}

async fn revoked_by_reload(broker: &TestBroker, hunt: &mut Hunt) -> Result<()> {
    let mut lease = open(broker, acquire(BOOK, &["op://Tutorial/Navan/password"]), hunt).await?;
    let end = r#"@id("end") forbid (principal, action == Action::"acquire", resource);"#;
    broker.put_policies("all.cedar", &format!("{ALL}\n// No more.\n{end}"))?;
    broker.reloader.reload().await?;
    while let Some(event) = lease.next().await? {
        hunt.search("an event of a revocation", format!("{event:?}"));
    }
    refused("a revoked handle", broker.client(BOOK).await?.redeem(lease.handle(0)?).await, hunt)?;
    broker.put_policies("all.cedar", ALL)?;
    broker.reloader.reload().await?;
    Ok(())
}

async fn the_log_is_read(broker: &TestBroker, hunt: &mut Hunt) -> Result<()> {
    let records = broker.records("").await?;
    assert!(records.len() > 100, "only {} records", records.len());
    let mut ana = broker.client("ana").await?;
    let ask = WatchAuditRecordsRequest { filter: String::new(), after_record_id: "0".into() };
    let mut watch = ana.audit.watch_audit_records(ask).await?.into_inner();
    for listed in records {
        let watched = watch.message().await?.context("the watch ended")?;
        hunt.search("a record", format!("{listed:?} {watched:?}"));
    }
    Ok(())
}

/// Each value, by whoever may and may not ask; and the digests, which are the log's alone.
async fn values_are_looked_for(
    broker: &TestBroker,
    canaries: &[(String, String)],
    hunt: &mut Hunt,
) -> Result<()> {
    let (mut ana, mut omar) = (broker.client("ana").await?, broker.client("omar").await?);
    for (_, value) in canaries.iter().take(9) {
        let ask = || FindValueRequest { value: value.clone().into_bytes() };
        hunt.search("Debug of what is looked for", format!("{:?} {:#?}", ask(), Request::new(ask())));
        let found = ana.reports.find_value(ask()).await?.into_inner();
        assert!(!found.records.is_empty(), "it was redeemed");
        hunt.search("what is found", format!("{found:?}"));
        refused("who may not look for it", omar.reports.find_value(ask()).await, hunt)?;
    }
    for (_, value) in canaries {
        let ask = FindValueRequest { value: [value.as_bytes(), &b"x".repeat(64 * 1024)].concat() };
        refused("too much, and too often", ana.reports.find_value(ask).await, hunt)?;
    }
    Ok(())
}

/// What is on its way when the log breaks down.
async fn the_writer_panics(broker: &TestBroker, hunt: &mut Hunt) -> Result<()> {
    let lease = open(broker, acquire(BOOK, &["op://Tutorial/Navan/password"]), hunt).await?;
    broker.store.inject(Fault::Panic);
    let answer = broker.client(BOOK).await?.redeem(lease.handle(0)?).await;
    assert_eq!(answer.as_ref().err().map(Status::code), Some(Code::Unavailable));
    refused("a redeem without a log", answer, hunt)
}

/// A lease whose handles are hunted from now on.
async fn open(broker: &TestBroker, ask: AcquireLeaseRequest, hunt: &mut Hunt) -> Result<Lease> {
    let lease = Lease::open(&mut broker.client("travel-bot").await?, ask).await?;
    for issued in &lease.issued {
        hunt.add_bearer(&format!("the handle {}", issued.handle_id), &issued.handle);
    }
    Ok(lease)
}

fn refused<T>(what: &str, answer: Result<T, Status>, hunt: &mut Hunt) -> Result<()> {
    let status = answer.err().with_context(|| format!("{what} was not refused"))?;
    hunt.search_status(what, &status);
    Ok(())
}

fn answered<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>, hunt: &mut Hunt) {
    match answer {
        Ok(answer) => hunt.search(what, format!("{answer:?}")),
        Err(status) => hunt.search_status(what, &status),
    }
}
