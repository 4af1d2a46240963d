//! The ports to where secrets are kept: a directory of what exists, and a resolver of values.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::gate::{Grant, Survey};
use crate::inventory::Inventory;
use crate::reference::SecretReference;
use crate::secret::SecretValue;
use crate::target::Target;

/// Knows what exists, without values.
#[async_trait]
pub trait Directory: Send + Sync {
    /// What a reference means. Looks only at what is known already and never asks the source, so that a
    /// request that will be refused costs nothing there and cannot be timed against it.
    fn locate(&self, reference: &SecretReference) -> Located;

    /// Asks the source for what [`Directory::locate`] did not know, each survey for its own gap and no
    /// more, given proof that the question was written down. In order; bounded in time and in what it may
    /// cost. After it, `locate` knows more, or the gap is closed because the source has nothing to add.
    async fn learn(&self, surveys: &[&Survey]) -> Vec<Result<(), ResolveFailure>>;

    /// The items that are known. Asks the source nothing; bounded, and may take a moment: call it where it may
    /// block.
    fn inventory(&self) -> Inventory;
}

/// What a reference means, as far as is known.
pub struct Located {
    /// The meaning.
    pub target: Target,
    /// What the source could add; `None` where that is all there is.
    pub gap: Option<Gap>,
}

/// What is not known, or not freshly enough, on the way to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gap {
    /// Which vaults there are.
    Vaults,
    /// Which items the vault has.
    Items,
    /// Which fields the item has.
    Fields,
}

/// Fetches values, given proof that it may.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Fetches the value of each grant's target, in order. What to fetch stands in the grant alone.
    /// Bounded in time: whatever happens, it returns.
    ///
    /// Where the target of a grant no longer means what it meant, it is [`ResolveError::Changed`]: the
    /// directory knows the new meaning by then, and the request is decided again.
    async fn resolve(&self, grants: &[&Grant]) -> Vec<Result<Resolved, ResolveFailure>>;
}

/// A value and where it came from.
pub struct Resolved {
    /// The value.
    pub value: SecretValue,
    /// Where it came from.
    pub provenance: Provenance,
}

/// Where a value came from, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The source's name in the configuration.
    pub source: Arc<str>,
    /// The item's version, where the source says it.
    pub item_version: Option<u64>,
    /// When it was read from the source.
    pub read_time: Timestamp,
}

/// A reference that gives no value: the kind for the caller, the story for the reviewer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{error}")]
pub struct ResolveFailure {
    /// The kind.
    pub error: ResolveError,
    /// What the source said; scrubbed, without anything secret. For the record alone.
    pub detail: Option<Arc<str>>,
}

impl From<ResolveError> for ResolveFailure {
    fn from(error: ResolveError) -> Self {
        Self { error, detail: None }
    }
}

