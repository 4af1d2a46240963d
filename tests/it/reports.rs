//! Usage reports and reviewers' questions: the numbers are what was done, and what can be accessed is what policy says.

use anyhow::{Context, Result};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use valetkey_core::{Reason, RecordId, RecordKind, Ruling};
use valetkey_proto::v1::get_usage_report_request::Subject;
use valetkey_proto::v1::{
    AuditTarget, GetUsageReportRequest, GetUsageReportResponse, ListFirstUsesRequest, ListRefusalsRequest,
    ListUnusedAccessRequest, ListUnusedAccessResponse, ReportAccess, ReportPeriod, ReportUsage,
};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::{Client, Setup, TestBroker, acquire};

const BOOK: &str = "navan.book_flight";
const USERNAME: &str = "op://Tutorial/Navan/username";
const PASSWORD: &str = "op://Tutorial/Navan/password";
const CARD: &str = "op://Tutorial/Travel Card/number";
const DATABASE: &str = "op://Production/Database/password";

/// Eve sees the vault of production alone, and travel-bot may use it for a search.
const MORE: &str = r#"
@id("eve-production")
permit (principal == Person::"eve", action == Action::"readAudit", resource in Vault::"production");

@id("production-search")
permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"production")
when { context.tool == Tool::"web.search" };
"#;

/// A broker on which everybody did something: travel-bot used a login, and its database for a search; its handle was
/// replayed; what is not for a tool, and what is not for mail-bot, was refused.
async fn story() -> Result<TestBroker> {
    let setup = Setup::new()?;
    std::fs::write(setup.dir().join("policies/more.cedar"), MORE)?;
    let broker = setup.start().await?;
    let mut bot = broker.client("travel-bot").await?;
    let mut navan = broker.client(BOOK).await?;
    let lease = Lease::open(&mut bot, acquire(BOOK, &[USERNAME, PASSWORD])).await?;
    navan.redeem(lease.handle(0)?).await?;
    navan.redeem(lease.handle(1)?).await?;
    assert!(navan.redeem(lease.handle(1)?).await.is_err(), "a replay");
    let search = Lease::open(&mut bot, acquire("web.search", &[DATABASE])).await?;
    for (who, tool, reference) in [
        ("travel-bot", "web.search", CARD),
        ("travel-bot", BOOK, DATABASE),
        ("mail-bot", BOOK, PASSWORD),
        ("mail-bot", BOOK, PASSWORD),
    ] {
        let mut client = broker.client(who).await?;
        assert!(Lease::open(&mut client, acquire(tool, &[reference])).await.is_err(), "{who} {reference}");
    }
    drop((lease, search));
    broker.settled(RecordId(0)).await?;
    Ok(broker)
}

async fn report(client: &mut Client, subject: Option<Subject>) -> Result<GetUsageReportResponse, Status> {
    let ask = GetUsageReportRequest { subject, period: None };
    Ok(client.reports.get_usage_report(ask).await?.into_inner())
}

/// `agent tool vault/item issued/released/refused access`.
fn rows(report: &GetUsageReportResponse) -> Vec<String> {
    let row = |row: &ReportUsage| {
        let AuditTarget { vault_name, item_name, .. } = row.target.clone().unwrap_or_default();
        let access = if row.has_access { "access" } else { "No Access" };
        let (agent, tool) = (&row.agent, &row.tool);
        let counts = format!("{}/{}/{}", row.issued, row.released, row.refused);
        format!("{agent} {tool} {vault_name}/{item_name} {counts} {access}")
    };
    let mut rows: Vec<_> = report.usages.iter().map(row).collect();
    rows.sort();
    rows
}

/// Vaults, items, agents, and whether all is known.
fn access(report: &GetUsageReportResponse) -> (u32, u32, u32, bool) {
    let ReportAccess { vaults, items, agents, complete, .. } = report.access.clone().unwrap_or_default();
    (vaults, items, agents, complete)
}

