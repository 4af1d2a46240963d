//! Arguments about the Events API.

use clap::{Args, ValueEnum};
use valetkey_client::EventsFeature;

/// What a token is for, beside calls of the broker.
#[derive(Args)]
pub(crate) struct TokenUse {
    /// Make it for the Events API, and nothing else: a signed token, for a client of 1Password's Events API
    #[arg(long, requires = "person", conflicts_with = "config")]
    pub(crate) events: bool,
    /// What it opens there [default: everything]
    #[arg(long, value_enum, value_name = "FEATURE", value_delimiter = ',', requires = "events")]
    pub(crate) features: Vec<Feature>,
}

/// What a token for the Events API opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Feature {
    /// Values that were released
    ItemUsages,
    /// What was refused, granted, ended and changed
    AuditEvents,
    /// Callers without an identity
    SignInAttempts,
}

impl From<Feature> for EventsFeature {
    fn from(feature: Feature) -> Self {
        match feature {
            Feature::ItemUsages => Self::ItemUsages,
            Feature::AuditEvents => Self::AuditEvents,
            Feature::SignInAttempts => Self::SignInAttempts,
        }
    }
}
