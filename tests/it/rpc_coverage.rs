//! Every method that is served refuses callers without identity and callers without permission.
//!
//! The table must name every method of the served descriptors, and nothing else: a new method without a row
//! fails here, and so does the row of a method that is gone.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use valetkey_core::{Reason, RecordKind};
use valetkey_proto::v1::{
    ApproveAccessRequest, CheckAccessRequest, CreateTokenRequest, EndLeaseRequest, ExportAuditRecordsRequest,
    FindValueRequest, GetAuditProofRequest, GetAuditRecordRequest, ListAuditRecordsRequest,
    RedeemHandleRequest, RejectAccessRequest, RevokeTokenRequest, WatchAuditRecordsRequest,
};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::raw::{Raw, RawCall};
use valetkey_tests::{Setup, acquire};

const BOOK: &str = "navan.book_flight";
const NAVAN: &str = "op://Tutorial/Navan/username";
const DATABASE: &str = "op://Production/Database/password";
const WINDOW: u32 = 1 << 20;

/// Who is refused by policy, and what is sent.
struct Row {
    method: &'static str,
    caller: &'static str,
    message: Vec<u8>,
    kind: RecordKind,
    why: Reason,
}

/// One row a method. The handle and the lease are live, and not the caller's to use or end.
fn rows(lease: &str, handle: &str) -> Vec<Row> {
    use RecordKind::{
        Acquire, ApprovalList, Approve, Check, EndLease, FindValue, Operate, ReadAudit, Redeem, Reject,
        TokenCreate, TokenList, TokenRevoke,
    };
    let row = |method, caller, message: Vec<u8>, kind| Row {
        method,
        caller,
        message,
        kind,
        why: Reason::PolicyNoPermit,
    };
    let check = CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
    let redeem = RedeemHandleRequest { handle: handle.into(), destination: String::new() };
    let end = EndLeaseRequest { lease_id: lease.into() };
    let get = GetAuditRecordRequest { record_id: "1".into() };
    let prove = GetAuditProofRequest { record_id: "1".into() };
    let create = CreateTokenRequest { identity: "agent:mine".into(), ..Default::default() };
    let revoke = RevokeTokenRequest { token_id: "vkt_0123456789abcdef".into() };
    let approve = ApproveAccessRequest { approval_id: lease.into() };
    let reject = RejectAccessRequest { approval_id: lease.into() };
    let find = FindValueRequest { value: b"guess".to_vec() };
    let reflect = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    vec![
        row(
            "/valetkey.v1.LeaseService/AcquireLease",
            "mail-bot",
            acquire(BOOK, &[NAVAN]).encode_to_vec(),
            Acquire,
        ),
        row("/valetkey.v1.LeaseService/RedeemHandle", "web.search", redeem.encode_to_vec(), Redeem),
        row("/valetkey.v1.LeaseService/EndLease", "mail-bot", end.encode_to_vec(), EndLease),
        // What policy denies is this method's answer; callers that are no agents are refused.
        Row {
            why: Reason::CallerKind,
            ..row("/valetkey.v1.LeaseService/CheckAccess", BOOK, check.encode_to_vec(), Check)
        },
        row(
            "/valetkey.v1.AuditService/ListAuditRecords",
            "omar",
            ListAuditRecordsRequest::default().encode_to_vec(),
            ReadAudit,
        ),
        row("/valetkey.v1.AuditService/GetAuditRecord", "eve", get.encode_to_vec(), ReadAudit),
        row("/valetkey.v1.AuditService/GetAuditProof", "eve", prove.encode_to_vec(), ReadAudit),
        row("/valetkey.v1.AuditService/GetAuditCheckpoint", "omar", Vec::new(), ReadAudit),
        row(
            "/valetkey.v1.AuditService/WatchAuditRecords",
            "travel-bot",
            WatchAuditRecordsRequest::default().encode_to_vec(),
            ReadAudit,
        ),
        row("/valetkey.v1.ReportService/GetUsageReport", "omar", Vec::new(), ReadAudit),
        row("/valetkey.v1.ReportService/ListRefusals", "travel-bot", Vec::new(), ReadAudit),
        row("/valetkey.v1.ReportService/ListFirstUses", BOOK, Vec::new(), ReadAudit),
        row("/valetkey.v1.ReportService/ListUnusedAccess", "eve", Vec::new(), ReadAudit),
        row(
            "/valetkey.v1.AuditService/ExportAuditRecords",
            "omar",
            ExportAuditRecordsRequest::default().encode_to_vec(),
            ReadAudit,
        ),
        row("/valetkey.v1.ReportService/FindValue", "omar", find.encode_to_vec(), FindValue),
        row("/valetkey.v1.OperatorService/GetStatus", "ana", Vec::new(), Operate),
        row("/valetkey.v1.TokenService/CreateToken", "ana", create.encode_to_vec(), TokenCreate),
        row("/valetkey.v1.TokenService/ListTokens", "travel-bot", Vec::new(), TokenList),
        row("/valetkey.v1.TokenService/RevokeToken", "eve", revoke.encode_to_vec(), TokenRevoke),
        row("/valetkey.v1.ApprovalService/ListApprovals", "ana", Vec::new(), ApprovalList),
        row("/valetkey.v1.ApprovalService/ApproveAccess", "ana", approve.encode_to_vec(), Approve),
        // No agent decides, whatever policy says.
        Row {
            why: Reason::CallerKind,
            ..row("/valetkey.v1.ApprovalService/RejectAccess", "travel-bot", reject.encode_to_vec(), Reject)
        },
        row("/grpc.health.v1.Health/Check", "ana", Vec::new(), Operate),
        row("/grpc.health.v1.Health/Watch", "travel-bot", Vec::new(), Operate),
        row(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "eve",
            reflect.encode_to_vec(),
            Operate,
        ),
    ]
}

