//! The port to one place where items are kept: what every source can be asked, and how it fails.

use std::sync::Arc;

use async_trait::async_trait;
use valetkey_core::{ResolveError, ResolveFailure, SecretValue, scrub};

use crate::item::{ItemOutline, ItemState, ItemValues, Vault};

/// One set of credentials for one place where items are kept. Asks what it is asked, each time: who calls it
/// keeps what it learnt, merges what is asked twice, and has the proof that it may be asked.
///
/// Every call is bounded in time. What comes back is checked: ids have the form of ids, sections and fields
/// have ids that a reference can say, nothing is over its bound.
#[async_trait]
pub(crate) trait Upstream: Send + Sync {
    /// The vaults that the credentials can see.
    async fn vaults(&self) -> Result<Vec<Vault>, UpstreamError>;

    /// The items of a vault, without fields.
    async fn items(&self, vault_id: &str) -> Result<Vec<ItemSummary>, UpstreamError>;

    /// One item with its values. Files may be without content; then [`Upstream::file`] has it.
    async fn item(&self, vault_id: &str, item_id: &str) -> Result<(ItemOutline, ItemValues), UpstreamError>;

    /// The content of a file of an item.
    async fn file(&self, vault_id: &str, item_id: &str, file_id: &str) -> Result<SecretValue, UpstreamError>;

    /// How many requests a question costs there, at most: what counts against a quota.
    fn cost(&self, question: Question) -> u32;

    /// How many more the next question may cost, because there has to be a sign-in before it.
    fn sign_in_cost(&self) -> u32 {
        0
    }

    /// How many requests were made for signing in since this was last asked. Counted before they are made.
    fn take_sign_in_spending(&self) -> u32 {
        0
    }
}

/// An item without its fields.
pub(crate) struct ItemSummary {
    pub(crate) id: Arc<str>,
    pub(crate) title: Arc<str>,
    pub(crate) state: ItemState,
}

/// What an [`Upstream`] can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Vaults,
    Items,
    Item,
    File,
}

/// How an [`Upstream`] fails: the kind, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamError {
    pub(crate) error: ResolveError,
    /// In its own words, scrubbed; never a value, a token or a part of one.
    detail: String,
    /// How far the question came.
    pub(crate) progress: Progress,
}

/// How far a question came that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It was certainly never sent: it costs nothing.
    Unsent,
    /// It was sent, or may have been.
    Sent,
    /// The source did answer, with something that cannot be used: no sign that it is out of order.
    Answered,
}

impl UpstreamError {
    /// A failure and the text that the source gave for it. The text is scrubbed here; that nothing secret is
    /// in it is for the source to see to.
    pub(crate) fn new(error: ResolveError, detail: &str) -> Self {
        Self { error, detail: scrub(detail, DETAIL_MAX), progress: Progress::Sent }
    }

    /// A failure of a question that was certainly never sent, so that it costs nothing.
    pub(crate) fn unsent(error: ResolveError, detail: &str) -> Self {
        Self::new(error, detail).into_unsent()
    }

    /// The same failure, of a question that was certainly never sent.
    pub(crate) fn into_unsent(self) -> Self {
        Self { progress: Progress::Unsent, ..self }
    }

    /// A failure of what was answered: it is malformed or over a bound, so nothing can be made of it.
    pub(crate) fn unusable(detail: &str) -> Self {
        Self { progress: Progress::Answered, ..Self::new(ResolveError::Unavailable, detail) }
    }
}

impl From<UpstreamError> for ResolveFailure {
    fn from(UpstreamError { error, detail, progress: _ }: UpstreamError) -> Self {
        Self { error, detail: Some(detail.into()) }
    }
}

const DETAIL_MAX: usize = 1_024;
