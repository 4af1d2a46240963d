use serde_json::{Value, json};

use super::*;
use crate::item::{FieldKind, FieldOutline, ItemState};
use crate::json::{Faults, Node};
use crate::sdk::answer::{content_json, read_json};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaa1";

/// Reads an answer; a failure as what it says.
fn reading<T>(json: &Value, read: fn(&mut Faults, Node) -> T) -> Result<T, String> {
    read_json(json.to_string().as_bytes(), read).map_err(|error| format!("{error:?}"))
}

fn with(keys: Value) -> Value {
    let mut item = json!({
        "id": ID, "title": "github", "category": "Login", "vaultId": ID, "version": 7, "tags": ["x"],
        "fields": [], "sections": [], "notes": "", "websites": [], "files": [], "document": null,
        "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "later": { "added": true },
    });
    for (key, value) in keys.as_object().unwrap() {
        item[key] = value.clone();
    }
    item
}

/// The one field of an item, as id, label, section and kind, with its value.
fn field(field: Value) -> Result<(FieldOutline, String), String> {
    let sections = json!([{ "id": "sec1", "title": "Admin" }]);
    let (outline, values) = reading(&with(json!({ "fields": [field], "sections": sections })), item)?;
    let outline = outline.fields.into_iter().next().ok_or("no field")?;
    let value = values.by_field.get(&outline.id).map_or(&b"none"[..], SecretValue::expose_secret);
    Ok((outline, String::from_utf8_lossy(value).into()))
}

#[test]
fn kinds_of_fields() {
    let check = |kind: &str, details: Value, id: &str, expected: FieldKind| {
        let (outline, value) = field(json!({
            "id": id, "title": "T", "sectionId": "sec1", "fieldType": kind, "value": "a \"value\"",
            "details": details,
        }))
        .unwrap();
        assert_eq!(
            (outline.kind, &*outline.label, outline.section.as_deref()),
            (expected, "T", Some("sec1"))
        );
        assert_eq!((&*outline.id, &*value), (id, "a \"value\""));
    };
    use FieldKind::*;
    check("Text", Value::Null, "f", Plain);
    check("Concealed", Value::Null, "f", Plain);
    check("Unsupported", Value::Null, "f", Plain);
    check("Tomorrow's", json!({ "type": "Tomorrow's" }), "f", Plain);
    check(
        "Totp",
        json!({ "type": "Otp", "content": { "code": "1", "errorMessage": null } }),
        "f",
        OneTimePassword,
    );
    check("totp", Value::Null, "f", OneTimePassword);
    // A seed is a seed, whatever else is said of it.
    check("Text", json!({ "type": "Otp" }), "f", OneTimePassword);
    check("Totp", Value::Null, "notesPlain", OneTimePassword);
    check("Text", Value::Null, "notesPlain", Notes);
    check("SshKey", Value::Null, "f", PrivateKey);
    check("Concealed", json!({ "type": "SshKey", "content": null }), "f", PrivateKey);
}

#[test]
fn a_field_without_section_or_value() {
    let (outline, value) =
        field(json!({ "id": "f", "title": "", "sectionId": null, "fieldType": "Text", "value": "" }))
            .unwrap();
    assert_eq!((outline.section, &*value), (None, ""));
    let (outline, value) = field(json!({ "id": "f", "sectionId": "", "fieldType": "Text" })).unwrap();
    assert_eq!((outline.section, &*value), (None, ""));
}

#[test]
fn notes_keys_and_files_are_fields() {
    let key = json!({ "publicKey": "ssh-ed25519 AAAA", "fingerprint": "SHA256:x", "keyType": "Ed25519" });
    let (outline, values) = reading(
        &with(json!({
            "notes": "two\nlines",
            "sections": [{ "id": "", "title": "" }, { "id": "s", "title": "S" }],
            "fields": [{
                "id": "private_key", "title": "private key", "fieldType": "SshKey", "value": "PEM",
                "details": { "type": "SshKey", "content": key },
            }],
            "files": [{
                "attributes": { "name": "a.txt", "id": "file1", "size": 3 }, "sectionId": "s", "fieldId": "x",
            }],
            "document": { "name": "b.txt", "id": "file2", "size": 4 },
        })),
        item,
    )
    .unwrap();
    let shown: Vec<_> = outline
        .fields
        .iter()
        .map(|FieldOutline { id, label, section, kind }| {
            let value = values.by_field.get(id).map(|value| String::from_utf8_lossy(value.expose_secret()));
            format!(
                "{id}|{label}|{}|{kind:?}|{}",
                section.as_deref().unwrap_or("-"),
                value.as_deref().unwrap_or("-")
            )
        })
        .collect();
    let expected = [
        "private_key|private key|-|PrivateKey|PEM",
        "public_key|public key|-|Plain|ssh-ed25519 AAAA",
        "fingerprint|fingerprint|-|Plain|SHA256:x",
        "key_type|key type|-|Plain|Ed25519",
        "notesPlain|notesPlain|-|Notes|two\nlines",
        "file1|a.txt|s|File|-",
        "file2|b.txt|-|File|-",
    ];
    assert_eq!(shown, expected);
    assert_eq!(values.version, Some(7));
}

