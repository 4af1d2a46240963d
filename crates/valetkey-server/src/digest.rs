//! SHA-256, in one call.

use sha2::{Digest, Sha256};

/// The digest of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
