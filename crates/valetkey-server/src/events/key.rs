//! The tokens of the Events API: signed (JWT, ES256), because its clients find in them where to ask and for what.
//!
//! A token counts where three things hold: our key has signed it, for our host; the table of tokens has its digest
//! (so that it can be listed, revoked, and ends); and the table says that it is for this.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE32_DNSSEC, BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use valetkey_core::{BearerDigest, PublicId, Reason, Timestamp};
use zeroize::Zeroizing;

use super::Feature;
use super::form::uuid;
use crate::digest::sha256;
use crate::identity::jwt::{Algorithm, PublicKey, Token};
use crate::token::EVENTS_TOKEN_PREFIX;

/// Makes and knows tokens for one host.
pub(crate) struct Signer {
    pub(crate) key: SigningKey,
    /// What clients call us.
    pub(crate) host: String,
}

/// The key that signs. No `Debug`.
pub(crate) struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    /// What tokens call it.
    id: String,
}

/// What a good signature says.
pub(crate) struct Signed {
    /// Which token of the table it is.
    pub(crate) id: PublicId,
    /// What the table has of it.
    pub(crate) digest: BearerDigest,
    /// What it opens.
    pub(crate) features: Vec<Feature>,
    /// When it was made.
    pub(crate) issued: Timestamp,
}

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error(
        "the signing key `{0}` of the Events API is missing; it is made with a new audit database alone, so bring it \
         back, or make one: `umask 077; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {0}`, and \
         make its tokens again"
    )]
    Missing(PathBuf),
    /// It cannot be read or written.
    #[error("the signing key `{path}` of the Events API cannot be used: {source}")]
    File {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others can read it.
    #[error(
        "the signing key `{path}` of the Events API is open to others (mode {mode:03o}); `chmod 600` closes it"
    )]
    OpenToOthers {
        /// Its file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is none.
    #[error("the signing key `{0}` of the Events API is no P-256 key in PKCS#8 PEM form")]
    Unusable(PathBuf),
    /// The machine has no randomness.
    #[error("a signing key cannot be made here")]
    NoRandomness,
}

impl SigningKey {
    /// Reads it.
    ///
    /// # Errors
    /// [`KeyError`] where there is none that can be used.
    pub(crate) fn open(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let about = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(KeyError::Missing(path.to_owned()));
            }
            about => about.map_err(failed)?,
        };
        let mode = about.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::OpenToOthers { path: path.to_owned(), mode });
        }
        let unusable = || KeyError::Unusable(path.to_owned());
        if about.len() > SIZE_MAX {
            return Err(unusable());
        }
        let pem = Zeroizing::new(std::fs::read(path).map_err(failed)?);
        let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable())? else {
            return Err(unusable());
        };
        Self::of(der.secret_pkcs8_der()).ok_or_else(unusable)
    }

    /// Makes a new one, in a file that must not be there.
    ///
    /// # Errors
    /// [`KeyError`] where it cannot be kept.
    pub(crate) fn create(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::NoRandomness)?;
        let body = Zeroizing::new(BASE64.encode(der.as_ref()));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let mut write = |text: &str| file.write_all(text.as_bytes());
        write("-----BEGIN PRIVATE KEY-----\n").map_err(failed)?;
        // One line of 64 after the other, as RFC 7468 has it: base64 is ASCII.
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
            write(line).and_then(|()| write("\n")).map_err(failed)?;
            rest = after;
        }
        write("-----END PRIVATE KEY-----\n").map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Self::of(der.as_ref()).ok_or_else(|| KeyError::Unusable(path.to_owned()))
    }

    fn of(der: &[u8]) -> Option<Self> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new()).ok()?;
        let point = pair.public_key().as_ref().to_vec();
        let id = BASE32_DNSSEC.encode(sha256(&point).first_chunk::<10>()?);
        Some(Self { pair, public: PublicKey::P256(point), id })
    }
}

impl Signer {
    /// A token with this id; `None` where the machine has no randomness.
    pub(crate) fn issue(
        &self,
        id: PublicId,
        features: &[Feature],
        (now, end): (Timestamp, Timestamp),
    ) -> Option<Zeroizing<String>> {
        let id = format!("{EVENTS_TOKEN_PREFIX}{id}");
        let features: Vec<_> = features.iter().map(|feature| feature.as_str()).collect();
        let seconds = |time: Timestamp| time.as_micros().div_euclid(1_000_000);
        let header = json!({"alg": "ES256", "kid": self.key.id, "typ": "JWT"});
        // Its clients take the first of `aud`, which must be an array, for the host to ask.
        let claims = json!({
            "aud": [self.host], "iss": ISSUER, "sub": id, "jti": id, "iat": seconds(now), "exp": seconds(end),
            ACCOUNT: self.account(), FEATURES: features,
        });
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let mut token = Zeroizing::new(String::with_capacity(TOKEN_LENGTH_MAX));
        token.push_str(&part(&header));
        token.push('.');
        token.push_str(&part(&claims));
        let signature = self.key.pair.sign(&SystemRandom::new(), token.as_bytes()).ok()?;
        token.push('.');
        BASE64URL_NOPAD.encode_append(signature.as_ref(), &mut token);
        Some(token)
    }

