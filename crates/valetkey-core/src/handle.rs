//! Handles: what an agent holds instead of a value, and the seal that only a handle opens.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use zeroize::Zeroizing;

use crate::bearer::{Bearer, BearerDigest, BearerError, PublicId};
use crate::secret::SecretValue;

/// The bearer string for one reference of one lease: `vkh_<id>_<secret><checksum>`.
///
/// No `Debug`, `Display`, `Serialize`, `Clone`, `PartialEq`. The broker makes it, gives it away and
/// keeps its digest.
pub struct Handle(Bearer);

/// The part of a handle that may be logged; prints as `vkh_<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleId(pub PublicId);

/// A value under a key that its handle alone can make. Without the handle it is noise, also to the
/// broker that stores it.
pub(crate) struct Sealed(Vec<u8>);

impl Handle {
    /// Makes a fresh handle.
    #[must_use]
    pub fn random() -> Self {
        Self(Bearer::random(PREFIX))
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// [`BearerError`] for a text that is no whole handle.
    pub fn parse(text: &str) -> Result<Self, BearerError> {
        Bearer::parse(PREFIX, text).map(Self)
    }

    /// The part that may be logged.
    #[must_use]
    pub fn id(&self) -> HandleId {
        HandleId(self.0.id())
    }

    /// The handle as text, for the agent alone.
    #[must_use]
    pub fn expose_secret(&self) -> Zeroizing<String> {
        self.0.expose_secret()
    }

    pub(crate) fn digest(&self) -> BearerDigest {
        self.0.digest()
    }

    /// Seals `value` for this handle: ChaCha20-Poly1305 with the id as associated data, so that a sealed
    /// value cannot be moved to another handle. The nonce is constant because each key seals once.
    pub(crate) fn seal(&self, value: &SecretValue) -> Option<Sealed> {
        let id = self.id().0;
        let message = Payload { msg: value.expose_secret(), aad: id.as_bytes() };
        self.cipher().encrypt(&Nonce::default(), message).ok().map(Sealed)
    }

    /// Opens what [`Handle::seal`] made with the same handle; `None` for anything else.
    pub(crate) fn open(&self, sealed: &Sealed) -> Option<SecretValue> {
        let id = self.id().0;
        let message = Payload { msg: &sealed.0, aad: id.as_bytes() };
        self.cipher().decrypt(&Nonce::default(), message).ok().map(SecretValue::new)
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(&Key::from(*self.0.derive(b"valetkey handle seal v1")))
    }
}

impl fmt::Display for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

const PREFIX: &str = "vkh_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_handle_opens_a_seal() {
        let (handle, other) = (Handle::random(), Handle::random());
        let sealed = handle.seal(&SecretValue::new(b"hunter2".to_vec())).unwrap();
        assert!(!sealed.0.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(handle.open(&sealed).unwrap().expose_secret(), b"hunter2");
        assert!(other.open(&sealed).is_none());
        let mut torn = sealed.0.clone();
        torn[0] ^= 1;
        assert!(handle.open(&Sealed(torn)).is_none());
    }

    #[test]
    fn the_id_is_the_beginning_of_the_text() {
        let handle = Handle::random();
        assert!(handle.expose_secret().starts_with(&format!("{}_", handle.id())));
    }
}
