//! The ports to where secrets are kept: a directory of what exists, and a resolver of values.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::gate::Grant;
use crate::reference::SecretReference;
use crate::secret::SecretValue;
use crate::target::Target;

/// Knows what exists, without values.
pub trait Directory: Send + Sync {
    /// What a reference means. Looks only at what is known already and never asks the source, so that a
    /// request that will be refused costs nothing there and cannot be timed against it.
    fn locate(&self, reference: &SecretReference) -> Target;
}

/// Fetches values, given proof that it may.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Fetches the value of each grant's target, in order. What to fetch stands in the grant alone.
    /// Bounded in time: whatever happens, it returns.
    async fn resolve(&self, grants: &[&Grant]) -> Vec<Result<Resolved, ResolveError>>;
}

/// A value and where it came from.
pub struct Resolved {
    /// The value.
    pub value: SecretValue,
    /// The source's name in the configuration.
    pub source: Arc<str>,
    /// The item's version, where the source says it.
    pub item_version: Option<u64>,
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
    /// The source did not answer, or not in time, or not as it should.
    #[error("the source is not available")]
    Unavailable,
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
            Self::RateLimited { .. } => "RESOLVER_RATE_LIMITED",
            Self::Unavailable => "RESOLVER_UNAVAILABLE",
        }
    }

    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::VaultNotFound | Self::ItemNotFound | Self::NoMatchingSections | Self::FieldNotFound => {
                Fault::NotFound
            }
            Self::RateLimited { .. } => Fault::RateLimit,
            Self::Unavailable => Fault::Unavailable,
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
