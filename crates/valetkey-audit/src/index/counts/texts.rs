//! What stands behind the numbers of an index.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use valetkey_core::AuditScope;

use crate::index::things;
use crate::read::{ReadError, Snapshot};
use crate::usage::Thing;

/// Texts and things by their numbers, each read once.
pub(super) struct Texts<'a> {
    connection: &'a Connection,
    strings: HashMap<i64, String>,
    things: HashMap<i64, Thing>,
    /// The vaults of the scope; `None` for all.
    vaults: Option<HashSet<i64>>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(snapshot: &'a Snapshot<'_>, scope: &AuditScope) -> Result<Self, ReadError> {
        let connection = snapshot.connection();
        let vaults = things::of_scope(connection, scope)?.map(|vaults| vaults.into_iter().collect());
        Ok(Self { connection, strings: HashMap::new(), things: HashMap::new(), vaults })
    }

    pub(super) fn within(&self, vault: i64) -> bool {
        self.vaults.as_ref().is_none_or(|vaults| vaults.contains(&vault))
    }

    pub(super) fn string(&mut self, number: i64) -> Result<String, ReadError> {
        if let Some(text) = self.strings.get(&number) {
            return Ok(text.clone());
        }
        let text: String = self
            .connection
            .prepare_cached("SELECT text FROM strings WHERE id = ?1")?
            .query_row([number], |row| row.get(0))?;
        self.strings.insert(number, text.clone());
        Ok(text)
    }

    pub(super) fn string_opt(&mut self, number: i64) -> Result<Option<String>, ReadError> {
        if number == 0 { Ok(None) } else { self.string(number).map(Some) }
    }

    pub(super) fn thing(&mut self, number: i64) -> Result<Option<Thing>, ReadError> {
        if number == 0 {
            return Ok(None);
        }
        if let Some(thing) = self.things.get(&number) {
            return Ok(Some(thing.clone()));
        }
        let (id, name): (i64, i64) = self
            .connection
            .prepare_cached("SELECT id, name FROM idx.things WHERE thing = ?1")?
            .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let thing = Thing { id: self.string(id)?, name: self.string(name)? };
        self.things.insert(number, thing.clone());
        Ok(Some(thing))
    }

    /// A vault of the scope and an item.
    pub(super) fn things(&mut self, vault: i64, item: i64) -> Result<Option<(Thing, Thing)>, ReadError> {
        if !self.within(vault) {
            return Ok(None);
        }
        Ok(self.thing(vault)?.zip(self.thing(item)?))
    }
}
