//! A signed token, taken apart but not yet believed (RFC 7519, in the compact form of RFC 7515).

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};
use valetkey_core::{Reason, scrub};

use super::algorithm::Algorithm;

/// The parts of a token. Nothing in it is true until the signature is checked.
pub(crate) struct Token<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Map<String, Value>,
    /// What is signed.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`Reason::JwtMalformed`], or [`Reason::JwtAlgorithm`] for `none`, `HS256` and whatever else is not
    /// signed by a key of which half is public.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Reason> {
        if text.len() > LENGTH_MAX {
            return Err(Reason::JwtMalformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Reason::JwtMalformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Reason::JwtMalformed)?;
        let header = object(header)?;
        // What must be understood and is not makes the token invalid (RFC 7515, section 4.1.11).
        if header.contains_key("crit") {
            return Err(Reason::JwtMalformed);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Reason::JwtMalformed)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Reason::JwtMalformed),
        };
        Ok(Self {
            algorithm: Algorithm::parse(algorithm).ok_or(Reason::JwtAlgorithm)?,
            key_id,
            claims: object(claims)?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// A claim that is a text.
    pub(crate) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// Who it says it is from and of, for the record: in few words, and marked as what it claims itself where its
    /// signature does not count.
    pub(super) fn said(&self, signed: bool) -> String {
        let claim = |name: &str, called: &str| {
            // Quotes that do not end where they should would let it say more than it is asked.
            let text = scrub(self.text(name)?, CLAIM_SAID_MAX).replace('`', "'");
            Some(format!("{called} `{text}`"))
        };
        let claims = [claim("iss", "issuer"), claim("sub", "subject"), claim("jti", "token id")];
        let claims: Vec<_> = claims.into_iter().flatten().collect();
        match (claims.is_empty(), signed) {
            (true, _) => "its token says neither issuer nor subject".to_owned(),
            (false, true) => format!("its token, which is signed, says {}", claims.join(", ")),
            (false, false) => format!("its token claims, unproved, {}", claims.join(", ")),
        }
    }

    /// A claim that is a moment, in seconds since 1970; fractions are cut off.
    ///
    /// # Errors
    /// [`Reason::JwtMalformed`] where it is there and no number.
    pub(crate) fn moment(&self, claim: &str) -> Result<Option<i64>, Reason> {
        match self.claims.get(claim) {
            None => Ok(None),
            Some(Value::Number(number)) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "held within the range of i64, which is far off"
                )]
                let cut = || number.as_f64().filter(|it| it.is_finite()).map(|it| it as i64);
                number.as_i64().or_else(cut).map(Some).ok_or(Reason::JwtMalformed)
            }
            Some(_) => Err(Reason::JwtMalformed),
        }
    }

    /// Whether it is meant for `audience`, alone or among others.
    pub(crate) fn is_for(&self, audience: &str) -> bool {
        match self.claims.get("aud") {
            Some(Value::String(only)) => only == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        }
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Reason> {
    match serde_json::from_slice(&decode(part)?) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(Reason::JwtMalformed),
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Reason::JwtMalformed)
}

/// The longest token that is looked at. The caller's and that of the person it acts for must both fit into
/// the headers of a request, which have 16 KiB.
const LENGTH_MAX: usize = 8 * 1024;
/// Bytes of one claim in a record.
const CLAIM_SAID_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::jwt::keys::KeySet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_anybody_sends_never_panics(text in "\\PC{0,80}", header in ".{0,40}", claims in ".{0,40}") {
            let _ = Token::parse(&text).map(drop);
            let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
            let _ = Token::parse(&format!("{}.{}.{}", part(&header), part(&claims), part(&text))).map(drop);
            let _ = KeySet::parse(text.as_bytes()).map(drop);
        }

        #[test]
        fn moments_are_whole_seconds(seconds in any::<i32>(), parts in 0u16..1000) {
            let claims = format!("{{\"exp\": {seconds}.{parts:03}, \"nbf\": 1e300, \"iat\": -1e300}}");
            let text = [r#"{"alg":"ES256"}"#, &claims, "x"].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
            let text = text.join(".");
            let token = Token::parse(&text).map_err(|reason| TestCaseError::fail(reason.as_str()))?;
            prop_assert_eq!(token.moment("exp"), Ok(Some(i64::from(seconds))));
            prop_assert_eq!(token.moment("nbf"), Ok(Some(i64::MAX)));
            prop_assert_eq!(token.moment("iat"), Ok(Some(i64::MIN)));
        }
    }
}
