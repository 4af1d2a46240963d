//! One secret has many spellings and one decision.

use anyhow::{Context, Result};
use tonic::Response;
use valetkey_audit::{StoredRecord, StoredTarget};
use valetkey_core::testing::FakeClock;
use valetkey_core::{Reason, Ruling};
use valetkey_proto::v1::{CheckAccessRequest, Decision};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::shape;
use valetkey_tests::{Setup, TestBroker, acquire};

const BOOK: &str = "navan.book_flight";

/// Codes, not seeds.
const CODES: &str = r#"
// Signing in needs a code.
@id("navan-code")
permit (principal in Team::"travel", action == Action::"acquire", resource in Item::"tutorial/navan")
when { context.tool == Tool::"navan.book_flight" && resource.kind == "otp" };

@id("navan-code-redeem")
permit (principal == Tool::"navan.book_flight", action == Action::"redeem", resource in Item::"tutorial/navan")
when { resource.kind == "otp" };
"#;

/// Ways to write one thing, the canonical first; what `travel-bot` is told about it for a tool, and why.
struct Secret {
    spellings: &'static [&'static str],
    tool: &'static str,
    ruling: Ruling,
    why: Reason,
    field_id: &'static str,
}

const SECRETS: &[Secret] = &[
    Secret {
        spellings: &[
            "op://Tutorial/Navan/username",
            "op://tutorial/navan/username",
            "op://TUTORIAL/NAVAN/USERNAME",
            "op://tUtOrIaL/nAvAn/uSeRnAmE",
            "op://tutorialxxxxxxxxxxxxxxxxxx/Navan/username",
            "op://Tutorial/navanxxxxxxxxxxxxxxxxxxxxx/Username",
            "op://tutorialxxxxxxxxxxxxxxxxxx/navanxxxxxxxxxxxxxxxxxxxxx/username",
        ],
        tool: BOOK,
        ruling: Ruling::Allow,
        why: Reason::PolicyPermit,
        field_id: "username",
    },
    Secret {
        spellings: &[
            "op://Tutorial/Navan/Security/one-time password?attribute=otp",
            "op://Tutorial/Navan/one-time password?attribute=otp",
            "op://Tutorial/Navan/one-time password?attribute=totp",
            "op://tutorial/navan/SECURITY/ONE-TIME PASSWORD?attribute=otp",
            "op://Tutorial/Navan/security/onetimepassword?attribute=otp",
            "op://tutorialxxxxxxxxxxxxxxxxxx/navanxxxxxxxxxxxxxxxxxxxxx/onetimepassword?attribute=totp",
        ],
        tool: BOOK,
        ruling: Ruling::Allow,
        why: Reason::PolicyPermit,
        field_id: "onetimepassword?otp",
    },
    // The seed is worth all codes to come, and needs a permission of its own.
    Secret {
        spellings: &[
            "op://Tutorial/Navan/Security/one-time password",
            "op://Tutorial/Navan/one-time password",
            "op://tutorial/NAVAN/security/onetimepassword",
            "op://tutorialxxxxxxxxxxxxxxxxxx/navanxxxxxxxxxxxxxxxxxxxxx/onetimepassword",
        ],
        tool: BOOK,
        ruling: Ruling::Deny,
        why: Reason::PolicyNoPermit,
        field_id: "onetimepassword?seed",
    },
    Secret {
        spellings: &[
            "op://Tutorial/Navan/notesPlain",
            "op://Tutorial/Navan/notes",
            "op://tutorial/navan/NOTES",
            "op://Tutorial/navanxxxxxxxxxxxxxxxxxxxxx/notesplain",
        ],
        tool: BOOK,
        ruling: Ruling::Deny,
        why: Reason::PolicyNoPermit,
        field_id: "notesPlain",
    },
    Secret {
        spellings: &[
            "op://Tutorial/Travel Card/number",
            "op://Tutorial/travel card/NUMBER",
            "op://Tutorial/TRAVEL CARD/ccnum",
            "op://tutorialxxxxxxxxxxxxxxxxxx/travelcardxxxxxxxxxxxxxxxx/number",
            "op://tutorial/travelcardxxxxxxxxxxxxxxxx/ccnum",
        ],
        tool: "web.search",
        ruling: Ruling::Deny,
        why: Reason::PolicyForbid,
        field_id: "ccnum",
    },
    Secret {
        spellings: &[
            "op://Production/Database/password",
            "op://PRODUCTION/DATABASE/PASSWORD",
            "op://productionxxxxxxxxxxxxxxxx/databasexxxxxxxxxxxxxxxxxx/password",
        ],
        tool: BOOK,
        ruling: Ruling::Deny,
        why: Reason::PolicyNoPermit,
        field_id: "password",
    },
];