#[test]
fn a_field_that_no_reference_can_name_has_no_value() {
    let (outline, value) =
        field(json!({ "id": "user[email]", "title": "t", "fieldType": "Text", "value": "v" })).unwrap();
    // Its label still makes another's ambiguous.
    assert_eq!((&*outline.id, &*outline.label, &*value), ("user[email]", "t", "none"));
}

#[test]
fn what_matters_must_have_its_form() {
    let check = |keys: Value, expected: &str| {
        let error = reading(&with(keys), item).map(drop).unwrap_err();
        assert!(error.contains(expected) && !error.contains("SECRETPART"), "{error}");
    };
    check(json!({ "id": "../SECRETPART" }), "`id` must be 26 characters");
    check(json!({ "id": null }), "`id` is missing");
    check(json!({ "vaultId": "SECRETPART" }), "`vaultId` must be 26");
    check(json!({ "title": null }), "`title` is missing");
    check(json!({ "version": "SECRETPART" }), "`version` must be an unsigned integer");
    check(json!({ "fields": "SECRETPART" }), "`fields` must be a list");
    check(json!({ "fields": ["SECRETPART"] }), "`fields[0]` must be an object");
    let of = |fields: Value| json!({ "fields": fields, "sections": [{ "id": "s", "title": "S" }] });
    check(of(json!([{ "fieldType": "Text", "value": "SECRETPART" }])), "`fields[0].id` is missing");
    check(of(json!([{ "id": "f", "value": "SECRETPART" }])), "`fields[0].fieldType` is missing");
    check(
        of(json!([{ "id": "f", "fieldType": "Text", "value": ["SECRETPART"] }])),
        "`fields[0].value` must be a text",
    );
    let field = json!({ "id": "f", "fieldType": "Text", "value": "SECRETPART" });
    check(of(json!([field, field])), "`fields[1].id` is given to more than one thing");
    let field = json!({ "id": "f", "fieldType": "Text", "sectionId": "t" });
    check(of(json!([field])), "`fields[0].sectionId` is the id of no section");
    check(json!({ "notes": 1 }), "`notes` must be a text");
    check(json!({ "notes": "x".repeat((1 << 20) + 1) }), "`notes` is too long");
    check(json!({ "files": [{ "sectionId": "" }] }), "`files[0].attributes` is missing");
    check(json!({ "document": { "id": "d" } }), "`document.name` is missing");
    check(json!({ "fields": vec![json!({}); 1_001] }), "`fields` has too many elements");
}

#[test]
fn vaults_and_items_of_a_list() {
    let listed =
        reading(&json!([{ "id": ID, "title": "agents", "description": "", "new": 1 }]), vaults).unwrap();
    assert!(matches!(listed.as_slice(), [Vault { id, name }] if (&**id, &**name) == (ID, "agents")));
    let states = |state: &str| {
        let listed = reading(&json!([{ "id": ID, "title": "", "state": state }]), items)?;
        Ok::<_, String>(listed.into_iter().next().ok_or("none")?.state)
    };
    assert_eq!(states("active"), Ok(ItemState::Active));
    assert_eq!(states("archived"), Ok(ItemState::Inactive));
    assert_eq!(states("tomorrow's"), Ok(ItemState::Inactive));
    assert!(states("").unwrap_err().contains("`[0].state` must not be empty"));
    let odd = json!([
        { "id": "SECRETPART", "title": "a" }, { "id": ID, "title": "x".repeat(1_025) },
        { "id": ID, "title": "Two\nlines" }, 7,
    ]);
    let listed = reading(&odd, vaults).unwrap();
    assert!(
        matches!(listed.as_slice(), [Vault { id, name }] if (&**id, &**name) == (ID, "Two\\u{a}lines")),
        "what cannot be read is left out, and takes nothing with it"
    );
    let twice = json!([{ "id": ID, "title": "a" }, { "id": ID, "title": "b" }]);
    assert!(reading(&twice, vaults).map(drop).unwrap_err().contains("`[1].id` is given to more than one"));
    assert!(reading(&json!({}), vaults).map(drop).unwrap_err().contains("must be a list"));
    assert!(
        read_json(b"SECRETPART", vaults).is_err_and(|error| !format!("{error:?}").contains("SECRETPART"))
    );
    assert!(read_json(&vec![b' '; (8 << 20) + 1], vaults).is_err());
}

#[test]
fn bytes_of_a_file() {
    let check = |json: &str, expected: Option<&[u8]>| {
        let found = content_json(json.as_bytes()).ok();
        assert_eq!(found.as_ref().map(SecretValue::expose_secret), expected, "{json}");
    };
    check("[]", Some(b""));
    check("[0,255,10]", Some(&[0, 255, 10]));
    check(" [ 1 , 2 ] ", Some(&[1, 2]));
    for bad in ["", "[", "1", "[256]", "[-1]", "[1.0]", "[1,]", "[,]", "[\"a\"]", "[1] 2", "[[1]]", "{}"] {
        check(bad, None);
    }
    let long = format!("[{}]", vec!["1"; (1 << 20) + 1].join(","));
    let error = content_json(long.as_bytes()).map(drop).unwrap_err().error;
    assert_eq!(error, ResolveError::UnsupportedFileFormat);
}