/// Why a reference gives no value: one to one with the kinds of the SDK core's resolve errors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResolveError {
    /// `vaultNotFound`
    #[error("no vault matches the reference")]
    VaultNotFound,
    /// `tooManyVaults`
    #[error("more than one vault matches the reference; name it by its id")]
    TooManyVaults,
    /// `itemNotFound`
    #[error("no item matches the reference")]
    ItemNotFound,
    /// `tooManyItems`
    #[error("more than one item matches the reference; name it by its id")]
    TooManyItems,
    /// `noMatchingSections`
    #[error("no section of the item matches the reference")]
    NoMatchingSections,
    /// `fieldNotFound`
    #[error("no field of the item matches the reference")]
    FieldNotFound,
    /// `tooManyMatchingFields`
    #[error(
        "more than one field of the item matches the reference; name its section, or the field by its id"
    )]
    TooManyMatchingFields,
    /// `incompatibleTOTPQueryParameterField`
    #[error("`?attribute=otp` applies to one-time passwords only, and the field is none")]
    IncompatibleTotpQueryParameterField,
    /// `unableToGenerateTotpCode`
    #[error("the one-time password's code cannot be made: its seed is malformed")]
    UnableToGenerateTotpCode,
    /// `incompatibleSshKeyQueryParameterField`
    #[error("`?ssh-format=openssh` applies to private keys only, and the field is none")]
    IncompatibleSshKeyQueryParameterField,
    /// `unableToParsePrivateKey`, `unableToFormatPrivateKeyToOpenSsh`, `sSHKeyMetadataNotFound`
    #[error("the private key cannot be put into OpenSSH's form")]
    UnableToFormatPrivateKey,
    /// `unsupportedFileFormat`
    #[error("the file is no text")]
    UnsupportedFileFormat,
    /// `item is not in an active state`
    #[error("the item is archived or deleted")]
    ItemNotActive,
    /// The source's quota is spent.
    #[error("the source limits its rate")]
    RateLimited {
        /// When to ask again.
        retry_after: Duration,
    },
    /// What the broker may ask the source, set below the source's quota, is spent.
    #[error("this broker's budget for the source is spent")]
    BudgetSpent {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The source is left alone after it failed like this.
    #[error("{error}")]
    Paused {
        /// How it failed.
        error: Box<ResolveError>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The source did not answer, or not in time, or not as it should.
    #[error("the source is not available")]
    Unavailable,
    /// The source does not take the broker's own credentials: revoked, expired, or never right.
    #[error("the source does not accept the broker's credentials")]
    CredentialsRefused,
    /// The item was changed between the decision and the read.
    #[error("the item was changed meanwhile; ask again")]
    Changed,
}

/// Who has to act on a [`ResolveError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller named nothing.
    NotFound,
    /// The caller named something that cannot be given as asked.
    Precondition,
    /// Nobody: wait.
    RateLimit,
    /// The operator.
    Unavailable,
}

impl Gap {
    /// The name in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vaults => "vaults",
            Self::Items => "items",
            Self::Fields => "fields",
        }
    }
}

impl ResolveError {
    /// The stable code: `ErrorInfo.reason`, and the reason in the log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::VaultNotFound => "VAULT_NOT_FOUND",
            Self::TooManyVaults | Self::TooManyItems | Self::TooManyMatchingFields => "AMBIGUOUS_REFERENCE",
            Self::ItemNotFound => "ITEM_NOT_FOUND",
            Self::NoMatchingSections => "SECTION_NOT_FOUND",
            Self::FieldNotFound => "FIELD_NOT_FOUND",
            Self::IncompatibleTotpQueryParameterField => "FIELD_NOT_OTP",
            Self::UnableToGenerateTotpCode => "OTP_SEED_MALFORMED",
            Self::IncompatibleSshKeyQueryParameterField => "FIELD_NOT_PRIVATE_KEY",
            Self::UnableToFormatPrivateKey => "PRIVATE_KEY_MALFORMED",
            Self::UnsupportedFileFormat => "FILE_NOT_TEXT",
            Self::ItemNotActive => "ITEM_NOT_ACTIVE",
            Self::RateLimited { .. } | Self::BudgetSpent { .. } => "RESOLVER_RATE_LIMITED",
            Self::Paused { error, .. } => error.code(),
            Self::Unavailable => "RESOLVER_UNAVAILABLE",
            Self::CredentialsRefused => "RESOLVER_CREDENTIALS_REFUSED",
            Self::Changed => "REFERENCE_CHANGED",
        }
    }

    /// When to ask again, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after }
            | Self::BudgetSpent { retry_after }
            | Self::Paused { error: _, retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::VaultNotFound | Self::ItemNotFound | Self::NoMatchingSections | Self::FieldNotFound => {
                Fault::NotFound
            }
            Self::RateLimited { .. } | Self::BudgetSpent { .. } => Fault::RateLimit,
            Self::Paused { error, .. } => error.fault(),
            Self::Unavailable | Self::CredentialsRefused | Self::Changed => Fault::Unavailable,
            Self::TooManyVaults
            | Self::TooManyItems
            | Self::TooManyMatchingFields
            | Self::IncompatibleTotpQueryParameterField
            | Self::UnableToGenerateTotpCode
            | Self::IncompatibleSshKeyQueryParameterField
            | Self::UnableToFormatPrivateKey
            | Self::UnsupportedFileFormat
            | Self::ItemNotActive => Fault::Precondition,
        }
    }
}
