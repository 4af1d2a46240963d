//! What the answers mean.

use std::collections::HashSet;
use std::time::Duration;

use valetkey_core::ResolveError;

use super::transport::Answer;
use super::{error, unusable};
use crate::full_item::{self, ItemHead};
use crate::item::{ItemOutline, ItemValues, Vault};
use crate::json::{self, Faults, Node, Path};
use crate::upstream::{ItemSummary, Question, UpstreamError};

/// The list of vaults.
pub(super) fn vaults(body: &[u8]) -> Result<Vec<Vault>, UpstreamError> {
    read(body, |faults, node| {
        full_item::vault_list(faults, node, |faults, node, path| {
            full_item::vault(faults, &mut HashSet::new(), node, path)
        })
    })
}

/// The list of a vault's items.
pub(super) fn items(body: &[u8], vault_asked: &str) -> Result<Vec<ItemSummary>, UpstreamError> {
    let mut is_foreign = false;
    let items = read(body, |faults, node| {
        full_item::item_list(faults, node, |faults, node, path| {
            let ItemHead { vault_id, id, title, state } =
                full_item::summary(faults, &mut HashSet::new(), node, path);
            is_foreign |= faults.is_empty() && *vault_id != *vault_asked;
            ItemSummary { id, title, state }
        })
    })?;
    match is_foreign {
        true => Err(unusable("the list has an item of another vault than the one that was asked for")),
        false => Ok(items),
    }
}

/// One item with its values.
pub(super) fn item(
    body: &[u8],
    vault_asked: &str,
    item_asked: &str,
) -> Result<(ItemOutline, ItemValues), UpstreamError> {
    read(body, |faults, node| {
        let (outline, values) = full_item::item(faults, &mut HashSet::new(), node, Path::Root);
        if *outline.id != *item_asked || *outline.vault_id != *vault_asked {
            faults.note(Path::Root.key("id"), "is not the item that was asked for");
        }
        (outline, values)
    })
}

/// What an answer other than success means for a question. What the server says is believed only in the
/// form that is published for errors: a proxy's 404 does not say that a vault does not exist.
pub(super) fn refusal(question: Question, answer: &Answer) -> UpstreamError {
    let Answer { status, retry_after, body, token } = answer;
    let message = message(body);
    let about = message.as_deref().map(str::to_ascii_lowercase).unwrap_or_default();
    let kind = match (status, question) {
        (401, _) => ResolveError::CredentialsRefused,
        (429, _) => {
            let retry_after = retry_after.unwrap_or(RETRY_DEFAULT).clamp(RETRY_MIN, RETRY_MAX);
            ResolveError::RateLimited { retry_after }
        }
        (413, Question::File) => ResolveError::UnsupportedFileFormat,
        (403, Question::Vaults) if message.is_some() => ResolveError::CredentialsRefused,
        // What is not in the token's scope does not exist for us.
        (403, Question::Items | Question::Item | Question::File) if message.is_some() => {
            ResolveError::VaultNotFound
        }
        (400 | 404, Question::Items) if about.contains("vault") => ResolveError::VaultNotFound,
        (400 | 404, Question::Item | Question::File) => missing(&about),
        _ => ResolveError::Unavailable,
    };
    match message {
        Some(message) => error(kind, &format!("status {status}: {}", *token.masked(&message))),
        None => error(kind, &format!("status {status} without an error as Connect words it")),
    }
}

/// Which part of an item's path leads nowhere, by the first word of the message that says so.
fn missing(about: &str) -> ResolveError {
    let begins = |known: &[&str]| known.iter().any(|known| about.starts_with(known));
    if begins(&["vault", "invalid vault"]) {
        ResolveError::VaultNotFound
    } else if begins(&["item", "invalid item"]) {
        ResolveError::ItemNotFound
    } else if begins(&["file", "invalid file"]) {
        ResolveError::FieldNotFound
    } else {
        ResolveError::Unavailable
    }
}

/// The message of a well-formed error.
fn message(body: &[u8]) -> Option<String> {
    let node = json::answer(body).ok()?;
    let mut faults = Faults::tolerant();
    let mut object = faults.object(Some(node), Path::Root, &["status", "message"]);
    let message = faults.text(object.take("message"), Path::Root.key("message"), MESSAGE_MAX)?;
    faults.is_empty().then(|| message.to_string())
}

fn read<T>(body: &[u8], read: impl FnOnce(&mut Faults, Node) -> T) -> Result<T, UpstreamError> {
    let node = json::answer(body).map_err(|why| unusable(&format!("the answer {why}")))?;
    let mut faults = Faults::tolerant();
    let content = read(&mut faults, node);
    if faults.is_empty() {
        return Ok(content);
    }
    let shown: Vec<_> = faults.into_vec().iter().take(FAULTS_SHOWN_MAX).map(ToString::to_string).collect();
    Err(unusable(&format!("the answer is malformed: {}", shown.join("; "))))
}

/// In bytes.
const MESSAGE_MAX: usize = 512;
const FAULTS_SHOWN_MAX: usize = 5;
/// Where the server limits its rate and does not say for how long.
const RETRY_DEFAULT: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(3_600);