#[tokio::test]
async fn an_agents_report_is_what_it_did_and_can_do() -> Result<()> {
    let broker = story().await?;
    let mut ana = broker.client("ana").await?;
    let found = report(&mut ana, Some(Subject::Agent("travel-bot".into()))).await?;
    assert_eq!(
        rows(&found),
        [
            "travel-bot navan.book_flight production/database 0/0/1 No Access",
            "travel-bot navan.book_flight tutorial/navan 2/2/1 access",
            "travel-bot web.search production/database 1/0/0 access",
            "travel-bot web.search tutorial/travel card 0/0/1 No Access",
        ]
    );
    assert_eq!(access(&found), (2, 4, 0, true));
    let totals = found.totals.context("no totals")?;
    assert_eq!((totals.agents, totals.tools, totals.vaults, totals.items), (1, 2, 2, 2));
    assert_eq!((totals.issued, totals.released, totals.refused, totals.failed), (3, 2, 3, 0));
    let totals = report(&mut ana, None).await?.totals.context("no totals")?;
    assert_eq!((totals.agents, totals.tools), (1, 2), "mail-bot was only refused");
    assert_eq!((totals.issued, totals.released, totals.refused, totals.failed), (3, 2, 5, 0));
    // The last used first, with the record of that.
    let last = found.usages.first().context("no usage")?;
    assert_eq!((last.tool.as_str(), last.last_action.as_str()), ("web.search", "acquire"));
    let record = broker.records(&format!("record:{}", last.last_record_id)).await?;
    assert_eq!(record.first().and_then(|record| record.create_time), last.last_used);
    let refused = found.usages.last().context("no usage")?;
    assert_eq!((refused.last_used, refused.last_refused.is_some()), (None, true));
    Ok(())
}

