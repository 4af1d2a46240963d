//! `valetkey approval`: what waits for a person, and that person's decision.

use serde_json::Value;
use valetkey_client::{Approval, ApprovalDecision, ApprovalReference, Broker};

use crate::audit::moment_to_second;
use crate::cli::{ApprovalCommand, ChoiceArgs, Format, OneFormat};
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, Cell};

/// Runs it.
pub(crate) async fn run(command: ApprovalCommand) -> Result<Exit, Failure> {
    match command {
        ApprovalCommand::List { limit, format, connection } => {
            let rows: Vec<_> =
                list(&connect(&connection).await?, limit).await?.into_iter().map(cells).collect();
            match format {
                Format::Table if rows.is_empty() => output::note("nothing waits for your approval"),
                Format::Table => output::text(&table(&rows, output::told_width().unwrap_or(usize::MAX)))?,
                Format::Json | Format::Jsonl | Format::Csv => output::rows(format, &[], &rows)?,
            }
        }
        ApprovalCommand::Approve(ChoiceArgs { approval_id, format, connection }) => {
            show("approved", connect(&connection).await?.approve(&approval_id).await?, format)?;
        }
        ApprovalCommand::Reject(ChoiceArgs { approval_id, format, connection }) => {
            show("rejected", connect(&connection).await?.reject(&approval_id).await?, format)?;
        }
    }
    Ok(Exit::Done)
}

async fn list(broker: &Broker, limit: u32) -> Result<Vec<Approval>, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut approvals, mut place) = (Vec::new(), String::new());
    while approvals.len() < limit {
        let page_size = i32::try_from((limit - approvals.len()).min(PAGE_SIZE_MAX)).unwrap_or_default();
        let page = broker.list_approvals(page_size, &place).await?;
        approvals.extend(page.approvals);
        match page.next_page_token {
            Some(next) => place = next,
            None => break,
        }
    }
    Ok(approvals)
}

/// What was decided, whole: whoever decided by an id alone sees here what that was.
fn show(decision: &str, decided: ApprovalDecision, format: OneFormat) -> Result<(), Failure> {
    let ApprovalDecision { approval, expire_time, record_id } = decided;
    let until = Value::from(expire_time.map(|time| moment_to_second(time.seconds)));
    let decision: [Cell; 3] =
        [("decision", decision.into()), ("decision_until", until), ("record_id", record_id.into())];
    let row: Vec<_> = cells(approval).into_iter().chain(decision).collect();
    match format {
        OneFormat::Table => output::text(&output::record(&detail(row)))?,
        OneFormat::Json => output::line(&output::object(&row).to_string())?,
    }
    Ok(())
}

/// What the agent says of itself is called so: it is written by whoever wants the approval.
fn cells(approval: Approval) -> Vec<Cell> {
    let Approval {
        approval_id,
        agent,
        on_behalf_of,
        tool,
        references,
        purpose,
        destination,
        session,
        claims,
        groups,
        create_time,
        expire_time,
    } = approval;
    let text = |text: String| if text.is_empty() { Value::Null } else { text.into() };
    let list = |texts: Vec<String>| if texts.is_empty() { Value::Null } else { texts.into() };
    let moment = |seconds: Option<i64>| Value::from(seconds.map(moment_to_second));
    let (references, meaning) = references.into_iter().map(spelled_and_meant).unzip();
    vec![
        ("approval_id", approval_id.into()),
        ("agent", agent.into()),
        ("on_behalf_of", text(on_behalf_of)),
        ("claims", list(claims)),
        ("tool", tool.into()),
        ("references", list(references)),
        ("meaning", list(meaning)),
        ("groups", list(groups)),
        ("create_time", moment(create_time.map(|time| time.seconds))),
        ("expire_time", moment(expire_time.map(|time| time.seconds))),
        ("claimed_destination", text(destination)),
        ("claimed_session", text(session)),
        ("claimed_purpose", text(purpose)),
    ]
}

/// A reference as asked, and what it leads to, which is what is approved.
fn spelled_and_meant(asked: ApprovalReference) -> (String, String) {
    let ApprovalReference {
        reference,
        vault: _,
        item: _,
        field: _,
        record_id: _,
        section: _,
        kind: _,
        vault_id: _,
        item_id: _,
        field_id: _,
        meaning,
    } = asked;
    (reference, meaning)
}

