//! What the paths that read answer, before it is sealed for the session.

use anyhow::Result;
use serde_json::{Value, json};

use super::account::{KEYSET_ID, USER, keysets, sealed_vault_key, vault_key};
use super::items::{self, TIME};
use super::seal::seal;
use crate::world::{World, text};

/// What stands at a path below `/api/`; nothing where there is nothing.
pub(super) fn read(world: &World, path: &[&str]) -> Result<Option<Value>> {
    match path {
        ["v2", "account", "keysets"] => keysets().map(Some),
        ["v1", "vaults"] => {
            world.vaults().iter().map(|entry| vault(world, entry)).collect::<Result<Value>>().map(Some)
        }
        ["v3", "vault", vault_id] => {
            let entry = world.vaults().iter().find(|entry| text(entry, "/id") == *vault_id);
            entry.map(|entry| vault(world, entry)).transpose()
        }
        ["v1", "vault", vault_id, "items", "overviews"] => {
            let overviews = world.items(vault_id).map(items::overview).collect::<Result<Vec<_>>>()?;
            Ok(Some(json!({ "contentVersion": 1, "batchComplete": true, "items": overviews })))
        }
        ["v1", "vault", vault_id, "item", item_id] => {
            let Some(item) = world.item(vault_id, item_id) else { return Ok(None) };
            Ok(Some(json!({ "contentVersion": 1, "item": items::whole(item)? })))
        }
        _ => Ok(None),
    }
}

/// A file as it is stored: under a key of its own, which its item has, and not for the session.
pub(super) fn file(world: &World, file_id: &str) -> Result<Option<Vec<u8>>> {
    let mut items = world.vaults().iter().flat_map(|vault| world.items(text(vault, "/id")));
    items.find_map(|item| items::file(item, file_id)).transpose()
}

fn vault(world: &World, entry: &Value) -> Result<Value> {
    let id = text(entry, "/id");
    let access = json!({
        "vaultUuid": id,
        "accessorType": "user",
        "accessorUuid": USER,
        "acl": i32::MAX,
        "leaseTimeout": 0,
        "vaultKeySN": 1,
        "accessVersion": 1,
        "encryptedBy": KEYSET_ID,
        "encVaultKey": sealed_vault_key(id)?,
    });
    let attributes = json!({
        "uuid": id,
        "name": text(entry, "/name"),
        "desc": text(entry, "/description"),
        "type": "U",
        "avatar": "",
        "color": "",
    });
    Ok(json!({
        "uuid": id,
        "type": "U",
        "createdAt": TIME,
        "updatedAt": TIME,
        "attrVersion": 1,
        "contentVersion": 1,
        "activeItemCount": world.items(id).count(),
        "clientAccess": 1,
        "encryptedBy": id,
        "encAttrs": seal(&vault_key(id), id, &attributes)?,
        "access": [access],
        "combinedAccess": access,
    }))
}
