use std::time::Duration;

use serde_json::{Value, json};
use valetkey_core::testing::{FakeClock, reference, request};
use valetkey_core::{AccessRequest, Facet, RecordId};

use super::*;

const TRAVEL: &[u8] = include_bytes!("../../../../examples/travel/vault.json");
const VAULT: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvv";
const ITEM: &str = "iiiiiiiiiiiiiiiiiiiiiiiiii";

fn open(json: &[u8]) -> Result<VaultFile, VaultFileError> {
    VaultFile::from_json(json.to_vec(), Arc::new(FakeClock::default()))
}

/// A file of one item, with `change` made to it.
fn file(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut file = json!({
        "vaults": [{"id": VAULT, "name": "Main"}],
        "items": [{
            "id": ITEM, "title": "Thing", "vault": {"id": VAULT}, "category": "LOGIN", "version": 7,
            "sections": [{"id": "sec1", "label": "Admin"}, {"id": "sec2"}],
            "fields": [
                {"id": "password", "type": "CONCEALED", "purpose": "PASSWORD", "label": "password", "value": "canary-1"},
                {"id": "empty", "type": "STRING", "label": "empty", "section": {"id": "sec1"}},
            ],
            "files": [{"id": "file1", "name": "key.txt", "content": "Y2FuYXJ5LTI="}],
        }],
    });
    change(&mut file);
    serde_json::to_vec(&file).unwrap()
}

/// What resolving a reference gives: the value, or the error's code.
async fn read(vault: &VaultFile, text: &str) -> Result<String, &'static str> {
    let target = Arc::new(vault.locate(&reference(text)).target);
    let grant = Grant::for_test(AccessRequest { target, ..request(text) }, RecordId(1));
    let answer = vault.resolve(&[&grant]).await.pop().unwrap();
    answer
        .map(|it| String::from_utf8(it.value.expose_secret().into()).unwrap())
        .map_err(|failure| failure.error.code())
}

#[tokio::test]
async fn the_travel_story_can_be_read() {
    let clock = FakeClock::default();
    let vault = VaultFile::from_json(TRAVEL.to_vec(), Arc::new(clock.clone())).unwrap();
    let check =
        async |text: &str, value: &str| assert_eq!(read(&vault, text).await.as_deref(), Ok(value), "{text}");
    check("op://Tutorial/Navan/username", "demo-navan-user@travel.example").await;
    check("op://Tutorial/Navan/password", "demo-navan-password-7f3a91").await;
    check("op://tutorial/navan/notes", "demo-navan-notes: book economy only").await;
    check("op://Tutorial/Ramp/username", "demo-ramp-user@travel.example").await;
    check("op://Tutorial/Ramp/password", "demo-ramp-password-c20d58").await;
    check("op://Tutorial/Travel Card/number", "4111111111111111").await;
    check("op://Tutorial/Travel Card/expiry date", "demo-expiry-203112").await;
    check("op://Tutorial/Travel Card/expiry", "demo-expiry-203112").await;
    check("op://Tutorial/Travel Card/cvv", "demo-cvv-4471").await;
    check("op://Tutorial/Travel Card/verification number", "demo-cvv-4471").await;
    let seed = read(&vault, "op://Tutorial/Navan/Security/one-time password").await.unwrap();
    assert!(seed.starts_with("otpauth://totp/Navan"));

    let otp = "op://Tutorial/Navan/one-time password?attribute=otp";
    let code = read(&vault, otp).await.unwrap();
    assert!(code.len() == 6 && code.bytes().all(|c| c.is_ascii_digit()), "{code}");
    clock.advance(Duration::from_secs(30));
    assert_ne!(read(&vault, otp).await.unwrap(), code, "the code goes with the clock");
}

#[test]
fn values_of_the_example_can_be_told_apart() {
    let example: Value = serde_json::from_slice(TRAVEL).unwrap();
    let items = example["items"].as_array().unwrap().iter();
    let fields = items.flat_map(|item| item["fields"].as_array().unwrap());
    let values: Vec<_> = fields.map(|field| field["value"].as_str().unwrap()).collect();
    for (at, value) in values.iter().enumerate() {
        let found =
            values.iter().enumerate().filter(|(other, text)| *other != at && text.contains(value)).count();
        assert!(found == 0 && value.len() > 12, "{value}");
    }
}

