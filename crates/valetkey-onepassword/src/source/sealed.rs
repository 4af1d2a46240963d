//! Values that wait for whoever asks next: as noise, under a key that is wiped with them.

use std::collections::HashMap;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use valetkey_core::{ResolveError, SecretValue};
use zeroize::Zeroizing;

/// Values by field id, under one random key. The key lies beside them: this is against a value that is found
/// where nobody looks for it, in a dump or a swapped page, not against who reads this process's memory.
pub(super) struct Sealed {
    key: Zeroizing<[u8; 32]>,
    /// With the number of the value, which is its nonce.
    by_field: HashMap<Arc<str>, (u32, Vec<u8>)>,
}

impl Sealed {
    /// Seals values, and wipes them.
    pub(super) fn new(
        values: impl IntoIterator<Item = (Arc<str>, SecretValue)>,
    ) -> Result<Self, ResolveError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|_| ResolveError::Unavailable)?;
        let mut sealed = Self { key, by_field: HashMap::new() };
        for (number, (id, value)) in (0..).zip(values) {
            let message = Payload { msg: value.expose_secret(), aad: id.as_bytes() };
            let noise = sealed.cipher().encrypt(&nonce(number), message);
            sealed.by_field.insert(id, (number, noise.map_err(|_| ResolveError::Unavailable)?));
        }
        Ok(sealed)
    }

    /// The value of a field, where there is one.
    pub(super) fn open(&self, field_id: &str) -> Option<SecretValue> {
        let (number, noise) = self.by_field.get(field_id)?;
        let message = Payload { msg: noise, aad: field_id.as_bytes() };
        self.cipher().decrypt(&nonce(*number), message).ok().map(SecretValue::new)
    }

    /// How much it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        self.by_field.values().map(|(_, noise)| noise.len()).sum()
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(&Key::from(*self.key))
    }
}

/// Each key seals each number once.
fn nonce(number: u32) -> Nonce {
    let mut nonce = Nonce::default();
    for (place, byte) in nonce.iter_mut().zip(number.to_be_bytes()) {
        *place = byte;
    }
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_there_as_noise_and_come_back() {
        let values = [("a", "canary-1"), ("b", "canary-1"), ("c", "")];
        let sealed =
            Sealed::new(values.map(|(id, text)| (id.into(), SecretValue::new(text.into())))).unwrap();
        for (id, text) in values {
            assert_eq!(sealed.open(id).unwrap().expose_secret(), text.as_bytes());
            let noise = &sealed.by_field[id].1;
            assert!(!noise.windows(6).any(|window| window == b"canary"));
        }
        assert_ne!(sealed.by_field["a"].1, sealed.by_field["b"].1, "equal values do not show");
        assert!(sealed.open("d").is_none());
    }

    #[test]
    fn a_value_cannot_be_moved_to_another_field() {
        let values = ["a", "b"].map(|id| (id.into(), SecretValue::new(id.into())));
        let mut sealed = Sealed::new(values).unwrap();
        let moved = sealed.by_field.remove("a").unwrap();
        sealed.by_field.insert("b".into(), moved);
        assert!(sealed.open("b").is_none());
    }
}
