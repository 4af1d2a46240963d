//! Peers that mean harm, or have lost their way: clear errors, bounded memory, and a broker that goes on.

use std::io::ErrorKind::WouldBlock;
use std::time::Duration;

use anyhow::{Context, Result};
use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use valetkey_core::{Reason, RecordKind};
use valetkey_proto::v1::{AcquireLeaseRequest, CheckAccessRequest, WatchAuditRecordsRequest};
use valetkey_server::PlaceLimits;
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::process::Process;
use valetkey_tests::raw::{Raw, RawCall, frame};
use valetkey_tests::{Client, Setup, TestBroker, acquire};

const BOOK: &str = "navan.book_flight";
const NAVAN: &str = "op://Tutorial/Navan/username";
const ACQUIRE: &str = "/valetkey.v1.LeaseService/AcquireLease";
const WATCH: &str = "/valetkey.v1.AuditService/WatchAuditRecords";
const MIB: usize = 1024 * 1024;
const WINDOW: u32 = 1 << 20;

const NO_MESSAGE: Refused = Refused {
    code: Code::InvalidArgument,
    reason: "INVALID_MESSAGE",
    kind: RecordKind::Malformed,
    why: Reason::MessageInvalid,
};
const NO_METHOD: Refused = Refused { code: Code::Unimplemented, reason: "METHOD_UNKNOWN", ..NO_MESSAGE };
const BAD_FIELD: Refused =
    Refused { code: Code::InvalidArgument, reason: "", kind: RecordKind::Acquire, why: Reason::FieldInvalid };

#[tokio::test]
async fn what_is_no_message() -> Result<()> {
    let broker = TestBroker::start().await?;
    let call = RawCall::new(ACQUIRE, Some(broker.token("travel-bot")?), &acquire(BOOK, &[NAVAN]));
    let good = call.body.clone();
    let framed = |flag: u8, length: u32, body: &[u8]| [&[flag], &length.to_be_bytes()[..], body].concat();
    let text = |field: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        frame(&[&[field << 3 | 2, length], bytes].concat())
    };
    let of = |body: Vec<u8>| call.clone().body(body);
    for (what, call, expected) in [
        ("nothing", of(Vec::new()), NO_MESSAGE),
        ("half a frame", of(vec![0, 0]), NO_MESSAGE),
        ("a frame that ends early", of(framed(0, 100, b"short")), NO_MESSAGE),
        ("a frame that promises 4 GiB", of(framed(0, u32::MAX, b"x")), NO_MESSAGE),
        ("a message over 1 MiB", of(frame(&vec![0; MIB + 1])), NO_MESSAGE),
        ("16 MiB", of(frame(&vec![b'a'; 16 * MIB])), NO_MESSAGE),
        ("a flag for compression", of(framed(1, 1, b"x")), NO_MESSAGE),
        ("a flag that does not exist", of(framed(2, 1, b"x")), NO_MESSAGE),
        ("gzip", of(framed(1, 1, b"x")).header("grpc-encoding", "gzip"), NO_MESSAGE),
        (
            "an encoding that does not exist",
            of(framed(1, 1, b"x")).header("grpc-encoding", "sweet"),
            NO_MESSAGE,
        ),
        ("no protobuf", of(frame(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), NO_MESSAGE),
        ("a field that ends early", of(frame(&[10, 200, b'x'])), NO_MESSAGE),
        ("a field of another type", of(frame(&[10 & !7, 1])), NO_MESSAGE),
        ("invalid UTF-8 in `tool`", of(text(1, b"navan\xff")), NO_MESSAGE),
        ("invalid UTF-8 in `references`", of(text(2, b"op://a/b/\xc3\x28")), NO_MESSAGE),
        ("invalid UTF-8 in `purpose`", of(text(3, b"\xed\xa0\x80")), NO_MESSAGE),
        (
            "an unknown method",
            RawCall { path: "/valetkey.v1.LeaseService/Nothing".into(), ..of(good.clone()) },
            NO_METHOD,
        ),
    ] {
        let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
        let mut raw = Raw::connect(broker.address, WINDOW).await?;
        let answer = raw.call(call).await.with_context(|| what.to_owned())?;
        let (_, record) =
            broker.check_refused(what, mark, counts, refusal(answer.status()), expected).await?;
        assert_eq!(record.caller.as_deref(), Some("agent:travel-bot"), "{what}");
        assert!(record.detail.is_some_and(|detail| detail.len() <= 1024), "{what}");
        alive(&broker).await?;
    }
    Ok(())
}