#[tokio::test]
async fn answers_keep_the_order_of_the_grants() {
    let vault = open(&file(|_| ())).unwrap();
    let grant = |text: &str| {
        let target = Arc::new(vault.locate(&reference(text)).target);
        Grant::for_test(AccessRequest { target, ..request(text) }, RecordId(1))
    };
    let grants = [
        grant("op://main/thing/none"),
        grant("op://main/thing/key.txt"),
        grant("op://main/thing/admin/empty"),
    ];
    let answers = vault.resolve(&grants.iter().collect::<Vec<_>>()).await;
    let shown: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Ok(Resolved { value, provenance: Provenance { source, item_version, read_time: _ } }) => {
                Ok((value.expose_secret(), &**source, *item_version))
            }
            Err(failure) => Err(failure.error.clone()),
        })
        .collect();
    let expected = [
        Err(ResolveError::FieldNotFound),
        Ok((b"canary-2".as_slice(), "embedded", Some(7))),
        Ok((b"".as_slice(), "embedded", Some(7))),
    ];
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn what_is_fetched_stands_in_the_target_alone() {
    let vault = open(TRAVEL).unwrap();
    let target = Arc::new(vault.locate(&reference("op://Tutorial/Ramp/password")).target);
    let misleading = AccessRequest { target, ..request("op://Production/Database/password") };
    let grant = Grant::for_test(misleading, RecordId(1));
    let answer = vault.resolve(&[&grant]).await.pop().unwrap();
    assert_eq!(
        answer.ok().map(|it| it.value.expose_secret().to_vec()),
        Some(b"demo-ramp-password-c20d58".to_vec())
    );
}

#[tokio::test]
async fn error_kinds() {
    let change = |file: &mut Value| {
        file["items"][0]["files"][0]["content"] = json!("//79");
        file["items"][0]["fields"][1] =
            json!({"id": "totp", "type": "TOTP", "label": "code", "value": "not a seed!"});
        let mut archived = file["items"][0].clone();
        archived["id"] = json!("jjjjjjjjjjjjjjjjjjjjjjjjjj");
        archived["title"] = json!("Old");
        archived["state"] = json!("ARCHIVED");
        let mut trashed = archived.clone();
        trashed["id"] = json!("kkkkkkkkkkkkkkkkkkkkkkkkkk");
        trashed["trashed"] = json!(true);
        trashed.as_object_mut().unwrap().remove("state");
        file["items"].as_array_mut().unwrap().extend([archived, trashed]);
    };
    let vault = open(&file(change)).unwrap();
    let check =
        async |text: &str, code: &'static str| assert_eq!(read(&vault, text).await, Err(code), "{text}");
    check("op://none/thing/password", "VAULT_NOT_FOUND").await;
    check("op://main/none/password", "ITEM_NOT_FOUND").await;
    check("op://main/old/password", "ITEM_NOT_FOUND").await;
    check("op://main/jjjjjjjjjjjjjjjjjjjjjjjjjj/password", "ITEM_NOT_ACTIVE").await;
    check("op://main/kkkkkkkkkkkkkkkkkkkkkkkkkk/password", "ITEM_NOT_ACTIVE").await;
    check("op://main/thing/none/password", "SECTION_NOT_FOUND").await;
    check("op://main/thing/none", "FIELD_NOT_FOUND").await;
    check("op://main/thing/password?attribute=otp", "FIELD_NOT_OTP").await;
    check("op://main/thing/code?attribute=otp", "OTP_SEED_MALFORMED").await;
    check("op://main/thing/password?ssh-format=openssh", "FIELD_NOT_PRIVATE_KEY").await;
    check("op://main/thing/key.txt", "FILE_NOT_TEXT").await;
}

#[tokio::test]
async fn a_private_key_is_one_by_its_category_and_its_name() {
    let field = json!({"id": "private_key", "type": "STRING", "label": "private key", "value": "no key"});
    let with = |category: &'static str, field: Value| {
        open(&file(move |file| {
            file["items"][0]["category"] = json!(category);
            file["items"][0]["fields"][1] = field;
        }))
        .unwrap()
    };
    let text = "op://main/thing/private key?ssh-format=openssh";
    assert_eq!(read(&with("SSH_KEY", field.clone()), text).await, Err("PRIVATE_KEY_MALFORMED"));
    assert_eq!(read(&with("LOGIN", field.clone()), text).await, Err("FIELD_NOT_PRIVATE_KEY"));
    let mut public = field;
    public["id"] = json!("public_key");
    public["label"] = json!("public key");
    let text = "op://main/thing/public key?ssh-format=openssh";
    assert_eq!(read(&with("SSH_KEY", public), text).await, Err("FIELD_NOT_PRIVATE_KEY"));
}

