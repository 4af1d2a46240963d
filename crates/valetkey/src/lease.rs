//! `valetkey acquire`: holds a lease and shows what happens to it.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use valetkey_client::{AcquireLease, EndCause, Issued, LeaseEvent, LeaseStream, Refused};

use crate::cli::{AcquireArgs, StreamFormat};
use crate::connection::connect_for;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::signals::Interrupts;

/// Runs it.
pub(crate) async fn run(args: AcquireArgs) -> Result<Exit, Failure> {
    let AcquireArgs {
        tool,
        purpose,
        ttl,
        partial,
        session,
        destination,
        on_behalf_of,
        format,
        references,
        connection,
    } = args;
    let broker = connect_for(&connection, on_behalf_of.as_deref()).await?;
    let request = AcquireLease { tool, references, purpose, ttl, partial, session, destination };
    let mut lease = broker.acquire(request).await?;
    // Before this moment an interrupt ends the process, and with it the stream and the lease.
    let mut interrupts = Interrupts::take()?;
    opened(&lease, format)?;
    let mut issued = false;
    loop {
        let event = tokio::select! {
            event = lease.next() => event?,
            () = interrupts.next() => {
                lease.end().await?;
                output::note("the lease has ended; its handles are dead");
                return Ok(Exit::Done);
            }
        };
        let Some(event) = event else { return Ok(Exit::Done) };
        issued |= matches!(event, LeaseEvent::Issued(_));
        show(&event, format)?;
        if let LeaseEvent::Ended(cause) = event {
            return Ok(ended(cause, issued));
        }
    }
}

fn opened(lease: &LeaseStream, format: StreamFormat) -> Result<(), Failure> {
    match format {
        StreamFormat::Table => output::note(&format!(
            "lease {} on {}; Ctrl-C ends it",
            lease.id(),
            output::count(lease.references().len(), "reference", "references")
        )),
        StreamFormat::Jsonl => output::line(
            &json!({"event": "opened", "lease_id": lease.id(), "references": lease.references()}).to_string(),
        )?,
    }
    Ok(())
}

fn show(event: &LeaseEvent, format: StreamFormat) -> Result<(), Failure> {
    let text = match format {
        StreamFormat::Table => in_columns(event),
        StreamFormat::Jsonl => in_json(event).to_string(),
    };
    Ok(output::line(&text)?)
}

/// An agent that takes what it may, and may take nothing, was denied.
fn ended(cause: EndCause, issued: bool) -> Exit {
    match cause {
        EndCause::Policy | EndCause::Credential => Exit::Denied,
        EndCause::Shutdown | EndCause::Unavailable => Exit::Unavailable,
        EndCause::Disconnect | EndCause::Stalled => Exit::Failed,
        EndCause::Expiry | EndCause::Caller | EndCause::Unspecified if issued => Exit::Done,
        EndCause::Expiry | EndCause::Caller | EndCause::Unspecified => Exit::Denied,
    }
}

fn in_columns(event: &LeaseEvent) -> String {
    match event {
        LeaseEvent::Issued(issued) => format!("issued    {}", terms(issued)),
        LeaseEvent::Renewed { issued, previous_handle_id } => {
            format!("renewed   {}, replaces {previous_handle_id}", terms(issued))
        }
        LeaseEvent::Refused(Refused { reference, reason, message, record_id }) => {
            format!("refused   {reference}  {reason}: {message} (audit record {record_id})")
        }
        LeaseEvent::Revoked { reference, handle_id, cause } => {
            format!("revoked   {reference}  {handle_id}  by {}", word(*cause))
        }
        LeaseEvent::Draining { end_time } => {
            format!("draining  the broker stops; the lease ends by {}", moment(*end_time))
        }
        LeaseEvent::Ended(cause) => format!("ended     by {}", word(*cause)),
        _ => "unknown   an event that this version does not know".to_owned(),
    }
}

fn terms(issued: &Issued) -> String {
    let Issued {
        reference,
        handle,
        handle_id: _,
        expire_time,
        uses,
        redeemer,
        record_id: _,
        certificate_bound,
    } = issued;
    let redeemer = output::word(Some(redeemer.as_str_name()), "REDEEMER_");
    let uses = if *uses == 1 { "once".to_owned() } else { format!("{uses} times") };
    let by = redeemer.as_str().unwrap_or("somebody");
    let (handle, until) = (handle.expose_secret(), moment(*expire_time));
    let bound = if *certificate_bound { ", with one certificate" } else { "" };
    format!("{reference}  {handle}  until {until}, {uses}, by the {by}{bound}")
}

fn in_json(event: &LeaseEvent) -> Value {
    match event {
        LeaseEvent::Issued(issued) => issued_in_json("issued", issued, None),
        LeaseEvent::Renewed { issued, previous_handle_id } => {
            issued_in_json("renewed", issued, Some(previous_handle_id))
        }
        LeaseEvent::Refused(Refused { reference, reason, message, record_id }) => json!({
            "event": "refused", "reference": reference, "reason": reason, "message": message,
            "record_id": record_id,
        }),
        LeaseEvent::Revoked { reference, handle_id, cause } => {
            json!({"event": "revoked", "reference": reference, "handle_id": handle_id, "cause": word(*cause)})
        }
        LeaseEvent::Draining { end_time } => json!({"event": "draining", "end_time": moment(*end_time)}),
        LeaseEvent::Ended(cause) => json!({"event": "ended", "cause": word(*cause)}),
        _ => json!({"event": "unknown"}),
    }
}

fn issued_in_json(event: &str, issued: &Issued, previous_handle_id: Option<&str>) -> Value {
    let Issued { reference, handle, handle_id, expire_time, uses, redeemer, record_id, certificate_bound } =
        issued;
    json!({
        "event": event,
        "reference": reference,
        "handle": handle.expose_secret(),
        "handle_id": handle_id,
        "previous_handle_id": previous_handle_id,
        "expire_time": moment(*expire_time),
        "uses": uses,
        "redeemer": output::word(Some(redeemer.as_str_name()), "REDEEMER_"),
        "record_id": record_id,
        "certificate_bound": certificate_bound,
    })
}

pub(crate) fn word(cause: EndCause) -> String {
    output::word(Some(cause.as_str_name()), "END_CAUSE_").as_str().unwrap_or("an unknown cause").to_owned()
}

/// To the second: a life is not shorter than that.
fn moment(time: OffsetDateTime) -> String {
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}