/// What waits as a table: one line for each reference, so that none hides behind the others. Only the purpose is cut,
/// which decides nothing: of all else an end that is not seen could be what matters.
fn table(rows: &[Vec<Cell>], width: usize) -> String {
    let is_told =
        |name: &str| rows.iter().flatten().any(|(column, value)| *column == name && !value.is_null());
    let shown: Vec<_> =
        SHOWN.into_iter().filter(|name| !WHERE_TOLD.contains(name) || is_told(name)).collect();
    let lines: Vec<_> = rows.iter().flat_map(lines).collect();
    output::fitted(&shown, &lines, &["claimed_purpose"], width)
}

/// The lines of one row: the first has everything, the others a further meaning each.
fn lines(row: &Vec<Cell>) -> Vec<Vec<Cell>> {
    let meanings = row.iter().find_map(|(name, value)| value.as_array().filter(|_| *name == "meaning"));
    let mut meanings = meanings.into_iter().flatten().map(|meaning| ("meaning", meaning.clone()));
    let mut first: Vec<_> = row.iter().filter(|(name, _)| *name != "meaning").cloned().collect();
    first.extend(meanings.next());
    std::iter::once(first).chain(meanings.map(|meaning| vec![meaning])).collect()
}

/// A row as it is shown whole: a line for each thing of a list, and what an approval is for also where nothing is said.
fn detail(row: Vec<Cell>) -> Vec<Cell> {
    let cells = |(name, value): Cell| match value {
        Value::Array(values) => values.into_iter().map(|value| (name, value)).collect(),
        Value::Null if WHERE_TOLD.contains(&name) => vec![(name, "-".into())],
        value => vec![(name, value)],
    };
    row.into_iter().flat_map(cells).collect()
}

/// The columns of a table of what waits.
const SHOWN: [&str; 9] = [
    "approval_id",
    "agent",
    "on_behalf_of",
    "claims",
    "tool",
    "meaning",
    "claimed_destination",
    "expire_time",
    "claimed_purpose",
];
/// Of these, those that a table has only where somebody says something.
const WHERE_TOLD: [&str; 2] = ["claims", "claimed_destination"];
const PAGE_SIZE_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(meanings: &[&str]) -> Approval {
        let reference = |meaning: &&str| ApprovalReference {
            reference: "op://p/db/x".into(),
            meaning: (*meaning).to_owned(),
            ..Default::default()
        };
        Approval {
            approval_id: "vkl_1".into(),
            agent: "bot".into(),
            tool: "t".into(),
            references: meanings.iter().map(reference).collect(),
            purpose: "why not".into(),
            ..Default::default()
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn every_reference_has_a_line() {
        let rows = [asked(&["p/db/a", "p/db/b (seed)"]), asked(&["p/db/c"])].map(cells);
        let check = |width, text: &str| assert_eq!(plain(&table(&rows, width)), text);
        check(
            usize::MAX,
            "APPROVAL  AGENT  ON BEHALF OF  TOOL  MEANING        EXPIRE TIME  CLAIMED PURPOSE\n\
             vkl_1     bot                  t     p/db/a                      why not\n\
             \x20                                    p/db/b (seed)\n\
             vkl_1     bot                  t     p/db/c                      why not\n",
        );
        // What is approved is never cut.
        assert!(plain(&table(&rows, 1)).contains("p/db/b (seed)\n"));
    }

    #[test]
    fn what_it_is_for_is_shown() {
        let quiet = || cells(asked(&["p/db/a"]));
        let told = Approval {
            claims: vec!["repository=acme/app".into()],
            destination: "evil.example".into(),
            ..asked(&["p/db/a", "p/db/b"])
        };
        let rows = [quiet(), cells(told.clone())];
        let text = plain(&table(&rows, usize::MAX));
        assert!(text.contains("CLAIMS") && text.contains("CLAIMED DESTINATION"), "{text}");
        assert!(text.contains("repository=acme/app") && text.contains("evil.example"), "{text}");
        let text = output::record(&detail(cells(told)));
        assert!(text.contains("meaning              p/db/a\nmeaning              p/db/b\n"), "{text}");
        assert!(text.contains("claimed_destination  evil.example\n"), "{text}");
        let text = output::record(&detail(quiet()));
        assert!(text.contains("claims               -\n"), "{text}");
        assert!(text.contains("claimed_destination  -\n"), "{text}");
    }
}