#[tokio::test]
async fn all_spellings_of_one_secret_get_one_decision() -> Result<()> {
    let broker = start(Setup::new()?).await?;
    for secret in SECRETS {
        for who in ["travel-bot", "mail-bot"] {
            let mut decisions = Vec::new();
            for spelling in secret.spellings {
                decisions.push(Decided::of(&check(&broker, who, secret.tool, spelling).await?));
            }
            let first = decisions.first().context("no spellings")?.clone();
            if who == "travel-bot" {
                assert_eq!((first.ruling, first.why), (secret.ruling, secret.why), "{:?}", secret.spellings);
            } else {
                assert_eq!(first.ruling, Ruling::Deny, "{:?}", secret.spellings);
            }
            let field = first.target.as_ref().and_then(|target| target.field_id.as_deref());
            assert_eq!(field, Some(secret.field_id));
            for (decision, spelling) in decisions.iter().zip(secret.spellings) {
                assert_eq!(*decision, first, "{who}: {spelling}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn all_spellings_of_one_secret_get_one_answer() -> Result<()> {
    let broker = start(Setup::new()?).await?;
    let (mut bot, mut tool) = (broker.client("travel-bot").await?, broker.client(BOOK).await?);
    for secret in SECRETS {
        let mut answers = Vec::new();
        for spelling in secret.spellings {
            answers.push(match Lease::open(&mut bot, acquire(secret.tool, &[spelling])).await {
                Ok(lease) => Ok(tool.redeem(lease.handle(0)?).await?.secret_value),
                Err(status) => Err(shape(&status)),
            });
        }
        assert_eq!(answers.first().map(Result::is_ok), Some(secret.ruling == Ruling::Allow));
        answers.dedup();
        assert_eq!(answers.len(), 1, "{:?}: {answers:?}", secret.spellings);
    }
    Ok(())
}

/// What looks like a spelling and is none never does better than the thing that it looks like.
#[tokio::test]
async fn tricks_open_nothing() -> Result<()> {
    let broker = start(Setup::new()?).await?;
    for trick in [
        // Ids count as they stand.
        "op://TUTORIALXXXXXXXXXXXXXXXXXX/Navan/username",
        "op://Tutorial/NAVANXXXXXXXXXXXXXXXXXXXXX/username",
        "op://Tutorial/Navan/Nowhere/username",
        "op://Tutorial/Navan/username?attribute=otp",
        "op://Tutorial/Navan/one-time password?attribute=otp&attribute=otp",
        "op://Tutorial/Navan/one-time password?ssh-format=openssh",
        "op://Production/Navan/username",
        "op://productionxxxxxxxxxxxxxxxx/navanxxxxxxxxxxxxxxxxxxxxx/username",
        "op://Tutorial/../Production/Database/password",
        "op://Tutorial/Navan/../Travel Card/number",
        "op://Tutorial/Travel%20Card/number",
        "op://Tutorial/Nava\u{6e}\u{200b}/username",
        "op://Tutorial/N\u{430}van/username",
        "op://Tutorial/Navan /username",
        "op://Tutorial/Navan/username\0",
        "op://Tutorial/Navan/username#fragment",
        "OP://Tutorial/Navan/username",
    ] {
        let ask = CheckAccessRequest { tool: BOOK.into(), reference: trick.into(), ..Default::default() };
        let answer =
            broker.client("travel-bot").await?.leases.check_access(ask).await.map(Response::into_inner);
        let allowed = answer.is_ok_and(|answer| answer.decision() != Decision::Deny);
        assert!(!allowed, "{trick} is allowed");
        let lease = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[trick])).await;
        assert!(lease.is_err(), "{trick} got a lease");
    }
    Ok(())
}

/// A name that two things share permits neither of them, however they are spelled; what it forbids stays
/// forbidden for both.
#[tokio::test]
async fn a_shared_name_permits_nothing() -> Result<()> {
    let setup = Setup::new()?;
    let path = setup.dir().join("vault.json");
    let vault = std::fs::read_to_string(&path)?;
    let twin = |id: &str, title: &str, field: &str| {
        format!(
            r#""items": [{{"id": "{id:x<26}", "title": "{title}", "category": "LOGIN",
            "vault": {{"id": "tutorialxxxxxxxxxxxxxxxxxx"}},
            "fields": [{{"id": "{field}", "type": "STRING", "label": "{field}", "value": "demo-twin"}}]}},"#
        )
    };
    let more = vault.replacen(r#""items": ["#, &twin("navan2", "NAVAN", "username"), 1);
    let more = more.replacen(r#""items": ["#, &twin("card2", "travel card", "number"), 1);
    std::fs::write(&path, more)?;
    let broker = start(setup).await?;
    for (tool, reference, why) in [
        (BOOK, "op://Tutorial/Navan/username", Reason::PolicyNoPermit),
        (BOOK, "op://Tutorial/navanxxxxxxxxxxxxxxxxxxxxx/username", Reason::PolicyNoPermit),
        (BOOK, "op://Tutorial/navan2xxxxxxxxxxxxxxxxxxxx/username", Reason::PolicyNoPermit),
        (BOOK, "op://Tutorial/travelcardxxxxxxxxxxxxxxxx/number", Reason::PolicyNoPermit),
        ("web.search", "op://Tutorial/travelcardxxxxxxxxxxxxxxxx/number", Reason::PolicyForbid),
        ("web.search", "op://Tutorial/card2xxxxxxxxxxxxxxxxxxxxx/number", Reason::PolicyForbid),
    ] {
        let record = check(&broker, "travel-bot", tool, reference).await?;
        assert_eq!((record.ruling, record.reason), (Ruling::Deny, why), "{reference}: {record:#?}");
    }
    Ok(())
}

/// What two spellings of one secret must have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decided {
    ruling: Ruling,
    why: Reason,
    policies: Vec<String>,
    target: Option<StoredTarget>,
    detail: Option<String>,
    terms: (Option<std::time::Duration>, Option<u32>),
}

impl Decided {
    fn of(record: &StoredRecord) -> Self {
        Self {
            ruling: record.ruling,
            why: record.reason,
            policies: record.policies.clone(),
            target: record.target.clone(),
            detail: record.detail.clone(),
            terms: (record.ttl, record.uses),
        }
    }
}

/// A dry run, and the record that it left.
async fn check(broker: &TestBroker, who: &str, tool: &str, reference: &str) -> Result<StoredRecord> {
    let mark = broker.mark();
    let ask = CheckAccessRequest { tool: tool.into(), reference: reference.into(), ..Default::default() };
    let answer = broker.client(who).await?.leases.check_access(ask).await?.into_inner();
    let record = broker.since(mark).await?.pop().context("no record")?;
    assert_eq!(answer.record_id, record.id.to_string());
    assert_eq!(answer.decision() == Decision::Allow, record.ruling == Ruling::Allow);
    assert_eq!(record.reference.as_deref(), Some(reference));
    Ok(record)
}

async fn start(setup: Setup) -> Result<TestBroker> {
    std::fs::write(setup.dir().join("policies/codes.cedar"), CODES)?;
    // A clock that stands still: all codes are of one moment.
    setup.clock(&FakeClock::default()).start().await
}
