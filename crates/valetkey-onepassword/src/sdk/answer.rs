//! What the core answers, in its JSON, read into our model. Items are read in [`super::item`].
//!
//! Keys that are not known are passed over: the core may grow. What is known must have its form.

use std::sync::Arc;

use valetkey_core::{ResolveError, SecretValue};

use super::ffi::Answer;
use crate::full_item::{FIELDS_MAX, VALUE_MAX, global_id, item_list, label, name, required, vault_list};
use crate::item::{ItemState, Vault};
use crate::json::{self, Faults, Node, Path};
use crate::upstream::{ItemSummary, UpstreamError};

/// Reads an answer with `read`. Anything that is not as it should be makes it an error, which repeats nothing
/// of it.
pub(super) fn read<T>(
    answer: &Answer,
    read: impl FnOnce(&mut Faults, Node) -> T,
) -> Result<T, UpstreamError> {
    read_json(answer.bytes(), read)
}

pub(super) fn read_json<T>(
    json: &[u8],
    read: impl FnOnce(&mut Faults, Node) -> T,
) -> Result<T, UpstreamError> {
    if json.len() > ANSWER_MAX {
        return Err(unreadable("it is too long"));
    }
    let node = json::answer(json).map_err(|why| unreadable(&format!("it {why}")))?;
    let mut faults = Faults::tolerant();
    let outcome = read(&mut faults, node);
    match faults.into_vec().first() {
        None => Ok(outcome),
        Some(fault) => Err(unreadable(&fault.to_string())),
    }
}

/// The answer to the question for vaults.
pub(super) fn vaults(faults: &mut Faults, node: Node) -> Vec<Vault> {
    vault_list(faults, node, |faults, node, path| {
        let mut object = faults.open_object(Some(node), path);
        let id = global_id(faults, object.take("id"), path.key("id"));
        Vault { id, name: name(faults, object.take("title"), path.key("title")) }
    })
}

/// The answer to the question for the items of a vault.
pub(super) fn items(faults: &mut Faults, node: Node) -> Vec<ItemSummary> {
    item_list(faults, node, |faults, node, path| {
        let mut object = faults.open_object(Some(node), path);
        let id = global_id(faults, object.take("id"), path.key("id"));
        let title = title(faults, object.take("title"), path.key("title"));
        let state = name(faults, object.take("state"), path.key("state"));
        // A state that is not known is none in which an item is in use.
        let state = if &*state == "active" { ItemState::Active } else { ItemState::Inactive };
        ItemSummary { id, title, state }
    })
}

/// The answer to the question for a file's content: a list of the bytes, as numbers.
///
/// Not by way of a tree, which takes forty bytes for each.
pub(super) fn content(answer: &Answer) -> Result<SecretValue, UpstreamError> {
    content_json(answer.bytes())
}

pub(super) fn content_json(json: &[u8]) -> Result<SecretValue, UpstreamError> {
    let numbers = json.trim_ascii().strip_prefix(b"[").and_then(|list| list.strip_suffix(b"]"));
    let numbers = numbers.ok_or_else(|| unreadable("it is no list"))?.trim_ascii();
    if numbers.is_empty() {
        return Ok(SecretValue::new(Vec::new()));
    }
    // Full size from the start: a vector that grows leaves copies behind.
    let length = numbers.split(|c| *c == b',').count();
    if length > VALUE_MAX {
        // As with Connect: waiting does not make it smaller, and the service is well.
        return Err(UpstreamError::new(ResolveError::UnsupportedFileFormat, "the file has more than 1 MiB"));
    }
    let mut content = zeroize::Zeroizing::new(Vec::with_capacity(length));
    for number in numbers.split(|c| *c == b',') {
        let number =
            std::str::from_utf8(number.trim_ascii()).ok().and_then(|number| number.parse::<u8>().ok());
        content.push(number.ok_or_else(|| unreadable("it is no list of bytes"))?);
    }
    Ok(SecretValue::new(std::mem::take(&mut content)))
}

/// An item's title, which may be empty: then only its id names it.
pub(super) fn title(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Arc<str> {
    let node = required(faults, node, path);
    label(faults, node, path)
}

/// Fields of an item, for readers.
pub(super) fn list(faults: &mut Faults, node: Option<Node>, path: Path<'_>) -> Vec<Node> {
    faults.list(node, path, FIELDS_MAX)
}

fn unreadable(why: &str) -> UpstreamError {
    UpstreamError::unusable(&format!("the SDK core's answer cannot be read: {why}"))
}

/// In bytes: a file of the greatest length, as numbers.
const ANSWER_MAX: usize = 8 << 20;
