//! The plaintext of a secret, in a type that cannot be printed, compared, copied or serialised.

use zeroize::Zeroizing;

/// A plaintext. Wiped from memory when dropped.
///
/// It has no `Debug`, `Display`, `Serialize`, `Clone` or `PartialEq`: each is a way for a value to reach
/// a log, an error or a second place in memory. [`SecretValue::expose_secret`] is the only way out, so
/// `rg expose_secret` lists every place that sees plaintext.
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes the plaintext over. The caller must not keep a copy.
    #[must_use]
    pub fn new(plaintext: Vec<u8>) -> Self {
        Self(Zeroizing::new(plaintext))
    }

    /// The plaintext.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8] {
        &self.0
    }
}
