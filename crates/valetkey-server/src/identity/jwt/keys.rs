//! The keys that an issuer publishes (a JWK set, RFC 7517).

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use valetkey_core::Reason;

use super::algorithm::{Algorithm, PublicKey};
use super::token::Token;

/// A set of keys.
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, where it says so.
    algorithm: Option<Algorithm>,
    public: PublicKey,
}

/// Why a text is no set of keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("it is not the JSON of a JWK set")]
    Json,
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("it has no key that could sign a token")]
    Empty,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<Entry<'a>>,
}

/// One key as it is published. What is of no use to us, or has no public half, is passed over: a set may
/// serve others too.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    kid: Option<String>,
    #[serde(borrow, rename = "use")]
    usage: Option<Cow<'a, str>>,
    #[serde(borrow)]
    alg: Option<Cow<'a, str>>,
    #[serde(borrow)]
    crv: Option<Cow<'a, str>>,
    #[serde(borrow)]
    n: Option<Cow<'a, str>>,
    #[serde(borrow)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow)]
    y: Option<Cow<'a, str>>,
}

impl KeySet {
    /// Parses a set.
    ///
    /// # Errors
    /// [`KeySetError`] where it is none, or of no use.
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let Document { keys } = serde_json::from_slice(text).map_err(|_| KeySetError::Json)?;
        if keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<_> = keys.into_iter().filter_map(Key::from_entry).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(keys)) }
    }

    /// Whether it has a key that the token can mean. A token that names none means any.
    pub(super) fn knows(&self, key_id: Option<&str>) -> bool {
        self.named(key_id).next().is_some()
    }

    /// Checks the signature of a token.
    ///
    /// # Errors
    /// The [`Reason`] for the record.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), Reason> {
        let named: Vec<_> = self.named(token.key_id.as_deref()).collect();
        if named.is_empty() {
            return Err(Reason::JwtKeyUnknown);
        }
        let of_type =
            named.into_iter().filter(|key| key.algorithm.is_none_or(|only| only == token.algorithm));
        let mut verdicts = of_type
            .filter_map(|key| token.algorithm.verify(&key.public, token.signed, &token.signature))
            .peekable();
        if verdicts.peek().is_none() {
            return Err(Reason::JwtKeyMismatch);
        }
        if verdicts.any(|is_good| is_good) { Ok(()) } else { Err(Reason::JwtSignature) }
    }

    fn named(&self, key_id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| key_id.is_none_or(|id| key.id.as_deref() == Some(id)))
    }
}

impl Key {
    fn from_entry(entry: Entry<'_>) -> Option<Self> {
        let Entry { kty, kid, usage, alg, crv, n, e, x, y } = entry;
        if usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let algorithm = match alg {
            Some(name) => Some(Algorithm::parse(&name)?),
            None => None,
        };
        let bytes = |text: Option<Cow<'_, str>>| BASE64URL_NOPAD.decode(text?.as_bytes()).ok();
        let point = |size: usize, x, y| {
            let (x, y) = (bytes(x)?, bytes(y)?);
            (x.len() == size && y.len() == size).then(|| [&[UNCOMPRESSED][..], &x, &y].concat())
        };
        let public = match (&*kty, crv.as_deref()) {
            ("RSA", None) => PublicKey::Rsa { n: bytes(n)?, e: bytes(e)? },
            ("EC", Some("P-256")) => PublicKey::P256(point(32, x, y)?),
            ("EC", Some("P-384")) => PublicKey::P384(point(48, x, y)?),
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519(bytes(x).filter(|x| x.len() == 32)?),
            _ => return None,
        };
        Some(Self { id: kid, algorithm, public })
    }
}

/// Keys in one set.
const KEYS_MAX: usize = 100;
/// How a point begins that is not compressed (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let check = |text: &str, expected: Result<usize, &str>| {
            let parsed =
                KeySet::parse(text.as_bytes()).map(|set| set.0.len()).map_err(|error| error.to_string());
            assert_eq!(parsed, expected.map_err(ToOwned::to_owned), "{text}");
        };
        let x = "A".repeat(43);
        let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}"#);
        check(&format!(r#"{{"keys":[{good}]}}"#), Ok(1));
        let shared = r#"{"kty":"oct","kid":"a","k":"AAAA"}"#;
        let to_encrypt = good.replace(r#""kid""#, r#""use":"enc","kid""#);
        let for_hmac = good.replace(r#""kid""#, r#""alg":"HS256","kid""#);
        check(&format!(r#"{{"keys":[{good},{shared},{to_encrypt},{for_hmac}]}}"#), Ok(1));
        check(&format!(r#"{{"keys":[{shared}]}}"#), Err("it has no key that could sign a token"));
        check(
            &good.replace(&x, "AAAA").replacen('{', r#"{"keys":[{"#, 1).replace('}', "}]}"),
            Err("it has no key that could sign a token"),
        );
        check(r#"{"keys":[]}"#, Err("it has no key that could sign a token"));
        check(
            &format!(r#"{{"keys":[{}]}}"#, vec![good.as_str(); 101].join(",")),
            Err("it has more than 100 keys"),
        );
        for bad in ["", "[]", "<html>", r#"{"keys":{}}"#, "{"] {
            check(bad, Err("it is not the JSON of a JWK set"));
        }
    }
}
