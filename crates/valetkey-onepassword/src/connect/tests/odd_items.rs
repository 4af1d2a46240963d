//! Items as servers may have them, or should not.

use proptest::prelude::*;

use super::*;

/// An item as servers may have them, with `change` made to it.
fn odd_item(change: impl FnOnce(&mut Value)) -> Value {
    let mut item = json!({
        "id": ITEM, "title": "Thing", "vault": {"id": VAULT, "name": "new"}, "category": "OF_TOMORROW",
        "additionalInformation": "new", "version": 7, "lastEditedBy": null,
        "sections": [{"id": "sec1", "label": "Admin", "new": []}],
        "fields": [
            {"id": "a", "type": "OF_TOMORROW", "purpose": "OF_TOMORROW", "label": "a", "value": "canary", "section": {"id": ""}},
            {"id": "b", "type": "OTP", "totp": "123456", "totpDetails": {}, "value": "canary", "section": {"id": "sec1", "label": "Admin"}},
            {"id": "c", "type": "STRING"},
        ],
        "files": [{"id": "d", "size": 1, "content_path": "v1/elsewhere", "new": {"canary": 1}}],
    });
    change(&mut item);
    item
}

#[tokio::test]
async fn servers_may_say_more_than_the_form() {
    let server = server().await;
    server.put_item(odd_item(|item| item["title"] = json!("Two\nlines")));
    let (outline, values) = client(&server).item(VAULT, ITEM).await.ok().unwrap();
    assert_eq!(&*outline.title, "Two\\u{a}lines");
    let fields = outline.fields.iter();
    let kinds: Vec<_> = fields.map(|field| (&*field.id, field.kind, field.section.as_deref())).collect();
    let expected = [
        ("a", FieldKind::Plain, None),
        ("b", FieldKind::OneTimePassword, Some("sec1")),
        ("c", FieldKind::Plain, None),
        ("d", FieldKind::File, None),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(values.by_field["b"].expose_secret(), b"canary");
    assert_eq!(values.by_field["c"].expose_secret(), b"");
}

#[tokio::test]
async fn an_item_in_a_state_that_nobody_knows_is_not_in_use() {
    let server = server().await;
    for state in ["ARCHIVED", "DELETED", "OF_TOMORROW"] {
        server.put_item(odd_item(|item| item["state"] = json!(state)));
        let items = client(&server).items(VAULT).await.ok().unwrap();
        let found = items.iter().find(|item| &*item.id == ITEM).map(|item| item.state);
        assert_eq!(found, Some(ItemState::Inactive), "{state}");
    }
}

#[tokio::test]
async fn items_that_would_mislead_are_refused() {
    let server = server().await;
    let connect = client(&server);
    let check = async |change: fn(&mut Value), expected: &str| {
        server.fail("/v1", plain(200, &odd_item(change).to_string()));
        let (error, text) = failure(connect.item(VAULT, ITEM).await);
        assert!(error == ResolveError::Unavailable && text.contains(expected), "{error:?}: {text}");
        assert!(!text.contains("canary"), "{text}");
    };
    check(|item| item["id"] = json!("otherxxxxxxxxxxxxxxxxxxxxx"), "`id` is not the item").await;
    check(|item| item["vault"]["id"] = json!("otherxxxxxxxxxxxxxxxxxxxxx"), "`id` is not the item").await;
    check(|item| item["id"] = json!("../canary"), "`id` must be 26").await;
    check(|item| item["fields"][1]["id"] = json!("a"), "`fields[1].id` is given to more").await;
    check(|item| item["files"][0]["id"] = json!("a"), "`files[0].id` is given to more").await;
    check(|item| item["fields"][1]["section"]["id"] = json!("none"), "the id of no section").await;
    check(|item| item["fields"][0]["type"] = json!(null), "`fields[0].type` is missing").await;
    check(|item| item["fields"][0]["value"] = json!({"canary": 1}), "`fields[0].value` must be").await;
    check(|item| item["files"][0]["content"] = json!("canary!"), "`files[0].content` must be base64").await;
}

#[tokio::test]
async fn one_field_that_no_reference_can_say_spoils_no_item() {
    let server = server().await;
    server.put_item(odd_item(|item| item["fields"][0]["id"] = json!("user[email]")));
    let (outline, values) = client(&server).item(VAULT, ITEM).await.ok().unwrap();
    assert_eq!((&*outline.fields[0].id, &*outline.fields[0].label), ("user[email]", "a"));
    assert!(!values.by_field.contains_key("user[email]") && values.by_field.contains_key("b"));
}

#[test]
fn one_entry_that_cannot_be_read_spoils_no_list() {
    let item = |id: &str, title: &str| json!({"id": id, "title": title, "vault": {"id": VAULT}});
    let list = |entries: Value| answer::items(entries.to_string().as_bytes(), VAULT);
    let (long, malformed) = (item(VAULT, &"x".repeat(1_025)), item("../x", "x"));
    let items = list(json!([long, malformed, item(ITEM, "Two\nlines")])).ok().unwrap();
    assert_eq!(items.iter().map(|item| &*item.title).collect::<Vec<_>>(), ["Two\\u{a}lines"]);
    let twice = list(json!([item(ITEM, "a"), item(ITEM, "b")])).err().unwrap();
    assert_eq!(
        twice.progress,
        crate::upstream::Progress::Answered,
        "it is refused, and no sign that the server is down"
    );
}

proptest! {
    /// Whatever comes: an item, or an error that repeats nothing of it.
    #[test]
    fn garbage_is_an_error(at in 0usize..900, garbage in "[ -~]{0,12}", length in 0usize..40) {
        let mut body = odd_item(|_| ()).to_string();
        let start = at.min(body.len());
        body.replace_range(start..(start + length).min(body.len()), &garbage);
        if let Err(error) = answer::item(body.as_bytes(), VAULT, ITEM) {
            let (_, text) = failure::<()>(Err(error));
            prop_assert!(!text.contains("canary"), "{text}");
        }
        drop(answer::vaults(body.as_bytes()));
        drop(answer::items(format!("[{body}]").as_bytes(), VAULT));
    }
}