#[tokio::test]
async fn fields_out_of_bounds() -> Result<()> {
    let broker = TestBroker::start().await?;
    let ask = || acquire(BOOK, &[NAVAN]);
    let many: Vec<_> = (0..10_000).map(|place| format!("op://Tutorial/Navan/field{place}")).collect();
    let long = "a".repeat(1_000_000);
    let nul = "a\0b".to_owned();
    let life = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    for (what, reason, ask) in [
        ("10,000", "INVALID_SECRET_REFERENCE", AcquireLeaseRequest { references: many, ..ask() }),
        ("1 MB", "INVALID_SECRET_REFERENCE", acquire(BOOK, &[&long])),
        ("1 MB", "INVALID_SECRET_REFERENCE", acquire(BOOK, &[&format!("op://Tutorial/Navan/{long}")])),
        ("1 MB", "INVALID_TOOL", AcquireLeaseRequest { tool: long.clone(), ..ask() }),
        ("1 MB", "INVALID_PURPOSE", AcquireLeaseRequest { purpose: long.clone(), ..ask() }),
        ("1 MB", "INVALID_SESSION", AcquireLeaseRequest { session: long.clone(), ..ask() }),
        ("1 MB", "INVALID_DESTINATION", AcquireLeaseRequest { destination: long.clone(), ..ask() }),
        ("a NUL", "INVALID_TOOL", AcquireLeaseRequest { tool: nul.clone(), ..ask() }),
        ("a NUL", "INVALID_SECRET_REFERENCE", acquire(BOOK, &["op://Tutorial/Navan/user\0name"])),
        ("a NUL", "INVALID_DESTINATION", AcquireLeaseRequest { destination: nul.clone(), ..ask() }),
        ("a life", "INVALID_TTL", AcquireLeaseRequest { ttl: life(i64::MAX, i32::MAX), ..ask() }),
        ("a life", "INVALID_TTL", AcquireLeaseRequest { ttl: life(i64::MIN, i32::MIN), ..ask() }),
        ("a life", "INVALID_TTL", AcquireLeaseRequest { ttl: life(60, -1), ..ask() }),
        ("a life", "INVALID_TTL", AcquireLeaseRequest { ttl: life(0, 1), ..ask() }),
    ] {
        let what = format!("{what}: {reason}");
        let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
        let answer = broker.client("travel-bot").await?.leases.acquire_lease(ask).await;
        let expected = Refused { reason, ..BAD_FIELD };
        let (status, record) = broker.check_refused(&what, mark, counts, answer, expected).await?;
        assert!(status.message().len() < 300 && status.details().len() < 4096, "{what}: {status:?}");
        assert!(record.detail.is_some_and(|detail| detail.len() <= 1024 && !detail.contains('\0')), "{what}");
        alive(&broker).await?;
    }
    Ok(())
}

/// Texts that are taken, and must not do harm where they are read.
#[tokio::test]
async fn texts_are_made_harmless() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mark = broker.mark();
    let purpose = "line\nbreak\0 \u{1b}[31m \u{202e}';DROP TABLE records;--";
    let ask = AcquireLeaseRequest {
        purpose: purpose.into(),
        session: "\r\n\t".repeat(9) + "x",
        ..acquire(BOOK, &[NAVAN])
    };
    let _lease = Lease::open(&mut broker.client("travel-bot").await?, ask).await?;
    let records = broker.settled(mark).await?;
    let record = records.first().context("no record")?;
    let harmless = r"line\u{a}break\u{0} \u{1b}[31m \u{202e}';DROP TABLE records;--";
    assert_eq!(record.purpose.as_deref(), Some(harmless));
    assert!(record.session.as_ref().is_some_and(|it| !it.chars().any(char::is_control)), "{record:#?}");
    // Fields of a later version are passed over.
    let mark = broker.mark();
    let ask = CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
    let later = [ask.encode_to_vec(), vec![0xfa, 0x3f, 3, 1, 2, 3]].concat();
    let path = "/valetkey.v1.LeaseService/CheckAccess";
    let call = RawCall::new(path, Some(broker.token("travel-bot")?), &ask).body(frame(&later));
    let answer = Raw::connect(broker.address, WINDOW).await?.call(call).await?;
    assert_eq!(answer.status().code(), Code::Ok);
    assert_eq!(broker.since(mark).await?.first().map(|it| it.kind), Some(RecordKind::Check));
    Ok(())
}

