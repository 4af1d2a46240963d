//! Requests about the broker's own tokens.

use std::time::Duration;

use valetkey_audit::TokenUsage;
use valetkey_core::{Identity, PublicId};
use valetkey_proto::v1;

use super::{Faults, INVALID_TTL, Violation, within};
use crate::events::Feature;
use crate::token::{EVENTS_TOKEN_PREFIX, TOKEN_PREFIX};

/// A request for a token.
pub(crate) struct NewTokenAsk {
    /// Whose it shall be.
    pub(crate) identity: Identity,
    /// How long it shall count.
    pub(crate) ttl: Duration,
    /// What for.
    pub(crate) purpose: TokenPurpose,
}

/// What a token shall be for.
pub(crate) enum TokenPurpose {
    /// Calls of the API.
    Api,
    /// This of the Events API; at least one.
    Events(Vec<Feature>),
}

impl TokenPurpose {
    /// As the table of tokens has it, and for the record.
    pub(crate) fn print(&self) -> (TokenUsage, String) {
        match self {
            Self::Api => (TokenUsage::Api, String::new()),
            Self::Events(features) => {
                let features: Vec<_> = features.iter().map(|feature| feature.as_str()).collect();
                (TokenUsage::Events, format!(", for events: {}", features.join(", ")))
            }
        }
    }
}

/// Parses a request for a token.
pub(crate) fn token(message: v1::CreateTokenRequest) -> Result<NewTokenAsk, Vec<Violation>> {
    let v1::CreateTokenRequest { identity, ttl, usage, events_features } = message;
    let mut faults = Faults::default();
    let parsed = Identity::parse(&identity);
    if parsed.is_none() {
        let problem = "must be `agent:`, `tool:` or `person:` and a name";
        faults.add_text("identity", "INVALID_IDENTITY", problem, &identity);
    }
    let ttl = match ttl {
        None => Some(TOKEN_TTL_USUAL),
        Some(ttl) => faults.take("ttl", INVALID_TTL, within(ttl, TOKEN_TTL_MIN, TOKEN_TTL_MAX)),
    };
    let purpose = faults.take("usage", "INVALID_TOKEN_USAGE", purpose(usage, &events_features));
    if let (Some(TokenPurpose::Events(_)), Some(Identity::Agent(_) | Identity::Tool(_))) = (&purpose, &parsed)
    {
        let problem = "must be a person: only people read the audit log";
        faults.add_text("identity", "INVALID_IDENTITY", problem, &identity);
    }
    let whole = parsed.zip(ttl).zip(purpose).filter(|_| faults.0.is_empty());
    whole.map(|((identity, ttl), purpose)| NewTokenAsk { identity, ttl, purpose }).ok_or(faults.0)
}

fn purpose(usage: i32, features: &[i32]) -> Result<TokenPurpose, &'static str> {
    match v1::TokenUsage::try_from(usage) {
        Ok(v1::TokenUsage::Unspecified | v1::TokenUsage::Api) if features.is_empty() => Ok(TokenPurpose::Api),
        Ok(v1::TokenUsage::Unspecified | v1::TokenUsage::Api) => {
            Err("must be TOKEN_USAGE_EVENTS where there are `events_features`")
        }
        Ok(v1::TokenUsage::Events) if features.is_empty() => Ok(TokenPurpose::Events(Feature::ALL.to_vec())),
        Ok(v1::TokenUsage::Events) => {
            let known: Option<Vec<_>> = features.iter().map(|feature| events_feature(*feature)).collect();
            let mut known = known
                .filter(|known| known.len() <= Feature::ALL.len())
                .ok_or("has `events_features` that there are not; there are three")?;
            known.sort_unstable();
            known.dedup();
            Ok(TokenPurpose::Events(known))
        }
        Err(_) => Err("must be TOKEN_USAGE_API or TOKEN_USAGE_EVENTS"),
    }
}

fn events_feature(feature: i32) -> Option<Feature> {
    match v1::EventsFeature::try_from(feature) {
        Ok(v1::EventsFeature::ItemUsages) => Some(Feature::ItemUsages),
        Ok(v1::EventsFeature::AuditEvents) => Some(Feature::AuditEvents),
        Ok(v1::EventsFeature::SignInAttempts) => Some(Feature::SignInAttempts),
        Ok(v1::EventsFeature::Unspecified) | Err(_) => None,
    }
}

/// Parses a token's id. A whole token is refused: it must not get into a record.
pub(crate) fn token_id(text: &str) -> Result<PublicId, Vec<Violation>> {
    let id = text.strip_prefix(TOKEN_PREFIX).or_else(|| text.strip_prefix(EVENTS_TOKEN_PREFIX));
    id.and_then(|id| PublicId::parse(id).ok()).ok_or_else(|| {
        let problem = "must be `vkt_` or `vke_` and 16 characters of `0-9 a-v`, nothing behind them";
        vec![Violation::new("token_id", "INVALID_TOKEN_ID", problem)]
    })
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TOKEN_TTL_MIN: Duration = Duration::from_secs(60);
const TOKEN_TTL_USUAL: Duration = DAY.saturating_mul(90);
const TOKEN_TTL_MAX: Duration = DAY.saturating_mul(365);
