//! What `op` prints with `--format json`, read into the item model. Keys that are not known are passed over: they
//! are of a newer `op`, and no typing errors.

use std::collections::HashSet;

use valetkey_core::scrub;

use crate::full_item::{self, ItemHead};
use crate::item::{ItemOutline, ItemValues, Vault};
use crate::json::{self, Faults, Node, Path};
use crate::upstream::{ItemSummary, UpstreamError};

/// A quota of the service account, or of its whole account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpRateLimit {
    /// Whose: `token` or `account`.
    pub scope: String,
    /// What counts: `read`, `write` or `read_write`.
    pub action: String,
    /// How many requests there are in a period.
    pub limit: u64,
    /// How many are left.
    pub remaining: u64,
    /// When they are all there again, in seconds from now.
    pub reset_seconds: u64,
}

pub(super) fn vaults(json: &[u8]) -> Result<Vec<Vault>, UpstreamError> {
    read(json, |faults, node, _| {
        full_item::vault_list(faults, node, |faults, node, path| {
            full_item::vault(faults, &mut HashSet::new(), node, path)
        })
    })
}

/// Items, which must be of the vault that was asked for.
pub(super) fn items(json: &[u8], vault_of: &str) -> Result<Vec<ItemSummary>, UpstreamError> {
    let mut is_foreign = false;
    let items = read(json, |faults, node, _| {
        full_item::item_list(faults, node, |faults, node, path| {
            let ItemHead { vault_id, id, title, state } =
                full_item::summary(faults, &mut HashSet::new(), node, path);
            is_foreign |= faults.is_empty() && *vault_id != *vault_of;
            ItemSummary { id, title, state }
        })
    })?;
    match is_foreign {
        true => Err(UpstreamError::unusable("`op` listed an item of another vault than it was asked for")),
        false => Ok(items),
    }
}

/// An item, which must be the one that was asked for.
pub(super) fn item(
    json: &[u8],
    vault_id: &str,
    item_id: &str,
) -> Result<(ItemOutline, ItemValues), UpstreamError> {
    let (outline, values) =
        read(json, |faults, node, path| full_item::item(faults, &mut HashSet::new(), node, path))?;
    if *outline.vault_id != *vault_id || *outline.id != *item_id {
        return Err(UpstreamError::unusable("`op` gave another item than it was asked for"));
    }
    Ok((outline, values))
}

pub(super) fn rate_limits(json: &[u8]) -> Result<Vec<OpRateLimit>, UpstreamError> {
    list(json, LIMITS_MAX, |faults, node, path| {
        let mut object = faults.object(Some(node), path, &["type", "action", "limit", "remaining", "reset"]);
        let mut text = |key| {
            let node = object.take(key);
            faults.text(node, path.key(key), WORD_MAX).map_or_else(String::new, |text| scrub(&text, WORD_MAX))
        };
        let (scope, action) = (text("type"), text("action"));
        let mut number = |key| {
            let node = object.take(key);
            faults.number(node, path.key(key)).unwrap_or_default()
        };
        let (limit, remaining, reset_seconds) = (number("limit"), number("remaining"), number("reset"));
        OpRateLimit { scope, action, limit, remaining, reset_seconds }
    })
}

pub(super) fn version(text: &[u8]) -> Result<String, UpstreamError> {
    let text = String::from_utf8_lossy(text);
    let version = text.trim();
    let is_version = version.starts_with(|c: char| c.is_ascii_digit()) && version.len() <= WORD_MAX;
    if !is_version {
        return Err(UpstreamError::unusable("`op --version` printed no version"));
    }
    Ok(scrub(version, WORD_MAX))
}

fn list<T>(
    json: &[u8],
    max: usize,
    mut element: impl FnMut(&mut Faults, Node, Path<'_>) -> T,
) -> Result<Vec<T>, UpstreamError> {
    read(json, |faults, node, path| {
        let nodes = faults.list(Some(node), path, max).into_iter().enumerate();
        nodes.map(|(index, node)| element(faults, node, path.index(index))).collect()
    })
}

fn read<T>(json: &[u8], reader: impl FnOnce(&mut Faults, Node, Path<'_>) -> T) -> Result<T, UpstreamError> {
    let node =
        json::answer(json).map_err(|why| UpstreamError::unusable(&format!("what `op` printed {why}")))?;
    let mut faults = Faults::tolerant();
    let answer = reader(&mut faults, node, Path::Root);
    match faults.into_vec().as_slice() {
        [] => Ok(answer),
        [first, ..] => {
            Err(UpstreamError::unusable(&format!("what `op` printed is of another form: {first}")))
        }
    }
}

const LIMITS_MAX: usize = 20;
const WORD_MAX: usize = 64;
