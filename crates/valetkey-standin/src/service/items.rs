//! From Connect's `FullItem` to what the service holds: an overview and details, each sealed for its vault.

use anyhow::{Context as _, Result};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::account::{USER, jwk, key, vault_key};
use super::seal::{Key, seal, seal_bytes};
use crate::world::text;

/// An item as in a vault's list.
pub(super) fn overview(item: &Value) -> Result<Map<String, Value>> {
    let vault_id = text(item, "/vault/id");
    let urls: Vec<_> = list(item, "urls")
        .iter()
        .map(|url| json!({ "l": text(url, "/label"), "u": text(url, "/href") }))
        .collect();
    let plain = json!({
        "title": text(item, "/title"),
        "url": text(item, "/urls/0/href"),
        "URLs": urls,
        "tags": list(item, "tags"),
    });
    let time = |pointer| Some(text(item, pointer)).filter(|time| !time.is_empty()).unwrap_or(TIME);
    let overview = json!({
        "uuid": text(item, "/id"),
        "templateUuid": template(text(item, "/category")),
        // The service says of an archived item that it is in the trash.
        "trashed": if text(item, "/state") == "ARCHIVED" { "Y" } else { "N" },
        "createdAt": time("/createdAt"),
        "updatedAt": time("/updatedAt"),
        "changerUuid": USER,
        "itemVersion": item.get("version").and_then(Value::as_u64).unwrap_or(1),
        "faveIndex": 0,
        "encryptedBy": vault_id,
        "encOverview": seal(&vault_key(vault_id), vault_id, &plain)?,
    });
    overview.as_object().cloned().context("an overview is an object")
}

/// An item with its details.
pub(super) fn whole(item: &Value) -> Result<Map<String, Value>> {
    let vault_id = text(item, "/vault/id");
    let mut whole = overview(item)?;
    whole.insert("encDetails".into(), seal(&vault_key(vault_id), vault_id, &details(item)?)?);
    Ok(whole)
}

/// The file with this id, as it is stored.
pub(super) fn file(item: &Value, file_id: &str) -> Option<Result<Vec<u8>>> {
    let file = list(item, "files").iter().find(|file| text(file, "/id") == file_id)?;
    Some(content(file).and_then(|content| stored(file, &content)))
}

/// Built-in fields have places of their own; all other fields, and files, are in sections.
fn details(item: &Value) -> Result<Value> {
    let (mut fields, mut notes, mut password) = (Vec::new(), "", None);
    let mut others = Vec::new();
    for field in list(item, "fields") {
        match (text(item, "/category"), text(field, "/purpose")) {
            (_, "NOTES") => notes = text(field, "/value"),
            ("LOGIN", "USERNAME") => fields.push(built_in(field, "username", "T")),
            ("LOGIN", "PASSWORD") => fields.push(built_in(field, "password", "P")),
            ("PASSWORD", "PASSWORD") => password = Some(text(field, "/value")),
            // The core makes it out of the private key.
            ("SSH_KEY", _) if is_public_key(field) => {}
            _ => others.push((text(field, "/section/id"), in_section(item, field))),
        }
    }
    let (document, files) = match list(item, "files") {
        [document, files @ ..] if text(item, "/category") == "DOCUMENT" => {
            (Some(attributes(document)?), files)
        }
        files => (None, files),
    };
    for file in files {
        others.push((text(file, "/section/id"), file_in_section(file)?));
    }
    let mut details = json!({ "fields": fields, "notesPlain": notes, "sections": sections(item, others) });
    let extra = [("password", password.map(Value::from)), ("documentAttributes", document)];
    if let Some(details) = details.as_object_mut() {
        details.extend(extra.into_iter().filter_map(|(name, value)| Some((name.into(), value?))));
    }
    Ok(details)
}

/// The sections with their fields. Fields that Connect lists outside of any are in one without a title.
fn sections(item: &Value, fields: Vec<(&str, Value)>) -> Vec<Value> {
    let untitled = fields.iter().any(|(section, _)| section.is_empty()).then_some(("", ""));
    let titled = list(item, "sections").iter().map(|section| (text(section, "/id"), text(section, "/label")));
    untitled
        .into_iter()
        .chain(titled)
        .map(|(id, title)| {
            let inside: Vec<_> =
                fields.iter().filter(|(section, _)| *section == id).map(|(_, field)| field).collect();
            json!({ "name": id, "title": title, "fields": inside })
        })
        .collect()
}

fn built_in(field: &Value, designation: &str, kind: &str) -> Value {
    json!({
        "name": text(field, "/id"),
        "designation": designation,
        "type": kind,
        "value": text(field, "/value"),
    })
}

