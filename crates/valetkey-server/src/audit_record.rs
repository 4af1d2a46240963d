//! Prints what is stored in the log.

use valetkey_audit::{StoredOutcome, StoredRecord, StoredTarget};
use valetkey_core::Ruling;
use valetkey_proto::v1;

use crate::convert::{duration, redeemer, timestamp};

/// Prints a record.
pub(crate) fn print(record: StoredRecord) -> v1::AuditRecord {
    let StoredRecord {
        id,
        time,
        kind,
        ruling,
        reason,
        request,
        trace,
        credential,
        on_behalf_of,
        caller,
        client,
        agent,
        tool,
        reference,
        target,
        policies,
        revision,
        session,
        destination,
        lease,
        handle,
        ttl,
        uses,
        redeemer: who,
        purpose,
        detail,
        outcome,
    } = record;
    v1::AuditRecord {
        record_id: id.to_string(),
        create_time: Some(timestamp(time)),
        kind: kind.as_str().to_owned(),
        decision: decision(ruling).into(),
        reason: reason.as_str().to_owned(),
        detail: detail.unwrap_or_default(),
        caller: caller.unwrap_or_default(),
        agent: agent.unwrap_or_default(),
        tool: tool.unwrap_or_default(),
        reference: reference.unwrap_or_default(),
        target: target.map(print_target),
        policy_ids: policies,
        policy_revision: revision.unwrap_or_default(),
        purpose: purpose.unwrap_or_default(),
        session: session.unwrap_or_default(),
        destination: destination.unwrap_or_default(),
        lease_id: lease.unwrap_or_default(),
        handle_id: handle.unwrap_or_default(),
        ttl: ttl.and_then(duration),
        uses: uses.unwrap_or_default(),
        redeemer: who.map_or(v1::Redeemer::Unspecified, redeemer).into(),
        request_id: request.unwrap_or_default(),
        trace_id: trace.unwrap_or_default(),
        client: client.unwrap_or_default(),
        outcome: outcome.map(print_outcome),
        credential: credential.unwrap_or_default(),
        on_behalf_of: on_behalf_of.unwrap_or_default(),
    }
}

fn print_target(target: StoredTarget) -> v1::AuditTarget {
    let StoredTarget { vault_id, vault_name, item_id, item_name, field_id, error } = target;
    v1::AuditTarget {
        vault_id: vault_id.unwrap_or_default(),
        item_id: item_id.unwrap_or_default(),
        field_id: field_id.unwrap_or_default(),
        vault_name: vault_name.unwrap_or_default(),
        item_name: item_name.unwrap_or_default(),
        error: error.unwrap_or_default(),
    }
}

fn print_outcome(outcome: StoredOutcome) -> v1::AuditOutcome {
    let StoredOutcome { time, result, reason, source, item_version, value_age, detail, value_digest } =
        outcome;
    v1::AuditOutcome {
        create_time: Some(timestamp(time)),
        result: result.as_str().to_owned(),
        reason: reason.unwrap_or_default(),
        detail: detail.unwrap_or_default(),
        source: source.unwrap_or_default(),
        item_version: item_version.unwrap_or_default(),
        value_age: value_age.and_then(duration),
        value_digest: value_digest.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

fn decision(ruling: Ruling) -> v1::Decision {
    match ruling {
        Ruling::Allow => v1::Decision::Allow,
        Ruling::Deny => v1::Decision::Deny,
        Ruling::Event => v1::Decision::Unspecified,
    }
}
