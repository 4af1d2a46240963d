//! What one identity, one address and everybody without an identity can use up.
//!
//! [`Identities`] counts what each identity has; [`Places`] gives out the places for connections; [`Repeats`]
//! writes down what is refused again and again, so that neither the disk fills nor a refusal is lost.
//!
//! Not here: leases and handles, which the lease table of `valetkey-core` counts.

mod identities;
mod metered;
mod places;
mod repeats;

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use valetkey_core::{AuditRecord, Broker, Call, LeaseFull, Reason, RecordKind};

use crate::status;

pub use self::identities::IdentityLimits;
pub(crate) use self::identities::{Exceeded, Held, Identities};
pub(crate) use self::metered::{Meter, metered};
pub use self::places::PlaceLimits;
pub(crate) use self::places::{Place, Places, Standing};
pub use self::repeats::RepeatLimits;
pub(crate) use self::repeats::{Repeats, Source, What};

/// The bounds of identities, and what becomes of whoever reaches one.
pub(crate) struct Limiter {
    pub(crate) broker: Arc<Broker>,
    pub(crate) identities: Arc<Identities>,
    pub(crate) repeats: Arc<Repeats>,
}

impl Limiter {
    /// Refuses a call that goes over a bound; recorded once for each identity, bound and window, with the number
    /// of the others at the window's end.
    pub(crate) async fn refuse(&self, call: &Call, what: &str, exceeded: &Exceeded) -> Status {
        let Exceeded { limit, max, retry_after } = *exceeded;
        let now = self.broker.clock().now();
        let record = AuditRecord::refusal(now, RecordKind::Limit, Reason::IdentityLimit)
            .by(call)
            .with_detail(&format!("{limit} is at its bound of {max}: {what}"));
        let source = Source::Identity(call.caller.clone());
        match self.repeats.note(&self.broker, What::Limit(limit), source, record).await {
            Ok(record) => status::identity_limit(limit, max, retry_after, record),
            Err(_) => status::audit_unavailable(),
        }
    }

    /// The same, for a bound that the lease table keeps.
    pub(crate) async fn refuse_lease(&self, call: &Call, full: LeaseFull) -> Status {
        let max = u64::try_from(full.max).unwrap_or(u64::MAX);
        self.refuse(call, "a lease", &Exceeded { limit: full.limit, max, retry_after: RETRY_LEASE }).await
    }
}

/// When a lease or a handle may have ended.
const RETRY_LEASE: Duration = Duration::from_secs(1);
