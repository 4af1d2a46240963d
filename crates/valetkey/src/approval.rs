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
            match output::told_width().filter(|_| format == Format::Table) {
                _ if rows.is_empty() && format == Format::Table => {
                    output::note("nothing waits for your approval");
                }
                Some(width) => output::text(&output::fitted(&SHOWN, &rows, &["claimed_purpose"], width))?,
                None => output::rows(format, &SHOWN, &rows)?,
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
        OneFormat::Table => output::text(&output::record(&row))?,
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
    let meaning = references.iter().map(meaning).collect();
    let references = references.into_iter().map(|it| it.reference).collect();
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

/// What a reference leads to, which is what is approved: a spelling can name it by ids.
fn meaning(reference: &ApprovalReference) -> String {
    let ApprovalReference { reference: _, vault, item, field, record_id: _ } = reference;
    match field.is_empty() {
        true => "nothing that is there".to_owned(),
        false => format!("{vault}/{item}/{field}"),
    }
}

/// The columns of a table of what waits.
const SHOWN: [&str; 7] =
    ["approval_id", "agent", "on_behalf_of", "tool", "meaning", "expire_time", "claimed_purpose"];
const PAGE_SIZE_MAX: usize = 1000;
