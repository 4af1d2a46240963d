//! Interned text: one row for each text that repeats, and a bounded memory of the recent ones.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

/// The ids of texts, as far as they are remembered. Forgetting costs a look-up, nothing else.
///
/// INVARIANT: every id in it is committed, or was made in the transaction under way. Whoever rolls back
/// must call [`Strings::clear`].
#[derive(Default)]
pub(crate) struct Strings {
    ids: HashMap<Box<str>, i64>,
    bytes: usize,
}

impl Strings {
    /// The id of a text; new texts are inserted.
    pub(crate) fn id(&mut self, connection: &Connection, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.get(text) {
            return Ok(*id);
        }
        let known = connection
            .prepare_cached("SELECT id FROM strings WHERE text = ?1")?
            .query_row([text], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => connection.prepare_cached("INSERT INTO strings (text) VALUES (?1)")?.insert([text])?,
        };
        self.remember(text, id);
        Ok(id)
    }

    /// The id of a text that may be absent.
    pub(crate) fn id_opt(
        &mut self,
        connection: &Connection,
        text: Option<&str>,
    ) -> rusqlite::Result<Option<i64>> {
        text.map(|text| self.id(connection, text)).transpose()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.bytes = 0;
    }

    /// Starts over when full: simpler than keeping an order of use, and the texts that matter are back
    /// within a few records.
    fn remember(&mut self, text: &str, id: i64) {
        if self.ids.len() >= ENTRIES_MAX || self.bytes >= BYTES_MAX {
            self.clear();
        }
        self.bytes += text.len();
        self.ids.insert(text.into(), id);
    }
}

const ENTRIES_MAX: usize = 65_536;
const BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_keep_their_ids_when_they_are_forgotten() {
        let connection = crate::schema::in_memory();
        let mut strings = Strings::default();
        let one = strings.id(&connection, "one").unwrap();
        let two = strings.id(&connection, "two").unwrap();
        assert_ne!(one, two);
        strings.clear();
        assert_eq!(strings.id(&connection, "two").unwrap(), two);
        assert_eq!(strings.id(&connection, "one").unwrap(), one);
        assert_eq!(strings.id_opt(&connection, None).unwrap(), None);
    }

    #[test]
    fn memory_is_bounded() {
        let connection = crate::schema::in_memory();
        connection.execute_batch("BEGIN").unwrap();
        let mut strings = Strings::default();
        for n in 0..20 {
            strings.id(&connection, &format!("{n}{}", "x".repeat(BYTES_MAX / 10))).unwrap();
            assert!(strings.bytes <= BYTES_MAX + BYTES_MAX / 10);
        }
        assert!(strings.ids.len() < 20);
    }
}