#[tokio::test]
async fn a_seed_stays_a_seed_whatever_stands_beside_it() {
    for purpose in ["NOTES", "PASSWORD"] {
        let vault = open(&file(|file| {
            file["items"][0]["category"] = json!("SSH_KEY");
            file["items"][0]["fields"][1] = json!({"id": "private_key", "type": "TOTP", "purpose": purpose});
        }))
        .unwrap();
        let target = vault.locate(&reference("op://main/thing/private_key")).target;
        assert_eq!(target.field().map(|field| field.facet), Some(Facet::Seed), "{purpose}");
    }
}

#[tokio::test]
async fn field_types_that_servers_send() {
    let with = |kind: &'static str| {
        open(&file(move |file| {
            file["items"][0]["fields"][1] =
                json!({"id": "f", "type": kind, "value": "GEZDGNBVGY3TQOJQ", "totp": "000000"});
        }))
        .unwrap()
    };
    for kind in ["OTP", "TOTP", "Otp", "totp"] {
        let vault = with(kind);
        let facet = |text: &str| vault.locate(&reference(text)).target.field().map(|field| field.facet);
        assert_eq!(facet("op://main/thing/f"), Some(Facet::Seed), "{kind}");
        assert_eq!(facet("op://main/thing/f?attribute=otp"), Some(Facet::Otp), "{kind}");
        let code = read(&vault, "op://main/thing/f?attribute=otp").await.unwrap();
        assert!(code.len() == 6 && code != "000000", "{kind}: {code}");
    }
    for kind in ["PHONE", "ADDRESS", "CREDIT_CARD_NUMBER", "SSHKEY", "something new"] {
        let vault = with(kind);
        assert_eq!(read(&vault, "op://main/thing/f").await.as_deref(), Ok("GEZDGNBVGY3TQOJQ"), "{kind}");
        assert_eq!(read(&vault, "op://main/thing/f?attribute=otp").await, Err("FIELD_NOT_OTP"), "{kind}");
    }
}

#[test]
fn all_faults_are_named_with_their_places() {
    let change = |file: &mut Value| {
        file["vaults"][0]["nmae"] = json!("canary-3");
        file["vaults"].as_array_mut().unwrap().push(json!({"id": VAULT, "name": ""}));
        let item = &mut file["items"][0];
        item["id"] = json!("SHOUTED");
        item["title"] = json!("two\nlines");
        item["vault"]["id"] = json!("wwwwwwwwwwwwwwwwwwwwwwwwww");
        item["category"] = json!("canary-4");
        item["version"] = json!("canary-5");
        item["state"] = json!("ACTIVE");
        item["sections"][1]["id"] = json!("sec1");
        item["fields"][0]["value"] = json!(5);
        item["fields"][0]["type"] = json!("");
        item["fields"][1] =
            json!({"id": "password", "section": {"id": "none"}, "purpose": "X", "generate": true});
        item["files"][0] = json!({"id": "a/b", "name": [], "content": "*canary-6*"});
    };
    let Err(VaultFileError::Faults(faults)) = open(&file(change)) else { panic!("was accepted") };
    let text: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let expected = [
        "`vaults[0].nmae` is no known key",
        "`vaults[1].id` is given to more than one thing",
        "`vaults[1].name` must not be empty",
        "`items[0].id` must be 26 characters of `a-z` and `0-9`",
        "`items[0].title` must not have control characters",
        "`items[0].state` is none of the values that the form allows",
        "`items[0].category` is none of the values that the form allows",
        "`items[0].version` must be an unsigned integer",
        "`items[0].sections[1].id` is given to more than one thing",
        "`items[0].fields[0].type` must not be empty",
        "`items[0].fields[0].value` must be a text",
        "`items[0].fields[1].id` is given to more than one thing",
        "`items[0].fields[1].section.id` is the id of no section of the item",
        "`items[0].fields[1].type` is missing",
        "`items[0].fields[1].purpose` is none of the values that the form allows",
        "`items[0].fields[1].generate` cannot be done here: give a value",
        "`items[0].files[0].id` must consist of letters, digits, blanks and `_` `.` `-`",
        "`items[0].files[0].name` must be a text",
        "`items[0].files[0].content` must be base64",
        "`items[0].vault.id` is the id of no vault of the file",
    ];
    assert_eq!(text, expected);
    let message = VaultFileError::Faults(faults).to_string();
    assert!(message.starts_with("the vault file has 20 faults: `vaults[0].nmae`"), "{message}");
    assert!(!message.contains("canary"), "{message}");
}

