//! The vaults and items that every stand-in serves.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Vaults and items in the JSON of Connect's `Vault` and `FullItem`; a file has its `content` inside, as base64.
#[derive(Debug, Clone)]
pub struct World {
    vaults: Vec<Value>,
    items: Vec<Value>,
}

impl World {
    /// From the text of a vault file.
    ///
    /// # Errors
    /// Where it is no object with the lists `vaults` and `items`.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut world: Value = serde_json::from_str(text)?;
        let mut list = |key: &str| match world.get_mut(key).map(Value::take) {
            Some(Value::Array(list)) => Ok(list),
            _ => Err(anyhow::anyhow!("a world has a list of {key}")),
        };
        Ok(Self { vaults: list("vaults")?, items: list("items")? })
    }

    /// The travel story's.
    ///
    /// # Errors
    /// Where the example is broken.
    pub fn travel() -> Result<Self> {
        Self::from_json(include_str!("../../../examples/travel/vault.json"))
            .context("the travel story's vault")
    }

    /// The conformance suite's: something of everything that the rules of references tell apart.
    ///
    /// # Errors
    /// Where the file is broken.
    pub fn conformance() -> Result<Self> {
        Self::from_json(include_str!("conformance.json")).context("the conformance suite's world")
    }

    /// The vaults.
    #[must_use]
    pub fn vaults(&self) -> &[Value] {
        &self.vaults
    }

    /// The items of a vault.
    pub fn items<'a>(&'a self, vault_id: &'a str) -> impl Iterator<Item = &'a Value> {
        self.items.iter().filter(move |item| text(item, "/vault/id") == vault_id)
    }

    /// One item of a vault.
    #[must_use]
    pub fn item<'a>(&'a self, vault_id: &'a str, item_id: &str) -> Option<&'a Value> {
        self.items(vault_id).find(|item| text(item, "/id") == item_id)
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
