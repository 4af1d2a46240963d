//! Where a time is in the log.

use valetkey_core::{RecordId, Timestamp};

use super::pool::Snapshot;
use super::{AuditReader, ReadError};

impl AuditReader {
    /// The last record that was written before a time. Found by halves, as times grow with the records' numbers: where
    /// the broker's clock was set back, it is one of the places where the log passes that time.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn before(&self, time: Timestamp) -> Result<RecordId, ReadError> {
        self.run(move |snapshot| before(snapshot, time)).await
    }
}

fn before(snapshot: &Snapshot<'_>, time: Timestamp) -> Result<RecordId, ReadError> {
    let connection = snapshot.connection();
    let (first, last) = connection.query_row("SELECT min(seq), max(seq) FROM records", [], |row| {
        Ok((row.get::<_, Option<u64>>(0)?, row.get::<_, Option<u64>>(1)?))
    })?;
    let Some((first, last)) = first.zip(last) else { return Ok(RecordId(0)) };
    let mut statement = connection.prepare_cached("SELECT time_us FROM records WHERE seq = ?1")?;
    // Everything before `low` is earlier, everything from `end` on is not.
    let (mut low, mut end) = (first, last.saturating_add(1));
    while low < end {
        let middle = low + (end - low) / 2;
        let micros: i64 = statement.query_row([middle], |row| row.get(0))?;
        if micros < time.as_micros() {
            low = middle + 1;
        } else {
            end = middle;
        }
    }
    Ok(RecordId(low.saturating_sub(1)))
}