    /// What the table of tokens keeps of one.
    pub(crate) fn digest(token: &str) -> BearerDigest {
        BearerDigest::from_bytes(sha256(token.as_bytes()))
    }

    /// Looks at a token's signature, and whether it is for us. Not whether it counts: the table says that.
    ///
    /// # Errors
    /// The [`Reason`] for the record. The caller is not told.
    pub(crate) fn verify(&self, text: &str) -> Result<Signed, Reason> {
        let token = Token::parse(text)?;
        if token.algorithm != Algorithm::Es256 {
            return Err(Reason::JwtAlgorithm);
        }
        if token.key_id.as_deref() != Some(self.key.id.as_str()) {
            return Err(Reason::JwtKeyUnknown);
        }
        match token.algorithm.verify(&self.key.public, token.signed, &token.signature) {
            Some(true) => {}
            Some(false) | None => return Err(Reason::JwtSignature),
        }
        let first = token.claims.get("aud").and_then(|all| all.as_array()?.first()?.as_str());
        if first != Some(self.host.as_str()) {
            return Err(Reason::JwtAudience);
        }
        let id = token.text("jti").and_then(|id| id.strip_prefix(EVENTS_TOKEN_PREFIX));
        let id = id.and_then(|id| PublicId::parse(id).ok()).ok_or(Reason::JwtMalformed)?;
        let features = token.claims.get(FEATURES).and_then(Value::as_array).ok_or(Reason::JwtMalformed)?;
        let features = features.iter().filter_map(|word| Feature::parse(word.as_str()?)).collect();
        let issued = token.moment("iat")?.unwrap_or_default();
        let issued = Timestamp::from_micros(issued.saturating_mul(1_000_000));
        Ok(Signed { id, digest: Self::digest(text), features, issued })
    }

    /// What stands for us where 1Password has an account.
    pub(crate) fn account(&self) -> String {
        uuid(&["account", &self.host])
    }
}

/// Who makes tokens; the host tells brokers apart.
const ISSUER: &str = "valetkey";
const ACCOUNT: &str = "1password.com/auuid";
const FEATURES: &str = "1password.com/fts";
const TOKEN_LENGTH_MAX: usize = 2048;
const SIZE_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(folder: &Path, name: &str, host: &str) -> Signer {
        let _ = std::fs::remove_file(folder.join(name));
        let key = SigningKey::create(&folder.join(name)).ok().unwrap();
        Signer { key, host: host.to_owned() }
    }

    fn times() -> (Timestamp, Timestamp) {
        (Timestamp::from_micros(1_000_000), Timestamp::from_micros(9_000_000))
    }

    #[test]
    fn tokens_are_for_one_key_and_one_host() {
        let folder = std::env::temp_dir().join(format!("valetkey-events-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let ours = signer(&folder, "ours.key", "events.test:8443");
        let again = SigningKey::open(&folder.join("ours.key")).ok().unwrap();
        let moved = Signer { key: again, host: "other.test".to_owned() };
        let other = signer(&folder, "other.key", "events.test:8443");
        let id = PublicId::random();
        let token = ours.issue(id, &[Feature::AuditEvents], times()).unwrap();
        assert!(token.len() < TOKEN_LENGTH_MAX, "{}", token.len());
        let check = |signer: &Signer, text: &str, why: Result<(), Reason>| {
            assert_eq!(signer.verify(text).map(drop), why, "{text}");
        };
        let signed = ours.verify(&token).ok().unwrap();
        assert!(signed.id == id && signed.digest.matches(&Signer::digest(&token)));
        assert_eq!((signed.features, signed.issued), (vec![Feature::AuditEvents], times().0));
        check(&moved, &token, Err(Reason::JwtAudience));
        check(&other, &token, Err(Reason::JwtKeyUnknown));
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let with = |header: &str| [&part(header), &token[token.find('.').unwrap() + 1..]].join(".");
        check(&ours, &with(r#"{"alg":"none"}"#), Err(Reason::JwtAlgorithm));
        check(&ours, &with(r#"{"alg":"HS256"}"#), Err(Reason::JwtAlgorithm));
        check(&ours, &with(r#"{"alg":"ES384"}"#), Err(Reason::JwtAlgorithm));
        check(&ours, &with(r#"{"alg":"ES256"}"#), Err(Reason::JwtKeyUnknown));
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, ours.key.id);
        check(&ours, &with(&header), Err(Reason::JwtSignature));
        check(&ours, "vkt_0123456789abcdef", Err(Reason::JwtMalformed));
        let _ = std::fs::remove_dir_all(&folder);
    }

    #[test]
    fn a_key_is_closed_and_never_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("valetkey-events-key-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert!(matches!(SigningKey::open(&path), Err(KeyError::Missing(_))));
        assert!(SigningKey::create(&path).is_ok() && SigningKey::open(&path).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(SigningKey::create(&path), Err(KeyError::File { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SigningKey::open(&path), Err(KeyError::OpenToOthers { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(SigningKey::open(&path), Err(KeyError::Unusable(_))));
        let _ = std::fs::remove_file(&path);
    }
}
