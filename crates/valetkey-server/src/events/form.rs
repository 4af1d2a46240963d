//! Records in the form of the Events API: fields and words as 1Password publishes them, and no others.
//!
//! docs/events-api.md has the tables.

mod audit;
mod signin;
mod usage;

use std::net::IpAddr;

use data_encoding::BASE32_NOPAD;
use serde_json::{Value, json};
use valetkey_audit::StoredRecord;

use super::Feature;
use crate::digest::sha256;

/// Of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// What a record becomes; `None` where it is no event of this sort.
pub(crate) fn event(feature: Feature, version: Version, record: &StoredRecord, host: &str) -> Option<Value> {
    match feature {
        Feature::ItemUsages => usage::usage(record, host),
        Feature::AuditEvents => audit::event(version, record, host),
        Feature::SignInAttempts => signin::attempt(record, host),
    }
}

/// An id in 1Password's form, 26 characters: the same for the same parts, whichever broker makes it.
pub(crate) fn uuid(parts: &[&str]) -> String {
    let hash = sha256(parts.join("\n").as_bytes());
    BASE32_NOPAD.encode(hash.first_chunk::<16>().map_or(&[][..], |bytes| bytes.as_slice()))
}

/// An event's own id. Two brokers count their records alike, so their hosts tell them apart.
fn event_uuid(record: &StoredRecord, host: &str) -> String {
    uuid(&["record", host, &record.id.to_string(), &record.time.to_string()])
}

/// The id of somebody, `agent:travel-bot` and the like.
fn principal_uuid(who: &str) -> String {
    uuid(&["principal", who])
}

/// Somebody as a user; nobody has an address.
fn user(who: Option<&str>) -> Value {
    let id = who.map(principal_uuid).unwrap_or_default();
    let name = who.map(|who| who.split_once(':').map_or(who, |(_, name)| name)).unwrap_or_default();
    json!({"uuid": id, "name": name, "email": ""})
}

/// What a client said of itself, and where it was.
struct Client<'a> {
    name: &'a str,
    version: &'a str,
    address: String,
}

impl<'a> Client<'a> {
    /// From `name/version more address`, as records have it.
    fn of(record: &'a StoredRecord) -> Self {
        let text = record.client.as_deref().unwrap_or_default();
        let (said, place) = text.rsplit_once(' ').unwrap_or(("", text));
        let (said, address) = match place.parse::<IpAddr>() {
            Ok(address) => (said, address.to_string()),
            Err(_) => (text, String::new()),
        };
        let program = said.split(' ').next().unwrap_or_default();
        let (name, version) = program.split_once('/').unwrap_or((program, ""));
        Self { name, version, address }
    }

    /// With the program that it is of.
    fn print(&self, (app_name, app_version): (&str, &str)) -> Value {
        let Self { name, version, address } = self;
        json!({
            "app_name": app_name, "app_version": app_version, "platform_name": name, "platform_version": version,
            "os_name": "", "os_version": "", "ip_address": address,
        })
    }
}

#[cfg(test)]
mod tests;