/// An enum in a request must refuse what it does not know; a new one needs a test that shows it, named here.
#[test]
fn requests_with_an_enum_are_known() -> Result<()> {
    // events_tokens.rs, exports.rs.
    const TESTED: [&str; 2] = ["CreateTokenRequest", "ExportAuditRecordsRequest"];
    let files = FileDescriptorSet::decode(valetkey_proto::DESCRIPTORS)?.file;
    let messages =
        files.iter().filter(|file| file.package() == "valetkey.v1").flat_map(|file| &file.message_type);
    let requests: Vec<_> = messages.filter(|message| message.name().ends_with("Request")).collect();
    assert!(requests.len() >= 7);
    for request in requests.into_iter().filter(|request| !TESTED.contains(&request.name())) {
        assert!(request.field.iter().all(|it| it.r#type() != Type::Enum), "{} has an enum", request.name());
    }
    Ok(())
}

#[tokio::test]
async fn headers_out_of_bounds() -> Result<()> {
    let broker = TestBroker::start().await?;
    let call = RawCall::new(ACQUIRE, Some(broker.token("travel-bot")?), &acquire(BOOK, &[NAVAN]));
    for (what, call) in [
        ("a large header", call.clone().header("x-large", vec![b'a'; 20_000])),
        ("a large token", RawCall { authorization: Some("a".repeat(20_000)), ..call.clone() }),
        ("a large path", RawCall { path: format!("/{}", "a".repeat(20_000)), ..call.clone() }),
    ] {
        let mark = broker.mark();
        let answer = Raw::connect(broker.address, WINDOW).await?.call(call).await;
        let refused = answer.as_ref().is_ok_and(|answer| answer.http.as_u16() == 431);
        assert!(refused || answer.is_err(), "{what}: {answer:?}");
        assert!(broker.since(mark).await?.is_empty(), "{what}: reached the broker");
        alive(&broker).await?;
    }
    // A service that is not there: only operators are told so.
    let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
    let path = format!("/{}", "a/".repeat(4_000));
    let call = RawCall { path: path.clone(), ..call };
    let answer = Raw::connect(broker.address, WINDOW).await?.call(call.clone()).await?;
    let denied = Refused {
        code: Code::PermissionDenied,
        reason: "ACCESS_DENIED",
        kind: RecordKind::Operate,
        why: Reason::PolicyNoPermit,
    };
    let (_, record) =
        broker.check_refused("no service", mark, counts, refusal(answer.status()), denied).await?;
    assert!(record.detail.is_some_and(|detail| detail.len() <= 1024));
    let mark = broker.mark();
    let call = RawCall { authorization: Some(format!("Bearer {}", broker.token("omar")?)), ..call };
    let answer = Raw::connect(broker.address, WINDOW).await?.call(call).await?;
    broker.check_refused("no service", mark, counts, refusal(answer.status()), NO_METHOD).await?;
    alive(&broker).await
}

#[tokio::test]
async fn garbage_in_place_of_http2() -> Result<()> {
    let broker = TestBroker::start().await?;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        // The beginning of TLS.
        [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3], &[7; 500][..]].concat(),
        // A SETTINGS frame of 16 MiB, a DATA frame on stream 0, a HEADERS frame of noise.
        [&preface[..], &[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0]].concat(),
        [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 1, 0, 0, 0, 0, 0, 0, 9]].concat(),
        [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 9, 1, 4, 0, 0, 0, 1], &[0xff; 9]].concat(),
    ] {
        let mark = broker.mark();
        let mut socket = TcpStream::connect(broker.address).await?;
        // The broker may hang up in the middle of it.
        let _ = socket.write_all(&garbage).await;
        let mut said = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut said)).await;
        assert!(closed.is_ok(), "the connection stays open after {} bytes of garbage", garbage.len());
        assert!(said.len() < 1024, "{} bytes came back", said.len());
        assert!(broker.since(mark).await?.is_empty());
        alive(&broker).await?;
    }
    Ok(())
}

