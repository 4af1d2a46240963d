//! The log as reviewers read it.

use anyhow::{Context, Result};
use tonic::{Code, Streaming};
use valetkey_core::{Reason, RecordKind, Ruling};
use valetkey_proto::v1::{
    AuditRecord, CheckAccessRequest, GetAuditRecordRequest, ListAuditRecordsRequest,
    ListAuditRecordsResponse, WatchAuditRecordsRequest, WatchAuditRecordsResponse,
};
use valetkey_tests::lease::Lease;
use valetkey_tests::{Client, TestBroker, acquire, reason};

const BOOK: &str = "navan.book_flight";
const NAVAN: &str = "op://Tutorial/Navan/username";

#[tokio::test]
async fn pages_hold_still_while_the_log_grows() -> Result<()> {
    let broker = TestBroker::start().await?;
    write(&broker, 23).await?;
    let mut ana = broker.client("ana").await?;
    let whole = ids(&list(&mut ana, "kind:check", 1000, "").await?.records)?;
    assert_eq!(whole.len(), 23);

    let (mut paged, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = list(&mut ana, "kind:check", 5, &token).await?;
        assert!(page.records.len() <= 5);
        paged.extend(ids(&page.records)?);
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
        write(&broker, 2).await?;
    }
    assert_eq!(paged, whole, "a page moved when records came");
    assert!(whole.is_sorted_by(|one, two| one > two), "not newest first: {whole:?}");
    assert!(pages >= 5);

    // A token is a position within one filter.
    let first = list(&mut ana, "kind:check", 5, "").await?;
    let status =
        list(&mut ana, "kind:acquire", 5, &first.next_page_token).await.err().context("was taken")?;
    let status = status.downcast_ref::<tonic::Status>().context("no status")?;
    assert_eq!((status.code(), reason(status).as_str()), (Code::InvalidArgument, "INVALID_PAGE_TOKEN"));
    Ok(())
}

#[tokio::test]
async fn pages_have_a_usual_and_a_greatest_size() -> Result<()> {
    let broker = TestBroker::start().await?;
    // One refused request for 64 references is 64 records.
    let mut other = broker.client("mail-bot").await?;
    let references: Vec<_> = (0..64).map(|place| format!("op://Tutorial/Navan/field{place}")).collect();
    let references: Vec<_> = references.iter().map(String::as_str).collect();
    for _ in 0..16 {
        let answer = other.leases.acquire_lease(acquire(BOOK, &references)).await;
        assert_eq!(answer.err().map(|status| status.code()), Some(Code::PermissionDenied));
    }
    let mut ana = broker.client("ana").await?;
    for (asked, size) in [(0, 50), (7, 7), (1000, 1000), (1001, 1000), (i32::MAX, 1000)] {
        assert_eq!(list(&mut ana, "", asked, "").await?.records.len(), size, "{asked}");
    }
    Ok(())
}

#[tokio::test]
async fn filters() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mut bot = broker.client("travel-bot").await?;
    let lease = Lease::open(&mut bot, acquire(BOOK, &[NAVAN, "op://Tutorial/Travel Card/number"])).await?;
    broker.client(BOOK).await?.redeem(lease.handle(0)?).await?;
    let denied = bot.leases.acquire_lease(acquire("web.search", &["op://Tutorial/Travel Card/number"])).await;
    assert!(denied.is_err());
    assert!(broker.client("mail-bot").await?.leases.acquire_lease(acquire(BOOK, &[NAVAN])).await.is_err());
    assert!(broker.client_with(None).await?.redeem("x").await.is_err());
    broker.settled(valetkey_core::RecordId(0)).await?;

    let handle = &lease.issued.first().context("no handle")?.handle_id;
    let record = &lease.issued.first().context("no handle")?.record_id;
    for (filter, count) in [
        ("agent:travel-bot", 4),
        ("agent:*-bot", 5),
        ("caller:agent:travel-bot", 3),
        ("caller:tool:*", 1),
        ("agent:travel-bot -kind:redeem decision:allow", 2),
        ("decision:deny", 3),
        ("kind:unauthenticated", 1),
        ("reason:token_missing", 1),
        ("reason:POLICY_*", 5),
        ("vault:tutorial kind:acquire", 4),
        ("vault:TUTORIAL item:\"Travel Card\"", 2),
        ("item:*card* decision:deny", 1),
        ("policy:navan-login", 1),
        ("policy:travel-card-*", 1),
        ("tool:web.search", 1),
        (&format!("lease:{}", lease.id), 3),
        (&format!("handle:{handle}"), 2),
        (&format!("record:{record}"), 1),
        ("outcome:issued", 2),
        ("outcome:released", 1),
        ("created:>=2020-01-01 kind:redeem", 1),
        ("created:<2020-01-01", 0),
        ("agent:nobody", 0),
    ] {
        // Reading is recorded, and not what is asked for here.
        let records =
            broker.records(&format!("{filter} -kind:read_audit -kind:start -kind:policy_load")).await?;
        assert_eq!(records.len(), count, "{filter}: {records:#?}");
    }
    let reads = broker.records("kind:read_audit").await?;
    assert!(reads.iter().any(|it| it.detail.contains("agent:nobody") && it.caller == "person:ana"));
    Ok(())
}

