//! How long records are kept.

use std::time::Duration;

/// How long records are kept; whichever bound is reached first counts. The default keeps them for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Records that are older are deleted.
    pub keep_for: Option<Duration>,
    /// The oldest records are deleted while the database has more bytes than this in use.
    pub keep_bytes: Option<u64>,
}
