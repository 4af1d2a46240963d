//! What a reference means: the one thing that all its spellings have in common, and the only thing that
//! policy sees of it.

use std::sync::Arc;

use crate::resolver::{ResolveError, ResolveFailure};

/// The meaning of a reference, found in a [`crate::Directory`] without asking the source for anything.
///
/// Names are case-insensitive, ids work as well as names, and the section may be left out; every
/// spelling of one secret leads to one `Target`, and so to one decision. What leads nowhere is
/// [`Target::Unresolved`]: it is decided like everything else, on what is known of it, and can never be
/// fetched. So an agent that is refused cannot tell whether a thing exists, and one that is allowed to
/// use a whole vault may learn that an item is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One field of one item.
    Field(FieldTarget),
    /// Nothing, or more than one thing.
    Unresolved {
        /// The vault, where that much is clear.
        vault: Option<Named>,
        /// The item, where that much is clear; only with a vault.
        item: Option<Named>,
        /// Why it ends there, in the words of the SDK core.
        error: ResolveError,
    },
    /// The source could not be asked. Nothing is decided on it; it is refused with the source's failure.
    Unknown {
        /// The vault, where that much is clear.
        vault: Option<Named>,
        /// The item, where that much is clear; only with a vault.
        item: Option<Named>,
        /// What the source said.
        failure: ResolveFailure,
    },
}

/// One field of one item in one vault.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldTarget {
    /// The vault.
    pub vault: Named,
    /// The item.
    pub item: Named,
    /// The field's id, unique in its item.
    pub field_id: Arc<str>,
    /// The field's label in lower case: what policies call `resource.field`.
    pub field: Arc<str>,
    /// The label of the field's section in lower case; empty where it has none.
    pub section: Arc<str>,
    /// What is asked for: the value, or something made from it.
    pub facet: Facet,
}

/// What of a field is asked for. Each but [`Facet::Seed`] needs the policy action `acquire`; the seed of
/// a one-time password needs `acquireSeed`, because it is worth all codes to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Facet {
    /// The value as it stands.
    Value,
    /// The current code of a one-time password.
    Otp,
    /// The URI of a one-time password, with its seed.
    Seed,
    /// A private key in OpenSSH's form.
    OpensshKey,
}

/// A vault or an item, by its id and the name that policies may use for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Named {
    /// The source's id.
    pub id: Arc<str>,
    /// The name in lower case.
    pub name: Arc<str>,
    /// Whether the name stands for this thing alone. A name that two things share, or that looks like
    /// an id, still forbids what a policy forbids by it, but permits nothing.
    pub name_is_unique: bool,
}

impl Target {
    /// Before it was looked for: nothing is known, and nothing can be fetched.
    pub(crate) fn not_located() -> Self {
        Self::Unresolved { vault: None, item: None, error: ResolveError::VaultNotFound }
    }

    /// The vault, where it is known.
    #[must_use]
    pub fn vault(&self) -> Option<&Named> {
        match self {
            Self::Field(field) => Some(&field.vault),
            Self::Unresolved { vault, .. } | Self::Unknown { vault, .. } => vault.as_ref(),
        }
    }

    /// The item, where it is known.
    #[must_use]
    pub fn item(&self) -> Option<&Named> {
        match self {
            Self::Field(field) => Some(&field.item),
            Self::Unresolved { item, .. } | Self::Unknown { item, .. } => item.as_ref(),
        }
    }

    /// Why it leads nowhere; `None` where it leads to a field.
    #[must_use]
    pub fn error(&self) -> Option<&ResolveError> {
        match self {
            Self::Field(_) => None,
            Self::Unresolved { error, .. } => Some(error),
            Self::Unknown { failure, .. } => Some(&failure.error),
        }
    }

    /// The field, where it is known.
    #[must_use]
    pub fn field(&self) -> Option<&FieldTarget> {
        match self {
            Self::Field(field) => Some(field),
            Self::Unresolved { .. } | Self::Unknown { .. } => None,
        }
    }
}

impl Facet {
    /// What policies call `resource.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Otp => "otp",
            Self::Seed => "seed",
            Self::OpensshKey => "openssh_key",
        }
    }
}
