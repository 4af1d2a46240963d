//! How tokens are signed: asymmetric algorithms alone, each bound to its type of key.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

/// An algorithm of RFC 7518 or RFC 8037. There is none for a shared secret: whoever can check it could sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS#1 v1.5.
    Rs256,
    /// The same.
    Rs384,
    /// The same.
    Rs512,
    /// RSA, PSS.
    Ps256,
    /// The same.
    Ps384,
    /// The same.
    Ps512,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// The public half of a key.
pub(crate) enum PublicKey {
    /// Modulus and exponent, big-endian.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point, not compressed.
    P256(Vec<u8>),
    /// The same.
    P384(Vec<u8>),
    /// 32 bytes.
    Ed25519(Vec<u8>),
}

impl Algorithm {
    /// Every algorithm and its name in `alg`.
    pub(crate) const ALL: [(Self, &'static str); 9] = [
        (Self::Rs256, "RS256"),
        (Self::Rs384, "RS384"),
        (Self::Rs512, "RS512"),
        (Self::Ps256, "PS256"),
        (Self::Ps384, "PS384"),
        (Self::Ps512, "PS512"),
        (Self::Es256, "ES256"),
        (Self::Es384, "ES384"),
        (Self::EdDsa, "EdDSA"),
    ];

    /// The algorithm of that name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(algorithm, known)| (known == name).then_some(algorithm))
    }

    /// Whether a signature over `signed` is of `key`; `None` where that is no key for this algorithm.
    pub(crate) fn verify(self, key: &PublicKey, signed: &[u8], signature: &[u8]) -> Option<bool> {
        let rsa = |parameters: &RsaParameters, n: &Vec<u8>, e: &Vec<u8>| {
            RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
        };
        let plain = |algorithm: &'static dyn VerificationAlgorithm, key: &Vec<u8>| {
            UnparsedPublicKey::new(algorithm, key).verify(signed, signature).is_ok()
        };
        Some(match (self, key) {
            (Self::Rs256, PublicKey::Rsa { n, e }) => rsa(&RSA_PKCS1_2048_8192_SHA256, n, e),
            (Self::Rs384, PublicKey::Rsa { n, e }) => rsa(&RSA_PKCS1_2048_8192_SHA384, n, e),
            (Self::Rs512, PublicKey::Rsa { n, e }) => rsa(&RSA_PKCS1_2048_8192_SHA512, n, e),
            (Self::Ps256, PublicKey::Rsa { n, e }) => rsa(&RSA_PSS_2048_8192_SHA256, n, e),
            (Self::Ps384, PublicKey::Rsa { n, e }) => rsa(&RSA_PSS_2048_8192_SHA384, n, e),
            (Self::Ps512, PublicKey::Rsa { n, e }) => rsa(&RSA_PSS_2048_8192_SHA512, n, e),
            (Self::Es256, PublicKey::P256(point)) => plain(&ECDSA_P256_SHA256_FIXED, point),
            (Self::Es384, PublicKey::P384(point)) => plain(&ECDSA_P384_SHA384_FIXED, point),
            (Self::EdDsa, PublicKey::Ed25519(key)) => plain(&ED25519, key),
            _ => return None,
        })
    }
}
