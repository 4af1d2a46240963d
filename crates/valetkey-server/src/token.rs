//! Bearer tokens: `vkt_…` strings whose digests stand in the configuration.

use std::collections::HashMap;
use std::fmt;

use valetkey_core::{Bearer, BearerDigest, BearerError, Identity, PublicId, Reason};

/// What a token begins with.
pub const TOKEN_PREFIX: &str = "vkt_";

/// What the configuration keeps of a token: `vkt_<id>:<64 hexadecimal digits>`. Not a secret.
#[derive(Clone, Copy)]
pub struct TokenDigest {
    id: PublicId,
    digest: BearerDigest,
}

/// The known tokens and whose they are.
#[derive(Default)]
pub struct Tokens(HashMap<PublicId, (BearerDigest, Identity)>);

impl TokenDigest {
    /// The digest of a token.
    #[must_use]
    pub fn of(token: &Bearer) -> Self {
        Self { id: token.id(), digest: token.digest() }
    }

    /// The part that may be logged.
    #[must_use]
    pub fn id(&self) -> PublicId {
        self.id
    }

    /// Parses the form that stands in a configuration.
    ///
    /// # Errors
    /// [`BearerError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, BearerError> {
        let (id, digest) =
            text.strip_prefix(TOKEN_PREFIX).and_then(|rest| rest.split_once(':')).ok_or(BearerError)?;
        Ok(Self { id: PublicId::parse(id)?, digest: BearerDigest::parse(digest)? })
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN_PREFIX}{}:{}", self.id, self.digest)
    }
}

impl Tokens {
    /// The tokens of a configuration. Of two with one id the later would win; `config.rs` refuses them.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (TokenDigest, Identity)>) -> Self {
        Self(entries.into_iter().map(|(token, identity)| (token.id, (token.digest, identity))).collect())
    }

    /// Whose token an `authorization` header carries.
    ///
    /// # Errors
    /// The [`Reason`] for the record. The caller is not told.
    pub fn identify(&self, authorization: &[u8]) -> Result<&Identity, Reason> {
        let text = str::from_utf8(authorization).map_err(|_| Reason::TokenMalformed)?;
        let (scheme, token) = text.split_once(' ').ok_or(Reason::TokenMalformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Reason::TokenMalformed);
        }
        let token = Bearer::parse(TOKEN_PREFIX, token).map_err(|_| Reason::TokenMalformed)?;
        let (digest, identity) = self.0.get(&token.id()).ok_or(Reason::TokenUnknown)?;
        if !digest.matches(&token.digest()) {
            return Err(Reason::TokenUnknown);
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use valetkey_core::testing::agent;

    #[test]
    fn tokens_identify() {
        let (token, other) = (Bearer::random(TOKEN_PREFIX), Bearer::random(TOKEN_PREFIX));
        let bot = Identity::Agent(agent("bot"));
        let digest = TokenDigest::parse(&TokenDigest::of(&token).to_string()).ok().unwrap();
        let tokens = Tokens::new([(digest, bot.clone())]);
        let check = |header: &str, who: Result<&Identity, Reason>| {
            assert_eq!(tokens.identify(header.as_bytes()), who, "{header:?}");
        };
        let text = token.expose_secret();
        check(&format!("Bearer {}", *text), Ok(&bot));
        check(&format!("bearer {}", *text), Ok(&bot));
        check(&text, Err(Reason::TokenMalformed));
        check(&format!("Basic {}", *text), Err(Reason::TokenMalformed));
        check(&format!("Bearer {} ", *text), Err(Reason::TokenMalformed));
        check(&format!("Bearer {}", *other.expose_secret()), Err(Reason::TokenUnknown));
        let handle = Bearer::random("vkh_").expose_secret();
        check(&format!("Bearer {}", *handle), Err(Reason::TokenMalformed));
    }
}