#[tokio::test]
async fn every_method_has_a_row() -> Result<()> {
    let served = served_methods()?;
    let rows: BTreeSet<String> = rows("", "").into_iter().map(|row| row.method.to_owned()).collect();
    let missing: Vec<_> = served.difference(&rows).collect();
    assert!(
        missing.is_empty(),
        "{missing:?}: add a row to `rows` in tests/it/rpc_coverage.rs that says who is refused by policy, with \
         which message, and under which kind of record"
    );
    let gone: Vec<_> = rows.difference(&served).collect();
    assert!(gone.is_empty(), "{gone:?}: no longer served; remove the row");
    Ok(())
}

#[tokio::test]
async fn every_method_refuses_strangers_and_the_denied() -> Result<()> {
    let setup = Setup::new()?;
    // A handle that its tool may hold and policy does not let it redeem.
    let production = r#"
        // A vault as a whole, for a tool without a permit to redeem.
        @id("production-search")
        permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"production")
        when { context.tool == Tool::"web.search" };
    "#;
    std::fs::write(setup.dir().join("policies/more.cedar"), production)?;
    let broker = setup.start().await?;
    let before = broker.mark();
    let mut bot = broker.client("travel-bot").await?;
    let lease = Lease::open(&mut bot, acquire("web.search", &[DATABASE])).await?;
    broker.settled(before).await?;

    let counts = broker.broker.leases().counts();
    let mut raw = Raw::connect(broker.address, WINDOW).await?;
    for Row { method, caller, message, kind, why } in rows(&lease.id, lease.handle(0)?) {
        let call = RawCall {
            path: method.to_owned(),
            body: valetkey_tests::raw::frame(&message),
            ..RawCall::default()
        };
        let mark = broker.mark();
        let answer = refusal(raw.call(call.clone()).await?.status());
        let expected = Refused {
            code: Code::Unauthenticated,
            reason: "AGENT_UNAUTHENTICATED",
            kind: RecordKind::Unauthenticated,
            why: Reason::TokenMissing,
        };
        let (_, record) = broker.check_refused(method, mark, counts, answer, expected).await?;
        assert_eq!(record.detail.as_deref(), Some(method));
        assert_eq!(record.caller, None);

        let mark = broker.mark();
        let call = RawCall { authorization: Some(format!("Bearer {}", broker.token(caller)?)), ..call };
        let answer = refusal(raw.call(call).await?.status());
        let expected = Refused { code: Code::PermissionDenied, reason: "ACCESS_DENIED", kind, why };
        let (_, record) = broker.check_refused(method, mark, counts, answer, expected).await?;
        assert!(record.caller.is_some_and(|who| who.ends_with(&format!(":{caller}"))), "{method}");
    }
    Ok(())
}

/// The descriptors that the table is held against are those that are served.
#[tokio::test]
async fn operators_see_the_services_that_the_table_covers() -> Result<()> {
    let broker = valetkey_tests::TestBroker::start().await?;
    let mut raw = Raw::connect(broker.address, WINDOW).await?;
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let answer = raw.call(RawCall::new(path, Some(broker.token("omar")?), &ask)).await?;
    assert_eq!(answer.status().code(), Code::Ok);
    let message = answer.body.get(5..).context("no message")?;
    let Some(MessageResponse::ListServicesResponse(list)) =
        ServerReflectionResponse::decode(message)?.message_response
    else {
        anyhow::bail!("another answer");
    };
    let covered: BTreeSet<String> =
        rows("", "").iter().filter_map(|row| Some(row.method.split('/').nth(1)?.to_owned())).collect();
    for service in list.service {
        assert!(covered.contains(&service.name), "{} is served and has no rows", service.name);
    }
    Ok(())
}

fn served_methods() -> Result<BTreeSet<String>> {
    let mut methods = BTreeSet::new();
    for encoded in [
        valetkey_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ] {
        for file in FileDescriptorSet::decode(encoded)?.file {
            for service in &file.service {
                let method = |name: &str| format!("/{}.{}/{name}", file.package(), service.name());
                methods.extend(service.method.iter().map(|it| method(it.name())));
            }
        }
    }
    Ok(methods)
}

fn refusal(status: Status) -> Result<(), Status> {
    if status.code() == Code::Ok { Ok(()) } else { Err(status) }
}
