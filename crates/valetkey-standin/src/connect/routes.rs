//! The paths of the published file that read vaults, items and files.

use data_encoding::BASE64;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::answer::{self, Answer, error, full};
use crate::World;
use crate::world::text;

/// The answer to a request, from whoever has the token or has not.
pub(super) fn answer<B>(world: &World, request: &Request<B>, is_known: bool) -> Response<Answer> {
    let path: Vec<_> = request.uri().path().trim_start_matches('/').split('/').collect();
    if request.method() != Method::GET {
        return error(404, "not served here");
    }
    match path.as_slice() {
        ["heartbeat"] => return full(200, "."),
        ["health"] => {
            return ok(&json!({"name": "1Password Connect API", "version": "1.7.1", "dependencies": []}));
        }
        ["v1", ..] if !is_known => return error(401, "Invalid token signature"),
        _ => {}
    }
    let filter = request.uri().query().and_then(filter);
    match path.as_slice() {
        ["v1", "vaults"] => ok(&vaults(world, filter.as_deref())),
        ["v1", "vaults", vault, rest @ ..] => match in_vault(world, vault, rest, filter.as_deref()) {
            Ok(answer) => answer,
            Err(Refusal(status, message)) => error(status, &message),
        },
        _ => error(404, "not found"),
    }
}

/// A status and a message.
struct Refusal(u16, String);

fn in_vault(
    world: &World,
    vault_id: &str,
    rest: &[&str],
    filter: Option<&str>,
) -> Result<Response<Answer>, Refusal> {
    if !is_id(vault_id) {
        return Err(Refusal(400, "Invalid Vault UUID".into()));
    }
    let vault = world.vaults().iter().find(|vault| text(vault, "/id") == vault_id);
    let vault = vault.ok_or_else(|| Refusal(404, format!("vault {vault_id} not found")))?;
    match rest {
        [] => Ok(ok(vault)),
        ["items"] => Ok(ok(&summaries(world, vault_id, filter))),
        ["items", item_id, rest @ ..] if is_id(item_id) => {
            let item = world.item(vault_id, item_id);
            in_item(item.ok_or_else(|| Refusal(404, format!("item {item_id} not found")))?, rest)
        }
        ["items", ..] => Err(Refusal(400, "Invalid Item UUID".into())),
        _ => Err(Refusal(404, "not found".into())),
    }
}

fn in_item(item: &Value, rest: &[&str]) -> Result<Response<Answer>, Refusal> {
    let outside = without_content(&published(item));
    let file = |item, id: &str| {
        let file = list(item, "files").find(|file| text(file, "/id") == id);
        file.ok_or_else(|| Refusal(404, format!("file {id} not found")))
    };
    match rest {
        [] => Ok(ok(&outside)),
        ["files"] => Ok(ok(outside.get("files").unwrap_or(&json!([])))),
        ["files", id] => Ok(ok(file(&outside, id)?)),
        ["files", id, "content"] => Ok(full(200, content(file(item, id)?))),
        _ => Err(Refusal(404, "not found".into())),
    }
}

fn vaults(world: &World, filter: Option<&str>) -> Value {
    let fits = |vault: &&Value| filter.is_none_or(|name| text(vault, "/name").eq_ignore_ascii_case(name));
    world.vaults().iter().filter(fits).cloned().collect()
}

/// An `Item`: what the list of a vault has, which is a `FullItem` without what is in it.
fn summaries(world: &World, vault_id: &str, filter: Option<&str>) -> Value {
    let fits = |item: &&Value| filter.is_none_or(|title| text(item, "/title").eq_ignore_ascii_case(title));
    let summary = |item: &Value| {
        let mut item = published(item);
        if let Some(item) = item.as_object_mut() {
            item.retain(|key, _| !["sections", "fields", "files"].contains(&key.as_str()));
        }
        item
    };
    world.items(vault_id).filter(fits).map(summary).collect()
}

/// A vault file may say `trashed`, which is not in the published form.
fn published(item: &Value) -> Value {
    let mut item = item.clone();
    if let Some(item) = item.as_object_mut()
        && item.remove("trashed") == Some(Value::Bool(true))
    {
        item.insert("state".into(), json!("DELETED"));
    }
    item
}

/// With files as they are where nobody asks for them inline: a size, and the path of their content.
fn without_content(item: &Value) -> Value {
    let base = format!("v1/vaults/{}/items/{}/files", text(item, "/vault/id"), text(item, "/id"));
    let mut item = item.clone();
    for file in item.get_mut("files").and_then(Value::as_array_mut).into_iter().flatten() {
        let size = content(file).len();
        let path = format!("{base}/{}/content", text(file, "/id"));
        if let Some(file) = file.as_object_mut() {
            file.remove("content");
            file.insert("size".into(), json!(size));
            file.insert("content_path".into(), json!(path));
        }
    }
    item
}

fn content(file: &Value) -> Vec<u8> {
    BASE64.decode(text(file, "/content").as_bytes()).unwrap_or_default()
}

/// The name in a filter such as `name%20eq%20%22Main%22`; a filter of another form finds nothing.
fn filter(query: &str) -> Option<String> {
    let filter = query.split('&').find_map(|pair| pair.strip_prefix("filter="))?;
    let filter = filter.replace("%20", " ").replace('+', " ").replace("%22", "\"");
    let name = filter.split_once(" eq ").map_or("", |(_, name)| name);
    Some(name.trim_matches('"').to_owned())
}

fn list<'a>(item: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    item.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn ok(value: &Value) -> Response<Answer> {
    answer::json(200, value)
}
