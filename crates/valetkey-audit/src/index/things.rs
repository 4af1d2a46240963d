//! Vaults and items in the index: an id together with a name that it had.

use std::collections::{BTreeSet, HashMap};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use valetkey_core::{AuditScope, Named};

use super::Dimension;
use crate::query::glob;
use crate::term::Pattern;

/// The numbers of things, as far as they are remembered.
#[derive(Default)]
pub(super) struct Things(HashMap<(Dimension, i64, i64), i64>);

impl Things {
    /// The number of a thing; a new one is inserted. 0 for none.
    pub(super) fn number(
        &mut self,
        index: &Connection,
        log: &Connection,
        dimension: Dimension,
        strings: Option<(i64, i64)>,
    ) -> rusqlite::Result<i64> {
        let Some((id, name)) = strings else { return Ok(0) };
        if let Some(thing) = self.0.get(&(dimension, id, name)) {
            return Ok(*thing);
        }
        let known = index
            .prepare_cached("SELECT thing FROM things WHERE dimension = ?1 AND id = ?2 AND name = ?3")?
            .query_row(params![dimension as i64, id, name], |row| row.get(0))
            .optional()?;
        let thing = match known {
            Some(thing) => thing,
            None => {
                let text = |string: i64| {
                    log.prepare_cached("SELECT lower(text) FROM strings WHERE id = ?1")?
                        .query_row([string], |row| row.get::<_, String>(0))
                };
                index
                    .prepare_cached(
                        "INSERT INTO things (dimension, id, name, id_text, name_text) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .insert(params![dimension as i64, id, name, text(id)?, text(name)?])?
            }
        };
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.insert((dimension, id, name), thing);
        Ok(thing)
    }

    /// Forgets everything: after a transaction that was rolled back.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The things whose id or name is of a pattern, in any case.
pub(super) fn matching(
    connection: &Connection,
    dimension: Dimension,
    pattern: &Pattern,
) -> rusqlite::Result<Vec<i64>> {
    let (operator, text) = match pattern.any_before || pattern.any_after {
        true => ("GLOB", glob(pattern)),
        false => ("=", pattern.text.clone()),
    };
    let sql = format!(
        "SELECT thing FROM idx.things WHERE dimension = ?1 AND id_text {operator} ?2
         UNION SELECT thing FROM idx.things WHERE dimension = ?1 AND name_text {operator} ?2"
    );
    let mut statement = connection.prepare(&sql)?;
    statement.query_map(params![dimension as i64, text], |row| row.get(0))?.collect()
}

/// The vaults of a scope; `None` for all.
pub(super) fn of_scope(connection: &Connection, scope: &AuditScope) -> rusqlite::Result<Option<Vec<i64>>> {
    let AuditScope::Vaults(vaults) = scope else { return Ok(None) };
    let mut statement = connection.prepare(
        "SELECT thing FROM idx.things WHERE dimension = ?1 AND id = (SELECT id FROM strings WHERE text = ?2)
             AND name = (SELECT id FROM strings WHERE text = ?3)",
    )?;
    let mut things = Vec::new();
    for Named { id, name, name_is_unique: _ } in vaults.iter() {
        let found =
            statement.query_row(params![Dimension::Vault as i64, &**id, &**name], |row| row.get::<_, i64>(0));
        things.extend(found.optional()?);
    }
    Ok(Some(things))
}

/// The vaults that the index knows: ids and names, as the log spells them.
pub(crate) fn vaults(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, String)>> {
    let mut statement = connection.prepare(
        "SELECT id.text, name.text FROM idx.things t
         JOIN strings id ON id.id = t.id JOIN strings name ON name.id = t.name WHERE t.dimension = ?1",
    )?;
    statement.query_map([Dimension::Vault as i64], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The strings of a dimension that a pattern is of.
pub(super) fn strings_matching(
    connection: &Connection,
    dimension: Dimension,
    pattern: &Pattern,
) -> rusqlite::Result<Vec<i64>> {
    let (sql, values) = match pattern.any_before || pattern.any_after {
        true => (
            "SELECT v.value FROM idx.vocabulary v JOIN strings s ON s.id = v.value
             WHERE v.dimension = ? AND s.text GLOB ?",
            vec![Value::Integer(dimension as i64), Value::Text(glob(pattern))],
        ),
        false => ("SELECT id FROM strings WHERE text = ?", vec![Value::Text(pattern.text.clone())]),
    };
    connection.prepare(sql)?.query_map(params_from_iter(values), |row| row.get(0))?.collect()
}

/// The lists of policies of which one line is of a pattern.
pub(super) fn policies_matching(connection: &Connection, pattern: &Pattern) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare(
        "SELECT v.value FROM idx.vocabulary v JOIN strings s ON s.id = v.value
         WHERE v.dimension = ?1 AND char(10) || s.text || char(10) GLOB ?2",
    )?;
    let lines = crate::query::glob_of_line(pattern);
    statement.query_map(params![Dimension::Policies as i64, lines], |row| row.get(0))?.collect()
}

const REMEMBERED_MAX: usize = 65_536;
