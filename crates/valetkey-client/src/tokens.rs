//! The calls of whoever manages the broker's own tokens.

use std::time::Duration;

use valetkey_proto::v1;
use zeroize::Zeroizing;

use crate::broker::{Broker, bounded, duration};
use crate::error::CallError;

/// A token that was just made. Its secret is shown here and nowhere else.
///
/// No `Debug`, `Display` or `Clone`.
pub struct NewToken {
    /// What is known of it.
    pub token: v1::Token,
    /// The audit record of its making.
    pub record_id: String,
    secret: Zeroizing<String>,
}

/// A page of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenPage {
    /// The tokens, the newest first.
    pub tokens: Vec<v1::Token>,
    /// Where the next page begins; `None` at the end.
    pub next_page_token: Option<String>,
}

/// What a revocation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// How many leases ended with the token.
    pub leases_ended: u32,
    /// The audit record of the revocation.
    pub record_id: String,
}

impl NewToken {
    /// The token itself, for its bearer.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        &self.secret
    }
}

impl Broker {
    /// Makes a token for an identity such as `agent:travel-bot`, for the broker's usual time where no `ttl` is
    /// given.
    ///
    /// # Errors
    /// [`CallError`]; after [`CallError::TimedOut`] there may be a token that nobody has.
    pub async fn create_token(&self, identity: &str, ttl: Option<Duration>) -> Result<NewToken, CallError> {
        let ttl = ttl.map(duration);
        self.make_token(v1::CreateTokenRequest { identity: identity.to_owned(), ttl, ..Default::default() })
            .await
    }

    /// Makes a token for the Events API, which opens nothing else, for a person such as `person:ana`; for everything
    /// there, where no features are named.
    ///
    /// # Errors
    /// Likewise, and where the broker serves no Events API.
    pub async fn create_events_token(
        &self,
        identity: &str,
        ttl: Option<Duration>,
        features: impl IntoIterator<Item = v1::EventsFeature>,
    ) -> Result<NewToken, CallError> {
        self.make_token(v1::CreateTokenRequest {
            identity: identity.to_owned(),
            ttl: ttl.map(duration),
            usage: v1::TokenUsage::Events.into(),
            events_features: features.into_iter().map(Into::into).collect(),
        })
        .await
    }

    async fn make_token(&self, request: v1::CreateTokenRequest) -> Result<NewToken, CallError> {
        let v1::CreateTokenResponse { secret_token, token, record_id } =
            bounded(self.tokens.clone().create_token(request)).await?;
        Ok(NewToken { token: token.unwrap_or_default(), record_id, secret: Zeroizing::new(secret_token) })
    }

    /// Lists at most `page_size` (0: 50, at most 1,000) tokens, the newest first, from where `page_token` of
    /// the page before says; empty: from the newest.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a page token that is none.
    pub async fn list_tokens(&self, page_size: i32, page_token: &str) -> Result<TokenPage, CallError> {
        let request = v1::ListTokensRequest { page_size, page_token: page_token.to_owned() };
        let v1::ListTokensResponse { tokens, next_page_token } =
            bounded(self.tokens.clone().list_tokens(request)).await?;
        let next_page_token = (!next_page_token.is_empty()).then_some(next_page_token);
        Ok(TokenPage { tokens, next_page_token })
    }

    /// Revokes a token by its id, `vkt_` and 16 characters: its leases have ended when this returns.
    ///
    /// # Errors
    /// [`CallError::NotFound`] where there is none that counts.
    pub async fn revoke_token(&self, token_id: &str) -> Result<Revoked, CallError> {
        let request = v1::RevokeTokenRequest { token_id: token_id.to_owned() };
        let v1::RevokeTokenResponse { leases_ended, record_id } =
            bounded(self.tokens.clone().revoke_token(request)).await?;
        Ok(Revoked { leases_ended, record_id })
    }
}
