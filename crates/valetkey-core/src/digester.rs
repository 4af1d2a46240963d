//! Keyed digests of values: what lets the log say where a value went without holding it.
//!
//! HMAC-SHA-256, cut to 16 bytes. Equal values have equal digests under one key; without the key nobody gets from a
//! digest to a value, nor tells which value of a list it is of. Whoever has the key can try values: a digest protects
//! a value only as well as the value itself is hard to guess.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::audit::ValueDigest;
use crate::bearer::{Bearer, BearerError, PublicId};
use crate::secret::SecretValue;

/// The digest key at work. No `Debug`, `Display`, `Serialize`, `Clone`; wiped when dropped.
pub struct ValueDigester {
    id: PublicId,
    /// Boxed: moving it moves a pointer, and leaves no copy behind that nobody wipes.
    key: Box<Zeroizing<[u8; 32]>>,
}

impl ValueDigester {
    /// Makes a fresh key; its text form, which is what a file holds: [`DIGEST_KEY_PREFIX`] and the form of a bearer
    /// string.
    #[must_use]
    pub fn random_key() -> Zeroizing<String> {
        Bearer::random(DIGEST_KEY_PREFIX).expose_secret()
    }

    /// From a key's text form.
    ///
    /// # Errors
    /// [`BearerError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, BearerError> {
        let key = Bearer::parse(DIGEST_KEY_PREFIX, text)?;
        Ok(Self { id: key.id(), key: Box::new(key.derive(b"valetkey value digest v1")) })
    }

    /// What may be logged of the key: `vkd_<id>`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{DIGEST_KEY_PREFIX}{}", self.id)
    }

    /// The digest of a value. Reads it once and copies nothing of it.
    #[must_use]
    pub fn digest(&self, value: &SecretValue) -> ValueDigest {
        let whole = keyed(&self.key).chain_update(value.expose_secret()).finalize().into_bytes();
        let mut digest = [0; 16];
        digest.iter_mut().zip(whole).for_each(|(place, byte)| *place = byte);
        ValueDigest(digest)
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key")
}

/// What the text form of a digest key begins with.
pub const DIGEST_KEY_PREFIX: &str = "vkd_";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digester(seed: u8) -> ValueDigester {
        ValueDigester { id: PublicId::from_bytes([seed; 10]), key: Box::new(Zeroizing::new([seed; 32])) }
    }

    fn digest(digester: &ValueDigester, value: &[u8]) -> ValueDigest {
        digester.digest(&SecretValue::new(value.to_vec()))
    }

    /// RFC 4231 has no key of 32 bytes; these are from OpenSSL: `openssl mac -digest SHA256 -macopt hexkey:… HMAC`.
    #[test]
    fn it_is_hmac_sha_256() {
        let found = digest(&digester(0x0b), b"Hi There").to_string();
        assert_eq!(found, OPENSSL);
    }

    #[test]
    fn a_key_is_parsed_and_names_itself() {
        let text = ValueDigester::random_key();
        let (one, same) = (ValueDigester::parse(&text).unwrap(), ValueDigester::parse(&text).unwrap());
        assert_eq!(digest(&one, b"value"), digest(&same, b"value"));
        assert!(text.starts_with(&format!("{}_", one.id())));
        for bad in
            ["", "vkd_", &text.replacen("vkd_", "vkt_", 1), &text.to_uppercase(), &format!("{}x", *text)]
        {
            assert!(ValueDigester::parse(bad).is_err());
        }
        let other = ValueDigester::parse(&ValueDigester::random_key()).unwrap();
        assert_ne!(digest(&one, b"value"), digest(&other, b"value"), "another key");
    }

    proptest! {
        #[test]
        fn equal_values_alone_have_equal_digests(one in prop::collection::vec(any::<u8>(), 0..200), other in prop::collection::vec(any::<u8>(), 0..200)) {
            let digester = digester(7);
            prop_assert_eq!(digest(&digester, &one) == digest(&digester, &other), one == other);
            prop_assert_eq!(digest(&digester, &one), digest(&digester, &one));
        }
    }

    const OPENSSL: &str = "198a607eb44bfbc69903a0f1cf2bbdc5";
}