fn in_section(item: &Value, field: &Value) -> Value {
    let (id, value) = (text(field, "/id"), text(field, "/value"));
    let number = || value.parse().map_or_else(|_| Value::from(value), |number: u64| number.into());
    let (kind, value) = match text(field, "/type") {
        "CONCEALED" | "TOTP" => ("concealed", value.into()),
        "EMAIL" => ("email", value.into()),
        "URL" => ("URL", value.into()),
        "MENU" => ("menu", value.into()),
        "PHONE" => ("phone", value.into()),
        "DATE" if number().is_u64() => ("date", number()),
        "MONTH_YEAR" if number().is_u64() => ("monthYear", number()),
        "SSHKEY" => ("sshKey", value.into()),
        _ => ("string", value.into()),
    };
    // What makes a one-time password is the beginning of its field's id.
    let totp = text(field, "/type") == "TOTP" && !id.starts_with(TOTP_PREFIX);
    let id = if totp { format!("{TOTP_PREFIX}{id}") } else { id.into() };
    let mut inside = json!({ "k": kind, "n": id, "t": text(field, "/label"), "v": value });
    if let Some(inside) = inside.as_object_mut().filter(|_| kind == "sshKey") {
        inside.insert("a".into(), json!({ "sshKeyAttributes": ssh_key(item, field) }));
    }
    inside
}

/// What the service keeps beside a private key; the item's public key says it all.
fn ssh_key(item: &Value, field: &Value) -> Value {
    let public = list(item, "fields").iter().find(|field| is_public_key(field));
    let public = public.map_or("", |field| text(field, "/value"));
    let mut parts = public.split(' ');
    let algorithm = parts.next().unwrap_or_default().trim_start_matches("ssh-");
    let blob = parts.next().and_then(|blob| BASE64.decode(blob.as_bytes()).ok()).unwrap_or_default();
    json!({
        "privateKey": text(field, "/value"),
        "publicKey": public,
        "fingerprint": format!("SHA256:{}", BASE64_NOPAD.encode(&Sha256::digest(blob))),
        "keyType": { "t": algorithm },
    })
}

fn is_public_key(field: &Value) -> bool {
    text(field, "/label") == "public key"
}

fn file_in_section(file: &Value) -> Result<Value> {
    Ok(json!({ "k": "file", "n": text(file, "/id"), "t": text(file, "/name"), "v": attributes(file)? }))
}

/// All that it takes to fetch a file and to open it.
fn attributes(file: &Value) -> Result<Value> {
    let (id, content) = (text(file, "/id"), content(file)?);
    let stored = stored(file, &content)?;
    Ok(json!({
        "fileName": text(file, "/name"),
        "documentId": id,
        "unencryptedSize": content.len(),
        "encryptedSize": stored.len(),
        "integrityHash": BASE64URL_NOPAD.encode(&Sha256::digest(&stored)),
        "nonce": BASE64URL_NOPAD.encode(&FILE_NONCE),
        "encryptionKey": jwk(&file_key(file), id),
    }))
}

fn content(file: &Value) -> Result<Vec<u8>> {
    BASE64.decode(text(file, "/content").as_bytes()).context("the content of a file is base64")
}

fn stored(file: &Value, content: &[u8]) -> Result<Vec<u8>> {
    seal_bytes(&file_key(file), &FILE_NONCE, content)
}

/// A key of the content, so that the nonce may stay the same.
fn file_key(file: &Value) -> Key {
    key("file", text(file, "/content"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The number of a category, as in the export format that 1Password documents (1PUX).
fn template(category: &str) -> &'static str {
    match category {
        "LOGIN" => "001",
        "CREDIT_CARD" => "002",
        "SECURE_NOTE" => "003",
        "IDENTITY" => "004",
        "PASSWORD" => "005",
        "DOCUMENT" => "006",
        "SOFTWARE_LICENSE" => "100",
        "BANK_ACCOUNT" => "101",
        "DATABASE" => "102",
        "DRIVER_LICENSE" => "103",
        "OUTDOOR_LICENSE" => "104",
        "MEMBERSHIP" => "105",
        "PASSPORT" => "106",
        "REWARD_PROGRAM" => "107",
        "SOCIAL_SECURITY_NUMBER" => "108",
        "WIRELESS_ROUTER" => "109",
        "SERVER" => "110",
        "EMAIL_ACCOUNT" => "111",
        "API_CREDENTIAL" => "112",
        "MEDICAL_RECORD" => "113",
        "SSH_KEY" => "114",
        "CRYPTO_WALLET" => "115",
        _ => "999",
    }
}

/// When everything was made that does not say.
pub(super) const TIME: &str = "2026-01-01T00:00:00Z";

const TOTP_PREFIX: &str = "TOTP_";
const FILE_NONCE: [u8; 12] = [0; 12];
