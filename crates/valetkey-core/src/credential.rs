//! What a caller showed to be known, by an id that may be logged, and when it ceases to count.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// What a caller showed. Clones are one and the same: where one is revoked, all are.
#[derive(Clone)]
pub struct Credential(Arc<Shown>);

struct Shown {
    id: Arc<str>,
    /// On the clock of [`crate::Clock::monotonic`].
    expires: Option<Duration>,
    /// Holds whether it was revoked, and wakes those who wait for that.
    revoked: watch::Sender<bool>,
}

impl Credential {
    /// One with this id, such as `vkt_<id>`: never what was shown itself. `expires` is a moment of the
    /// monotonic clock, so that a wall clock that jumps changes nothing.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>, expires: Option<Duration>) -> Self {
        Self(Arc::new(Shown { id: id.into(), expires, revoked: watch::Sender::new(false) }))
    }

    /// The part that may be logged.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.0.id
    }

    /// When it ends by itself, on the monotonic clock; `None`: never.
    #[must_use]
    pub fn expires(&self) -> Option<Duration> {
        self.0.expires
    }

    /// Ends it for everybody who holds it.
    pub fn revoke(&self) {
        self.0.revoked.send_replace(true);
    }

    /// Whether it was revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        *self.0.revoked.borrow()
    }

    /// Returns when it is revoked.
    pub async fn revoked(&self) {
        let mut revoked = self.0.revoked.subscribe();
        // The sender lives as long as `self`, so this returns only when it is so.
        let _ = revoked.wait_for(|revoked| *revoked).await;
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Credential {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