/// Streams up to every limit, of which nothing is ever read.
#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_read() -> Result<()> {
    const LEASES: usize = 500;
    const WATCHES: usize = 300;
    /// Of the whole process, so of the tests beside this one too. Alone it is some 30 MiB; the watches would
    /// hold 400 MiB if they took in what nobody reads.
    const GROWTH_MAX: usize = 256 * MIB;
    let broker = TestBroker::start().await?;
    fill(&broker, 2_500).await?;
    alive(&broker).await?;
    let before = resident()?;

    let mut mute = Raw::connect(broker.address, 0).await?;
    let mut streams = Vec::new();
    let ask = acquire(BOOK, &[NAVAN, "op://Tutorial/Navan/password"]);
    let call = RawCall::new(ACQUIRE, Some(broker.token("travel-bot")?), &ask);
    for _ in 0..LEASES {
        streams.push(mute.send(call.clone()).await?);
    }
    let mut deaf = Raw::connect(broker.address, 0).await?;
    let all = WatchAuditRecordsRequest { filter: String::new(), after_record_id: "0".into() };
    let call = RawCall::new(WATCH, Some(broker.token("ana")?), &all);
    for _ in 0..WATCHES {
        streams.push(deaf.send(call.clone()).await?);
    }
    // All are answered, and none can go on.
    let mut bodies = Vec::new();
    for (response, _) in &mut streams {
        let answer = tokio::time::timeout(Duration::from_secs(10), response).await.context("no answer")??;
        bodies.push(answer.into_body());
    }
    assert_eq!(broker.broker.leases().counts().0, LEASES);
    fill(&broker, 500).await?;
    let growth = resident()?.saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{} MiB for {} streams", growth / MIB, LEASES + WATCHES);
    alive(&broker).await?;

    // Hanging up gives everything back.
    drop((streams, bodies, mute, deaf));
    until(|| broker.broker.leases().counts() == (0, 0)).await?;
    alive(&broker).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_as_fast_as_they_open() -> Result<()> {
    let broker = Setup::new()?.limits(|limits| limits.identities.requests_burst = 10_000).start().await?;
    let call = RawCall::new(ACQUIRE, Some(broker.token("travel-bot")?), &acquire(BOOK, &[NAVAN]));
    let mut raw = Raw::connect(broker.address, WINDOW).await?;
    for _ in 0..5_000 {
        // The broker may lose its patience and hang up.
        let Ok((_, mut stream)) = raw.send(call.clone()).await else { break };
        stream.send_reset(h2::Reason::CANCEL);
    }
    alive(&broker).await?;
    drop(raw);
    until(|| broker.broker.leases().counts() == (0, 0)).await
}