/// The sums of every report are those of the records themselves.
#[tokio::test]
async fn every_report_adds_up_to_the_log() -> Result<()> {
    let broker = story().await?;
    let mut ana = broker.client("ana").await?;
    let subjects = [
        (None, ""),
        (Some(Subject::Agent("travel-bot".into())), "agent:travel-bot"),
        (Some(Subject::Agent("nobody".into())), "agent:nobody"),
        (Some(Subject::Vault("TUTORIAL".into())), "vault:tutorial"),
        (Some(Subject::Vault("productionxxxxxxxxxxxxxxxx".into())), "vault:production"),
        (Some(Subject::Item("Navan".into())), "item:navan"),
        (Some(Subject::Item("Tutorial/Travel Card".into())), "item:\"travel card\""),
        (Some(Subject::Item("Production/Navan".into())), "item:navan vault:production"),
        (Some(Subject::Tool("web.search".into())), "tool:web.search"),
    ];
    for (subject, filter) in subjects {
        let found = report(&mut ana, subject.clone()).await?;
        let totals = found.totals.context("no totals")?;
        let mut counts = [0_u64; 3];
        for kind in ["acquire", "renew", "redeem"] {
            for (count, term) in
                counts.iter_mut().zip(["outcome:issued", "outcome:released", "decision:deny"])
            {
                let records = broker.records(&format!("{filter} kind:{kind} {term}")).await?;
                *count += u64::try_from(records.len())?;
            }
        }
        assert_eq!([totals.issued, totals.released, totals.refused], counts, "{subject:?}");
        let sums = found.usages.iter().fold([0; 3], |[issued, released, refused], row| {
            [issued + row.issued, released + row.released, refused + row.refused]
        });
        assert_eq!(sums, counts, "{subject:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_known_of_access_follows_the_policies() -> Result<()> {
    let broker = story().await?;
    let mut ana = broker.client("ana").await?;
    let card = Some(Subject::Item("Tutorial/Travel Card".into()));
    let of_navan = Some(Subject::Item("navan".into()));
    assert_eq!(access(&report(&mut ana, card.clone()).await?), (1, 1, 1, true));
    let names = report(&mut ana, of_navan.clone()).await?.access.context("no access")?.agent_names;
    assert_eq!(names, ["travel-bot"]);
    assert_eq!(access(&report(&mut ana, None).await?), (2, 4, 1, true));
    let tool = Some(Subject::Tool("ramp.submit_expense".into()));
    assert_eq!(access(&report(&mut ana, tool).await?), (1, 1, 1, true));

    let lock =
        r#"@id("lock") forbid (principal, action in Action::"access", resource in Item::"tutorial/navan");"#;
    broker.put_policies("lock.cedar", lock)?;
    broker.reloader.reload().await?;
    let found = report(&mut ana, of_navan).await?;
    assert_eq!(access(&found), (0, 0, 0, true));
    assert_eq!(
        rows(&found),
        [
            "mail-bot navan.book_flight tutorial/navan 0/0/2 No Access",
            "travel-bot navan.book_flight tutorial/navan 2/2/1 No Access",
        ]
    );
    assert_eq!(access(&report(&mut ana, card).await?), (1, 1, 1, true));
    Ok(())
}

/// Whoever is limited to some vaults sees their rows and their access, and no sign of the others.
#[tokio::test]
async fn a_limited_reviewer_sees_its_vaults_alone() -> Result<()> {
    let broker = story().await?;
    let mut eve = broker.client("eve").await?;
    let all = [
        "travel-bot navan.book_flight production/database 0/0/1 No Access",
        "travel-bot web.search production/database 1/0/0 access",
    ];
    let of_bot = Some(Subject::Agent("travel-bot".into()));
    for (subject, agents) in [(None, 1), (of_bot, 0), (Some(Subject::Vault("production".into())), 1)] {
        let found = report(&mut eve, subject.clone()).await?;
        assert_eq!(rows(&found), all, "{subject:?}");
        assert_eq!(access(&found), (1, 1, agents, true), "{subject:?}");
        let totals = found.totals.context("no totals")?;
        assert_eq!(
            (totals.agents, totals.vaults, totals.issued, totals.refused),
            (1, 1, 1, 1),
            "{subject:?}"
        );
    }
    for subject in
        [Subject::Vault("Tutorial".into()), Subject::Item("Navan".into()), Subject::Agent("mail-bot".into())]
    {
        let found = report(&mut eve, Some(subject.clone())).await?;
        assert_eq!((rows(&found), access(&found)), (Vec::new(), (0, 0, 0, true)), "{subject:?}");
        assert_eq!(found.totals, Some(Default::default()), "{subject:?}");
    }
    // What it is told of access is of its vaults, and says so.
    let limited = async |client: &mut Client| {
        let of_report = report(client, None).await?.access.is_some_and(|access| access.limited);
        let of_unused = unused(client, 1, "").await?.access.is_some_and(|access| access.limited);
        Ok::<_, Status>((of_report, of_unused))
    };
    assert_eq!(limited(&mut eve).await?, (true, true));
    assert_eq!(limited(&mut broker.client("ana").await?).await?, (false, false));
    let refusals = eve.reports.list_refusals(ListRefusalsRequest::default()).await?.into_inner().refusals;
    assert_eq!(refusals.iter().map(|row| row.count).collect::<Vec<_>>(), [1]);
    let first = eve.reports.list_first_uses(ListFirstUsesRequest::default()).await?.into_inner().uses;
    assert_eq!(first.iter().map(|row| row.tool.as_str()).collect::<Vec<_>>(), ["web.search"]);
    let unused = unused(&mut eve, 1, "").await?;
    assert_eq!((items(&unused), unused.policy_ids), (Vec::new(), Vec::new()));
    Ok(())
}

#[tokio::test]
async fn questions_are_answered() -> Result<()> {
    let broker = story().await?;
    let mut ana = broker.client("ana").await?;
    let refusals = async |ana: &mut Client, agent: &str| {
        let ask = ListRefusalsRequest { agent: agent.into(), period: None };
        let rows = ana.reports.list_refusals(ask).await?.into_inner().refusals;
        let row =
            |it: valetkey_proto::v1::Refusals| format!("{} {} {} {}", it.count, it.agent, it.kind, it.reason);
        Ok::<_, Status>(rows.into_iter().map(row).collect::<Vec<_>>())
    };
    assert!(report(&mut broker.client("omar").await?, None).await.is_err());
    let all = refusals(&mut ana, "").await?;
    assert!(!all.iter().any(|row| row.contains("read_audit")), "reviewers' own reads: {all:?}");
    assert_eq!(all.first().map(String::as_str), Some("2 mail-bot acquire POLICY_NO_PERMIT"));
    let of_bot = refusals(&mut ana, "travel-bot").await?;
    assert_eq!(
        of_bot,
        [
            "1 travel-bot acquire POLICY_NO_PERMIT",
            "1 travel-bot acquire POLICY_FORBID",
            "1 travel-bot redeem HANDLE_SPENT",
        ]
    );

    let first = ana.reports.list_first_uses(ListFirstUsesRequest::default()).await?.into_inner().uses;
    let shown: Vec<_> = first.iter().map(|it| (it.tool.as_str(), it.agent.as_str())).collect();
    assert_eq!(shown, [("web.search", "travel-bot"), (BOOK, "travel-bot")]);

    // What could be used and was not; a use takes it off.
    let before = unused(&mut ana, 90, "travel-bot").await?;
    assert_eq!(items(&before), ["tutorial/ramp", "tutorial/travel card"]);
    let policies = unused(&mut ana, 90, "").await?.policy_ids;
    assert!(policies.contains(&"ramp-login".to_owned()) && !policies.contains(&"navan-login".to_owned()));
    assert!(policies.is_sorted() && before.policy_ids.is_empty());
    let mark = broker.mark();
    let mut bot = broker.client("travel-bot").await?;
    let ramp = acquire("ramp.submit_expense", &["op://Tutorial/Ramp/password"]);
    drop(Lease::open(&mut bot, ramp).await?);
    broker.settled(mark).await?;
    assert_eq!(items(&unused(&mut ana, 1, "").await?), ["tutorial/travel card"]);
    Ok(())
}

#[tokio::test]
async fn a_period_has_whole_days_and_faults_are_named() -> Result<()> {
    let broker = story().await?;
    let mut ana = broker.client("ana").await?;
    let mut ask = async |subject: Option<Subject>, first: &str, last: &str| {
        let period = Some(ReportPeriod { first_day: first.into(), last_day: last.into() });
        let ask = GetUsageReportRequest { subject, period };
        ana.reports.get_usage_report(ask).await.map(tonic::Response::into_inner)
    };
    let now = ask(None, "", "").await?;
    let ReportPeriod { first_day, last_day } = now.period.clone().context("no period")?;
    assert!(first_day < last_day && !now.usages.is_empty());
    let today = ask(None, &last_day, &last_day).await?;
    assert_eq!(today.usages, now.usages);
    let before = ask(None, "2020-01-01", "2020-12-31").await?;
    assert_eq!(
        (before.usages.len(), access(&before)),
        (0, access(&now)),
        "what is now does not depend on it"
    );
    assert_eq!(before.totals, Some(Default::default()));

    let mark = broker.mark();
    let status = ask(Some(Subject::Agent("no name".into())), "2026-13-01", "yesterday").await;
    let status = status.err().context("answered")?;
    let fields: Vec<_> = status.get_details_bad_request().context("no details")?.field_violations;
    let fields: Vec<_> = fields.into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["agent", "period.first_day", "period.last_day"]);
    let records = broker.since(mark).await?;
    let shown: Vec<_> = records.iter().map(|it| (it.kind, it.ruling, it.reason)).collect();
    let read = RecordKind::ReadAudit;
    assert_eq!(
        shown,
        [(read, Ruling::Allow, Reason::PolicyPermit), (read, Ruling::Deny, Reason::FieldInvalid)]
    );
    assert_eq!(records[0].detail.as_deref(), Some("report on agent no name from 2026-13-01 to yesterday"));
    Ok(())
}

/// Whatever is asked, only reviewers are answered, and nothing is asked in vain.
#[tokio::test]
async fn whoever_may_not_read_the_log_gets_no_report() -> Result<()> {
    let broker = story().await?;
    let denied = Refused {
        code: Code::PermissionDenied,
        reason: "ACCESS_DENIED",
        kind: RecordKind::ReadAudit,
        why: Reason::PolicyNoPermit,
    };
    for who in ["omar", "travel-bot", BOOK] {
        let mark = broker.mark();
        let counts = broker.broker.leases().counts();
        let answer = report(&mut broker.client(who).await?, None).await;
        broker.check_refused(who, mark, counts, answer, denied).await?;
    }
    Ok(())
}

async fn unused(client: &mut Client, days: i32, agent: &str) -> Result<ListUnusedAccessResponse, Status> {
    let ask = ListUnusedAccessRequest { days, agent: agent.into() };
    Ok(client.reports.list_unused_access(ask).await?.into_inner())
}

fn items(unused: &ListUnusedAccessResponse) -> Vec<String> {
    let name = |target: &AuditTarget| format!("{}/{}", target.vault_name, target.item_name);
    unused.accesses.iter().filter_map(|access| access.target.as_ref().map(name)).collect()
}
