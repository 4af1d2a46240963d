//! `valetkey check`: would it be granted?

use valetkey_client::{Access, CheckAccess};

use crate::cli::{CheckArgs, Format};
use crate::connection::connect_for;
use crate::failure::{Exit, Failure};
use crate::output;

/// Runs it.
pub(crate) async fn run(args: CheckArgs) -> Result<Exit, Failure> {
    let CheckArgs { tool, reference, ttl, session, destination, on_behalf_of, format, connection } = args;
    let broker = connect_for(&connection, on_behalf_of.as_deref()).await?;
    let request = CheckAccess { tool, reference: reference.clone(), ttl, session, destination };
    let Access { allowed, advice, record_id, ttl_max, uses, redeemer, certificate_bound, approval_required } =
        broker.check(request).await?;
    let row = vec![
        ("decision", if allowed { "allow" } else { "deny" }.into()),
        ("reference", reference.into()),
        ("ttl_max_seconds", ttl_max.map(|life| life.as_secs()).into()),
        ("uses", allowed.then_some(uses).into()),
        ("redeemer", output::word(allowed.then_some(redeemer.as_str_name()), "REDEEMER_")),
        ("certificate_bound", allowed.then_some(certificate_bound).into()),
        ("approval_required", allowed.then_some(approval_required).into()),
        ("advice", (!advice.is_empty()).then_some(advice).into()),
        ("record_id", record_id.into()),
    ];
    match format {
        Format::Table => output::text(&output::record(&row))?,
        Format::Json | Format::Jsonl | Format::Csv => output::rows(format, &[], &[row])?,
    }
    Ok(if allowed { Exit::Done } else { Exit::Denied })
}
