//! The form of every bearer string: `<prefix>_<id>_<secret><checksum>`.
//!
//! The prefix and the checksum let secret scanners find a leak offline and without false alarms; the
//! id may be logged; the rest never. Handles (`vkh_`) and tokens (`vkt_`) are of this form: 61
//! characters, in base32hex lower case (RFC 4648 section 7, as RFC 5155 uses it):
//!
//! | part | bytes | characters |
//! | --- | --- | --- |
//! | id | 10 random | 16 |
//! | secret | 20 random (160 bits) | 32 |
//! | checksum | 5: the beginning of SHA-256 of all that stands before it | 8 |

use std::fmt;

use data_encoding::BASE32_DNSSEC;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A bearer string, apart. No `Debug`, `Display`, `Serialize`, `Clone`, `PartialEq`: it is as good as
/// what it opens.
pub struct Bearer {
    /// Four characters with the underscore, such as `vkh_`.
    prefix: &'static str,
    id: PublicId,
    /// Boxed: moving it moves a pointer, and leaves no copy behind that nobody wipes.
    secret: Box<Zeroizing<[u8; SECRET_BYTES]>>,
}

/// The part of a bearer string that may be logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicId([u8; ID_BYTES]);

/// SHA-256 of a bearer string's secret part: what is stored instead of it.
#[derive(Clone, Copy)]
pub struct BearerDigest([u8; 32]);

/// The text is no bearer string: wrong prefix, length, character or checksum. Which of them is not
/// said: it helps nobody but a guesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not whole: it has {TEXT_LENGTH} characters and ends in a checksum")]
pub struct BearerError;

impl Bearer {
    /// Makes a fresh one from the operating system's randomness.
    #[must_use]
    pub fn random(prefix: &'static str) -> Self {
        let mut secret = Box::new(Zeroizing::new([0; SECRET_BYTES]));
        fill_random(secret.as_mut_slice());
        Self { prefix, id: PublicId::random(), secret }
    }

    /// Parses the text form. Exactly one text stands for each bearer string.
    ///
    /// # Errors
    /// [`BearerError`] for everything that [`Bearer::expose_secret`] would not print.
    pub fn parse(prefix: &'static str, text: &str) -> Result<Self, BearerError> {
        if text.len() != TEXT_LENGTH || text.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(BearerError);
        }
        let (body, checksum) = text.split_at_checked(TEXT_LENGTH - CHECKSUM_LENGTH).ok_or(BearerError)?;
        let (id, secret) =
            body.strip_prefix(prefix).and_then(|rest| rest.split_once('_')).ok_or(BearerError)?;
        if !bool::from(checksum.as_bytes().ct_eq(checksum_of(body).as_bytes())) {
            return Err(BearerError);
        }
        let mut parsed = Box::new(Zeroizing::new([0; SECRET_BYTES]));
        decode(secret, parsed.as_mut_slice())?;
        Ok(Self { prefix, id: PublicId::parse(id)?, secret: parsed })
    }

    /// The part that may be logged.
    #[must_use]
    pub fn id(&self) -> PublicId {
        self.id
    }

    /// The whole string, to be handed to its bearer and nobody else.
    #[must_use]
    pub fn expose_secret(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LENGTH));
        text.push_str(self.prefix);
        BASE32_DNSSEC.encode_append(&self.id.0, &mut text);
        text.push('_');
        BASE32_DNSSEC.encode_append(self.secret.as_slice(), &mut text);
        let checksum = checksum_of(&text);
        text.push_str(&checksum);
        text
    }

    /// What to store in order to recognise it.
    #[must_use]
    pub fn digest(&self) -> BearerDigest {
        BearerDigest(*self.derive(b"valetkey bearer digest v1"))
    }

    /// A key that only the bearer can make, for one purpose: SHA-256 over `purpose` and the secret part.
    /// The secret part has 160 uniform bits, so one hash is derivation enough; no stretching is needed.
    pub(crate) fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update([u8::try_from(purpose.len()).unwrap_or(u8::MAX)]);
        hash.update(purpose);
        hash.update(self.id.0);
        hash.update(self.secret.as_slice());
        Zeroizing::new(hash.finalize().into())
    }
}

impl BearerDigest {
    /// Whether both are of one bearer string; takes the same time either way.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// From its bytes, as a table stores them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for storing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses 64 hexadecimal digits in lower case, as they stand in a configuration.
    ///
    /// # Errors
    /// [`BearerError`] for any other text.
    pub fn parse(hex: &str) -> Result<Self, BearerError> {
        let mut digest = [0; 32];
        if hex.len() != 64 || data_encoding::HEXLOWER.decode_mut(hex.as_bytes(), &mut digest).is_err() {
            return Err(BearerError);
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for BearerDigest {
    /// 64 hexadecimal digits in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl PublicId {
    /// Makes a fresh one: 80 random bits.
    #[must_use]
    pub fn random() -> Self {
        let mut id = [0; ID_BYTES];
        fill_random(&mut id);
        Self(id)
    }

    /// Parses 16 characters of `0-9 a-v`.
    ///
    /// # Errors
    /// [`BearerError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, BearerError> {
        let mut id = [0; ID_BYTES];
        if text.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(BearerError);
        }
        decode(text, &mut id)?;
        Ok(Self(id))
    }

    /// From its bytes, as a table stores them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for storing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ID_LENGTH];
        BASE32_DNSSEC.encode_mut(&self.0, &mut text);
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn checksum_of(body: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(body.as_bytes()).into();
    BASE32_DNSSEC.encode(hash.first_chunk::<CHECKSUM_BYTES>().map_or(&[], |first| first.as_slice()))
}

/// Decodes exactly `out.len()` bytes.
fn decode(text: &str, out: &mut [u8]) -> Result<(), BearerError> {
    if BASE32_DNSSEC.decode_len(text.len()) != Ok(out.len()) {
        return Err(BearerError);
    }
    BASE32_DNSSEC.decode_mut(text.as_bytes(), out).map(drop).map_err(|_| BearerError)
}

#[expect(
    clippy::expect_used,
    reason = "a machine without randomness must not issue anything; there is no way on"
)]
fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

const ID_BYTES: usize = 10;
const ID_LENGTH: usize = 16;
const SECRET_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 5;
const CHECKSUM_LENGTH: usize = 8;
const TEXT_LENGTH: usize = 4 + ID_LENGTH + 1 + 32 + CHECKSUM_LENGTH;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_form_round_trips() {
        let bearer = Bearer::random("vkh_");
        let text = bearer.expose_secret();
        assert_eq!(text.len(), 61);
        let again = Bearer::parse("vkh_", &text).ok().unwrap();
        assert_eq!(again.id(), bearer.id());
        assert!(again.digest().matches(&bearer.digest()));
        assert!(!Bearer::random("vkh_").digest().matches(&bearer.digest()));
        assert!(Bearer::parse("vkt_", &text).is_err());
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = Bearer::random("vkh_").expose_secret();
        for place in 0..text.len() {
            for other in ['0', 'a', 'v', 'z', 'A', '_', '\0'] {
                let changed: String =
                    text.chars().enumerate().map(|(i, c)| if i == place { other } else { c }).collect();
                assert_eq!(Bearer::parse("vkh_", &changed).is_ok(), changed == **text, "{place} {other}");
            }
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            prop_assert!(Bearer::parse("vkh_", &text).is_err());
            let _ = PublicId::parse(&text);
            let _ = BearerDigest::parse(&text);
        }
    }
}
