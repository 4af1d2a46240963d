//! What happened to leases by itself, on its way to the log.

use super::LeaseTable;
use crate::audit::AuditRecord;

/// Notices that are being written. Put back when dropped before [`Notices::written`], so that neither a
/// log that fails nor a writer that is cancelled loses one.
pub(crate) struct Notices<'a> {
    table: &'a LeaseTable,
    records: Vec<AuditRecord>,
}

impl LeaseTable {
    /// Takes the oldest notices, at most `max`.
    pub(crate) fn take_notices(&self, max: usize) -> Notices<'_> {
        let mut state = self.lock();
        let count = state.notices.len().min(max);
        Notices { table: self, records: state.notices.drain(..count).collect() }
    }
}

impl Notices<'_> {
    pub(crate) fn records(&self) -> &[AuditRecord] {
        &self.records
    }

    pub(crate) fn written(mut self) {
        self.records.clear();
    }
}

impl Drop for Notices<'_> {
    fn drop(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let mut state = self.table.lock();
        for record in self.records.drain(..).rev() {
            state.notices.push_front(record);
        }
        self.table.wake.notify_one();
    }
}
