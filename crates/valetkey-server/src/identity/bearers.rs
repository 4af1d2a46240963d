//! What a request's headers show: a token of our own, or one that an issuer has signed.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use valetkey_core::{Behalf, Claim, Credential, Identity, Reason};

use super::jwt::{Issuers, Use, person};
use crate::token::{TOKEN_PREFIX, Tokens};

/// Somebody, as shown.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) identity: Identity,
    pub(crate) credential: Credential,
    pub(crate) claims: Arc<[Claim]>,
}

/// Nobody, and what was shown all the same: for the record alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unshown {
    /// Why.
    pub(crate) reason: Reason,
    /// The id of what was shown, where it has the form of something. It may be made up.
    pub(crate) credential: Option<Arc<str>>,
    /// What it says, and whether its issuer says so or it claims so itself.
    pub(crate) said: Option<String>,
}

impl From<Reason> for Unshown {
    fn from(reason: Reason) -> Self {
        Self { reason, credential: None, said: None }
    }
}

impl Unshown {
    /// What a record says about it, after what was called.
    pub(crate) fn detail(&self, what: &str) -> String {
        match &self.said {
            Some(said) => format!("{what}; {said}"),
            None => what.to_owned(),
        }
    }
}

/// Everybody who may call by what a header brings.
pub(crate) struct Bearers {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) issuers: Issuers,
}

impl Bearers {
    /// Whom an `authorization` header shows.
    ///
    /// # Errors
    /// [`Unshown`]. The caller is not told.
    pub(crate) async fn identify(&self, authorization: &[u8]) -> Result<Shown, Unshown> {
        let text = str::from_utf8(authorization).map_err(|_| Reason::TokenMalformed)?;
        let (scheme, token) = text.split_once(' ').ok_or(Reason::TokenMalformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Reason::TokenMalformed.into());
        }
        // Ours have no dots, and theirs have two.
        match token.contains('.') && !token.starts_with(TOKEN_PREFIX) {
            true => self.issuers.verify(token, Use::Caller).await,
            false => self.tokens.identify(token),
        }
    }

    /// On whose behalf a request is, where it says so. What says so must be good: it is never passed over.
    ///
    /// # Errors
    /// [`Unshown`].
    pub(crate) async fn behalf(&self, headers: &HeaderMap) -> Result<Option<Behalf>, Unshown> {
        let mut all = headers.get_all(ON_BEHALF_OF).iter();
        let Some(one) = all.next() else { return Ok(None) };
        if all.next().is_some() {
            // Which of two was meant is not for us to guess.
            return Err(Reason::BehalfInvalid.into());
        }
        let token = one.to_str().map_err(|_| Reason::JwtMalformed)?;
        person(self.issuers.verify(token, Use::Behalf).await?).map(Some)
    }
}

/// The header with the signed token of the person that the caller acts for.
pub(crate) const ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-valetkey-on-behalf-of");