#[tokio::test]
async fn one_record() -> Result<()> {
    let broker = TestBroker::start().await?;
    write(&broker, 1).await?;
    let listed = broker.records("kind:check").await?.pop().context("no record")?;
    let mut ana = broker.client("ana").await?;
    let got =
        ana.audit.get_audit_record(GetAuditRecordRequest { record_id: listed.record_id.clone() }).await?;
    assert_eq!(got.into_inner().record, Some(listed));
    for absent in ["0", "999999", "18446744073709551615"] {
        let ask = GetAuditRecordRequest { record_id: absent.into() };
        let status = ana.audit.get_audit_record(ask).await.err().context("there is one")?;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::NotFound, "RECORD_NOT_FOUND"),
            "{absent}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_has_no_gap() -> Result<()> {
    let broker = TestBroker::start().await?;
    write(&broker, 10).await?;
    let mut ana = broker.client("ana").await?;
    // From the first, while others write.
    let mut all = watch(&mut ana, "", "0").await?;
    let ((), seen) = tokio::try_join!(write(&broker, 40), take(&mut all, 50))?;
    assert_eq!(seen, (1..=50).collect::<Vec<u64>>());
    // From the middle.
    let mut rest = watch(&mut ana, "", "17").await?;
    assert_eq!(take(&mut rest, 20).await?, (18..=37).collect::<Vec<u64>>());
    // From now: the record of this watch's own permission is behind it.
    let mut next = watch(&mut ana, "kind:check", "").await?;
    let mark = broker.mark().0;
    write(&broker, 3).await?;
    assert_eq!(take(&mut next, 3).await?, (mark + 1..=mark + 3).collect::<Vec<u64>>());
    // From beyond the end: that is a place in another log, or in one that was restored.
    let beyond = (broker.mark().0 + 9).to_string();
    let refused = watch(&mut ana, "kind:check", &beyond).await.err().context("it waits")?;
    let status = refused.downcast_ref::<tonic::Status>().context("no status")?;
    assert_eq!((status.code(), reason(status).as_str()), (Code::InvalidArgument, "INVALID_RECORD_ID"));
    Ok(())
}

#[tokio::test]
async fn a_watch_ends_when_policy_takes_the_right_away() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mut ana = broker.client("ana").await?;
    let mut records = watch(&mut ana, "kind:check", "").await?;
    write(&broker, 1).await?;
    take(&mut records, 1).await?;
    let mark = broker.mark();
    broker.edit_policies("people.cedar", r#"Group::"reviewers""#, r#"Group::"nobody""#)?;
    broker.reloader.reload().await?;
    write(&broker, 1).await?;
    let status = take(&mut records, 1).await.err().context("it goes on")?;
    let status = status.downcast_ref::<tonic::Status>().context("no status")?;
    assert_eq!((status.code(), reason(status).as_str()), (Code::PermissionDenied, "ACCESS_DENIED"));
    let denied = broker.since(mark).await?.into_iter().find(|it| it.ruling == Ruling::Deny);
    let denied = denied.context("the end is not in the log")?;
    assert_eq!((denied.kind, denied.reason), (RecordKind::ReadAudit, Reason::PolicyNoPermit));
    Ok(())
}

/// Writes so many records, by dry runs.
async fn write(broker: &TestBroker, count: usize) -> Result<()> {
    let mut bot = broker.client("travel-bot").await?;
    for _ in 0..count {
        let ask = CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
        bot.leases.check_access(ask).await?;
    }
    Ok(())
}

async fn list(client: &mut Client, filter: &str, size: i32, token: &str) -> Result<ListAuditRecordsResponse> {
    let ask = ListAuditRecordsRequest { filter: filter.into(), page_size: size, page_token: token.into() };
    Ok(client.audit.list_audit_records(ask).await?.into_inner())
}

async fn watch(
    client: &mut Client,
    filter: &str,
    after: &str,
) -> Result<Streaming<WatchAuditRecordsResponse>> {
    let ask = WatchAuditRecordsRequest { filter: filter.into(), after_record_id: after.into() };
    Ok(client.audit.watch_audit_records(ask).await?.into_inner())
}

async fn take(records: &mut Streaming<WatchAuditRecordsResponse>, count: usize) -> Result<Vec<u64>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), records.message()).await;
        let record =
            next.context("no record came")??.and_then(|next| next.record).context("the watch ended")?;
        taken.push(record.record_id.parse()?);
    }
    Ok(taken)
}

fn ids(records: &[AuditRecord]) -> Result<Vec<u64>> {
    Ok(records.iter().map(|record| record.record_id.parse()).collect::<Result<_, _>>()?)
}