/// Far more connections than the broker takes, and not a word on any: whoever is connected is served, and
/// so is whoever comes last, at once.
#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_it_takes() -> Result<()> {
    const PEERS: usize = 2_000;
    // Both ends of each are in this process.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let places = PlaceLimits::of(1_900);
    let broker = Setup::new()?.limits(|limits| limits.places = places).start().await?;
    let (mut bot, mut tool) = (broker.client("travel-bot").await?, broker.client(BOOK).await?);
    let lease = Lease::open(&mut bot, acquire(BOOK, &[NAVAN])).await?;
    let mut idle = Vec::new();
    for _ in 0..PEERS {
        idle.push(TcpStream::connect(broker.address).await?);
    }
    let call = RawCall::new(ACQUIRE, Some(broker.token("mail-bot")?), &acquire(BOOK, &[NAVAN]));
    let answer = Raw::connect(broker.address, WINDOW).await?.call(call).await?;
    assert_eq!(answer.status().code(), Code::PermissionDenied);
    tool.redeem("x").await.err().context("redeemed")?;
    drop(lease);
    let lease = Lease::open(&mut bot, acquire(BOOK, &[NAVAN])).await?;
    assert_eq!(tool.redeem(lease.handle(0)?).await?.secret_value, b"demo-navan-user@travel.example");

    // The oldest of the silent were let go, the youngest are still there.
    let first = idle.first_mut().context("no connections")?;
    let closed = tokio::time::timeout(Duration::from_secs(5), first.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "the oldest is kept");
    let open = idle.iter().filter(|socket| is_open(socket)).count();
    assert!(open <= places.unknown_per_address_max, "{open} silent connections are open");
    drop(lease);
    alive(&broker).await
}

/// Weighed in a process of its own: here, tests weigh each other.
#[tokio::test]
async fn silent_connections_weigh_little() -> Result<()> {
    const PEERS: usize = 2_000;
    let setup = Setup::new()?;
    setup.write_config()?;
    let (process, uri) = Process::broker(env!("CARGO_BIN_EXE_stand-in"), setup.dir(), &[]).await?;
    let authorization = setup.authorization("travel-bot")?;
    let mut bot = Client::connect(&uri, Some(&authorization)).await?;
    let lease = Lease::open(&mut bot, acquire(BOOK, &[NAVAN])).await?;
    let before = process.resident()?;
    let mut idle = Vec::new();
    for _ in 0..PEERS {
        idle.push(TcpStream::connect(uri.trim_start_matches("http://")).await?);
    }
    drop(lease);
    let mut last = Client::connect(&uri, Some(&authorization)).await?;
    Lease::open(&mut last, acquire(BOOK, &[NAVAN])).await?;
    let growth = process.resident()?.saturating_sub(before) / (1 << 20);
    assert!(growth < 64, "{growth} MiB for {PEERS} connections");
    Ok(())
}

/// Whether the other end has not hung up; what it said is passed over.
fn is_open(socket: &TcpStream) -> bool {
    loop {
        match socket.try_read(&mut [0; 256]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == WouldBlock,
        }
    }
}

/// The broker does its work, and writes it down.
async fn alive(broker: &TestBroker) -> Result<()> {
    let mark = broker.mark();
    let lease = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[NAVAN])).await?;
    let answer = broker.client(BOOK).await?.redeem(lease.handle(0)?).await?;
    assert_eq!(answer.secret_value, b"demo-navan-user@travel.example");
    let counts = broker.broker.leases().counts();
    drop(lease);
    until(|| broker.broker.leases().counts().0 < counts.0).await?;
    let ended = |records: &[valetkey_audit::StoredRecord]| {
        let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
        [RecordKind::Acquire, RecordKind::Redeem, RecordKind::LeaseEnd]
            .iter()
            .all(|kind| kinds.contains(kind))
            .then_some(())
    };
    broker.await_records(mark, ended).await
}

/// Writes so many records, 64 a call.
async fn fill(broker: &TestBroker, records: usize) -> Result<()> {
    let mut other = broker.client("mail-bot").await?;
    let references: Vec<_> = (0..64).map(|place| format!("op://Tutorial/Navan/field{place}")).collect();
    let references: Vec<_> = references.iter().map(String::as_str).collect();
    for _ in 0..records.div_ceil(64) {
        let answer = other.leases.acquire_lease(acquire(BOOK, &references)).await;
        assert_eq!(answer.err().map(|status| status.code()), Some(Code::PermissionDenied));
    }
    Ok(())
}

/// Waits for a condition, at most ten seconds.
async fn until(condition: impl Fn() -> bool) -> Result<()> {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.context("not in time")
}

/// The memory of this process, in bytes.
fn resident() -> Result<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = pages.split(' ').nth(1).context("no resident pages")?.parse()?;
    Ok(pages * 4096)
}

fn refusal(status: Status) -> Result<(), Status> {
    if status.code() == Code::Ok { Ok(()) } else { Err(status) }
}