#[test]
fn every_key_of_the_form_is_accepted() {
    let change = |file: &mut Value| {
        let time = "2026-01-01T00:00:00Z";
        let vault = json!({"description": "", "attributeVersion": 1, "contentVersion": 2, "items": 1,
            "type": "USER_CREATED", "createdAt": time, "updatedAt": time});
        let item = json!({"urls": [{"href": "https://a.example", "primary": true}], "favorite": false, "tags": ["a"],
            "state": null, "trashed": false, "createdAt": time, "updatedAt": time, "lastEditedBy": "x"});
        let field = json!({"section": {"id": "sec1"}, "generate": false, "recipe": {"length": 9}, "entropy": 12.5, "totp": "123456"});
        let attached = json!({"size": 8, "content_path": "v1/x", "section": {"id": "sec1"}});
        let mut add = |pointer: &str, keys: Value| {
            let object = file.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
            object.extend(keys.as_object().unwrap().clone());
        };
        add("/vaults/0", vault);
        add("/items/0", item);
        add("/items/0/fields/0", field);
        add("/items/0/files/0", attached);
    };
    assert!(open(&file(change)).is_ok());
}

#[test]
fn bounds() {
    let faults = |change: fn(&mut Value)| match open(&file(change)) {
        Ok(_) => Vec::new(),
        Err(VaultFileError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(faults(|file| file["items"][0]["fields"][0]["value"] = json!("x".repeat(1 << 20))), none);
    let too_long = faults(|file| file["items"][0]["fields"][0]["value"] = json!("x".repeat((1 << 20) + 1)));
    assert_eq!(too_long, ["`items[0].fields[0].value` is too long"]);
    fn with_fields(file: &mut Value, count: usize) {
        file["items"][0]["fields"] =
            (0..count).map(|n| json!({"id": format!("f{n}"), "type": "STRING"})).collect();
    }
    assert_eq!(faults(|file| with_fields(file, 1_000)), none);
    assert_eq!(faults(|file| with_fields(file, 1_001)), ["`items[0].fields` has too many elements"]);
    fn with_items(file: &mut Value, count: usize) {
        let item =
            |n| json!({"id": format!("i{n:025}"), "title": "t", "vault": {"id": VAULT}, "category": "LOGIN"});
        file["items"] = (0..count).map(item).collect();
    }
    assert_eq!(faults(|file| with_items(file, 10_000)), none);
    assert_eq!(faults(|file| with_items(file, 10_001)), ["`items` has too many elements"]);
    let spaces = vec![b' '; (16 << 20) + 1];
    assert!(matches!(open(&spaces), Err(VaultFileError::TooLarge)));
    assert!(matches!(open(&spaces[1..]), Err(VaultFileError::Syntax { .. })));
}

#[test]
fn what_is_no_vault_file_is_refused_without_repeating_it() {
    for json in [
        "",
        "{\"vaults\":[canary]}",
        "{\"vaults\":[],\"items\":[]} canary",
        "\"canary",
        "{\"canary\":",
        "\u{1}",
    ] {
        let error = open(json.as_bytes()).err().map(|error| error.to_string()).unwrap();
        assert!(error.starts_with("the vault file is no JSON") && !error.contains("canary"), "{error}");
    }
    let deep = "[".repeat(1_000);
    assert!(matches!(open(deep.as_bytes()), Err(VaultFileError::Syntax { .. })));
    for json in ["null", "[]", "\"canary\"", "{}", "{\"vaults\":{},\"items\":7}"] {
        let Err(VaultFileError::Faults(faults)) = open(json.as_bytes()) else {
            panic!("{json} was accepted")
        };
        assert!(!faults.is_empty() && !format!("{faults:?}").contains("canary"));
    }
    assert!(open(b"{\"vaults\":[],\"items\":[]}").is_ok());
}

#[test]
fn no_more_of_a_file_is_read_than_the_bound() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 32).unwrap();
    let answer = VaultFile::load(file.path(), LoadOptions::default(), Arc::new(FakeClock::default()));
    assert!(matches!(answer, Err(VaultFileError::TooLarge)));
}

#[test]
#[cfg(unix)]
fn a_file_that_is_open_to_others_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vault.json");
    std::fs::write(&path, TRAVEL).unwrap();
    let load = |mode: u32, options: LoadOptions| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        VaultFile::load(&path, options, Arc::new(FakeClock::default())).map(|_| ())
    };
    for mode in [0o644, 0o640, 0o604, 0o660, 0o602] {
        let error = load(mode, LoadOptions::default()).unwrap_err();
        assert!(matches!(error, VaultFileError::OpenToOthers { mode: seen, .. } if seen == mode), "{error}");
        assert!(error.to_string().contains(&format!("mode {mode:03o}")));
        assert!(load(mode, LoadOptions { open_to_others: true }).is_ok());
    }
    assert!(load(0o600, LoadOptions::default()).is_ok());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        VaultFile::load(&path, LoadOptions::default(), Arc::new(FakeClock::default())),
        Err(VaultFileError::Read { .. })
    ));
}
