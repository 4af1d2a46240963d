//! A page of the log: the next events after a place, in the order of the records' numbers.
//!
//! INVARIANT: no page passes over a record that may still become an event. It ends before the first record whose
//! outcome is open, and, for whoever may read some vaults alone, before what may be of a vault not decided on yet.

use serde_json::Value;
use valetkey_audit::{Filter, ReadError, Tail};
use valetkey_core::RecordId;

use super::ask::Ask;
use super::cursor::Cursor;
use super::form::{Version, event};
use super::{Events, Feature};
use crate::review::Review;

/// A page.
pub(crate) struct Page {
    /// Where the next one begins; good for ever.
    pub(crate) cursor: String,
    /// Whether there is more of the log to look at now. The next page may be empty all the same.
    pub(crate) has_more: bool,
    pub(crate) items: Vec<Value>,
}

impl Events {
    /// What is asked, unless it goes on from behind the end of the log: then it would miss records whose numbers are
    /// used again.
    pub(crate) async fn within(&self, ask: Ask) -> Result<Result<Ask, String>, ReadError> {
        let Ask::On(Cursor { seen, .. }) = ask else { return Ok(Ok(ask)) };
        let (_, newest) = self.reader.checkpoint().await?;
        Ok(if seen <= newest {
            Ok(ask)
        } else {
            Err(format!(
                "`cursor` is of a log that had more records than this one, which ends with record {newest}: the log \
                 was restored, and the pipeline must start over with a `start_time`"
            ))
        })
    }

    /// The next page of what is asked for.
    pub(crate) async fn page(
        &self,
        review: &Review,
        (feature, version): (Feature, Version),
        ask: Ask,
    ) -> Result<Page, ReadError> {
        let Cursor { seen, end, limit } = match ask {
            Ask::On(cursor) => cursor,
            Ask::Since { start, end, limit } => Cursor { seen: self.reader.before(start).await?, end, limit },
        };
        let ends = match end {
            Some(end) => self.reader.before(end).await?,
            None => RecordId(u64::MAX),
        };
        let until = self.reader.settled().await?.min(ends).min(review.until());
        let filter = Filter::parse(wanted(feature)).map_err(|error| ReadError::Unavailable(error.into()))?;
        let Tail { records, seen } =
            self.reader.after(&filter, &review.scope, (seen, until), limit.into()).await?;
        let host = &self.signer.host;
        Ok(Page {
            cursor: Cursor { seen, end, limit }.encode(feature),
            has_more: seen < until,
            items: records.iter().filter_map(|record| event(feature, version, record, host)).collect(),
        })
    }
}

/// Which records may be events; what each becomes, `form/` says.
fn wanted(feature: Feature) -> &'static str {
    match feature {
        Feature::ItemUsages => "kind:redeem outcome:released",
        Feature::AuditEvents => "-kind:unauthenticated -kind:locate -kind:handle_expire",
        Feature::SignInAttempts => "kind:unauthenticated",
    }
}
