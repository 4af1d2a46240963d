//! Private keys in OpenSSH's form (`PROTOCOL.key` of OpenSSH), made from PKCS#8 PEM.
//!
//! Ed25519 and RSA, the two that 1Password's SSH key items hold. The container is written here: it is a
//! few length-prefixed strings, and the libraries for it bring a cipher suite along.

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use pkcs1::RsaPrivateKeyRef;
use pkcs8::spki::ObjectIdentifier;
use pkcs8::{PrivateKeyInfoRef, SecretDocument};
use valetkey_core::{ResolveError, SecretValue};
use zeroize::Zeroizing;

/// The unencrypted OpenSSH PEM of the private key `pem`.
///
/// # Errors
/// [`ResolveError::UnableToFormatPrivateKey`] for anything but a PKCS#8 Ed25519 or RSA key.
pub(crate) fn openssh(pem: &str) -> Result<SecretValue, ResolveError> {
    convert(pem).map(SecretValue::new).ok_or(ResolveError::UnableToFormatPrivateKey)
}

fn convert(pem: &str) -> Option<Vec<u8>> {
    let (label, document) = SecretDocument::from_pem(pem.trim()).ok()?;
    if label != "PRIVATE KEY" {
        return None;
    }
    let info = document.decode_msg::<PrivateKeyInfoRef<'_>>().ok()?;
    let key = info.private_key.as_bytes();
    // No part is written more than twice, so nothing below grows and leaves copies behind.
    let room = key.len().saturating_mul(2).saturating_add(512);
    let (public, private) = match info.algorithm.oid {
        ED25519 => ed25519(key, room)?,
        pkcs1::ALGORITHM_OID => rsa(key, room)?,
        _ => return None,
    };
    Some(armoured(&container(&public, &private, room.saturating_mul(2))))
}

/// The public and the private part of an Ed25519 key, as `ssh` writes them.
fn ed25519(key: &[u8], room: usize) -> Option<(Wire, Wire)> {
    // RFC 8410, section 7: an octet string of 32 bytes in the octet string.
    let [0x04, 0x20, seed @ ..] = key else { return None };
    let pair = SigningKey::from_bytes(seed.try_into().ok()?);
    let public_key = pair.verifying_key().to_bytes();
    let public = Wire::new(room).text("ssh-ed25519").bytes(&public_key);
    let private = Wire::new(room)
        .text("ssh-ed25519")
        .bytes(&public_key)
        .bytes(&*Zeroizing::new(pair.to_keypair_bytes()));
    Some((public, private))
}

/// The same of an RSA key of two primes.
fn rsa(key: &[u8], room: usize) -> Option<(Wire, Wire)> {
    let key = RsaPrivateKeyRef::try_from(key).ok().filter(|key| key.other_prime_infos.is_none())?;
    let (n, e, d) = (key.modulus, key.public_exponent, key.private_exponent);
    let public = Wire::new(room).text("ssh-rsa").integer(e.as_bytes()).integer(n.as_bytes());
    let private = [n, e, d, key.coefficient, key.prime1, key.prime2]
        .iter()
        .fold(Wire::new(room).text("ssh-rsa"), |wire, part| wire.integer(part.as_bytes()));
    Some((public, private))
}

fn container(public: &Wire, private: &Wire, room: usize) -> Wire {
    // The two check numbers only have to be equal: with them a reader sees whether decryption worked, and
    // nothing is encrypted here.
    let mut secret = Wire::new(room).number(0).number(0).raw(&private.0).text("");
    let padding = (8 - secret.0.len() % 8) % 8;
    secret.0.extend((1..=8).take(padding));
    Wire::new(room)
        .raw(b"openssh-key-v1\0")
        .text("none")
        .text("none")
        .text("")
        .number(1)
        .bytes(&public.0)
        .bytes(&secret.0)
}

fn armoured(wire: &Wire) -> Vec<u8> {
    let mut base64 = Zeroizing::new(vec![0; BASE64.encode_len(wire.0.len())]);
    BASE64.encode_mut(&wire.0, &mut base64);
    let mut pem = Vec::with_capacity(base64.len() + base64.len() / LINE_LENGTH + 128);
    pem.extend_from_slice(b"-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for line in base64.chunks(LINE_LENGTH) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END OPENSSH PRIVATE KEY-----\n");
    pem
}

/// Bytes in the data types of RFC 4251, section 5; wiped when dropped.
struct Wire(Zeroizing<Vec<u8>>);

impl Wire {
    fn new(room: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(room)))
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(self, number: u32) -> Self {
        self.raw(&number.to_be_bytes())
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        // A value has at most a mebibyte, so its length is a u32.
        self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).raw(bytes)
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// A positive `mpint`: with a zero byte in front where the first bit would be a sign.
    fn integer(self, bytes: &[u8]) -> Self {
        let sign: &[u8] = if bytes.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
        let length = u32::try_from(sign.len() + bytes.len()).unwrap_or(u32::MAX);
        self.number(length).raw(sign).raw(bytes)
    }
}

/// `id-Ed25519`, RFC 8410, section 3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// As `ssh-keygen` breaks lines.
const LINE_LENGTH: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example key of RFC 8410, section 10.3.
    const ED25519_PEM: &str = include_str!("../testdata/ed25519.pem");
    /// Made for this test; used nowhere.
    const RSA_PEM: &str = include_str!("../testdata/rsa.pem");
    const EC_PEM: &str = include_str!("../testdata/ec.pem");

    /// Takes one length-prefixed string off the front.
    fn string<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
        let (length, tail) = rest.split_first_chunk().unwrap();
        let (string, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        *rest = tail;
        string
    }

    /// The public part, and the strings of the private part, of a key in OpenSSH's form.
    fn read(pem: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
        let pem = openssh(pem).ok().unwrap();
        let pem = std::str::from_utf8(pem.expose_secret()).unwrap();
        let body = pem.strip_prefix("-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        let body = body.strip_suffix("\n-----END OPENSSH PRIVATE KEY-----\n").unwrap();
        assert!(body.lines().rev().skip(1).all(|line| line.len() == 70));
        let wire = BASE64.decode(body.replace('\n', "").as_bytes()).unwrap();
        let mut rest = wire.strip_prefix(b"openssh-key-v1\0").unwrap();
        assert_eq!([string(&mut rest), string(&mut rest), string(&mut rest)], [&b"none"[..], b"none", b""]);
        rest = rest.strip_prefix(&[0, 0, 0, 1]).unwrap();
        let (public, mut private) = (string(&mut rest), string(&mut rest));
        assert!(rest.is_empty() && private.len() % 8 == 0);
        assert_eq!(private[..4], private[4..8]);
        private = &private[8..];
        let mut strings = Vec::new();
        while private.first() == Some(&0) {
            strings.push(string(&mut private).to_vec());
        }
        assert!(private.iter().copied().eq(1..=private.len() as u8), "padding");
        (public.to_vec(), strings)
    }

    #[test]
    fn ed25519_keys() {
        let (public, private) = read(ED25519_PEM);
        let key = BASE64.decode(b"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").unwrap();
        assert_eq!(public, *Wire::new(0).text("ssh-ed25519").bytes(&key).0);
        let seed = BASE64.decode(b"1O5y2/kTWErVttjx92n4rTr+fCjL8dT74Jeoj0R1WEI=").unwrap();
        assert_eq!(private, [b"ssh-ed25519".to_vec(), key.clone(), [seed, key].concat(), Vec::new()]);
    }

    #[test]
    fn rsa_keys() {
        let (public, private) = read(RSA_PEM);
        // As `ssh-keygen -y` prints it.
        let line = concat!(
            "AAAAB3NzaC1yc2EAAAADAQABAAAAgQDm1nIwfM5VdbSQaV9xREW07hXUF+NQngyP2sTvUxYnxDEAGu1xb74KZ+8wfVuUMkd125mwH2",
            "Tnkl/6cY6z0VKDvF7sDI4TfdiE9LYIJbmCByt4gdzgmeOnTeeKBhq3GkLZ5RqnS4Bji9AzB58tonLWNTc9EZKhOubGiBNYaxj/xQ==",
        );
        assert_eq!(BASE64.encode(&public), line);
        let mut rest = public.as_slice();
        let (name, e, n) = (string(&mut rest), string(&mut rest), string(&mut rest));
        assert_eq!((private.len(), &private[0][..], &private[1][..], &private[2][..]), (8, name, n, e));
        // A prime has its highest bit set, so a zero byte stands in front.
        assert!(private[5..7].iter().all(|prime| prime.len() == 65 && prime[0] == 0));
        assert_eq!(private[7], b"");
    }

    #[test]
    fn other_texts_are_refused() {
        let check = |pem: &str| {
            let error = openssh(pem).err();
            assert_eq!(error, Some(ResolveError::UnableToFormatPrivateKey), "{pem}");
        };
        check("");
        check("no key");
        check(EC_PEM);
        check(&ED25519_PEM.replace("PRIVATE KEY", "PUBLIC KEY"));
        check(&ED25519_PEM.replace("MC4C", "MC4D"));
        check(&RSA_PEM.replace("MIICdg", "MIICdw"));
        check("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n");
    }

    proptest! {
        #[test]
        fn a_damaged_key_never_panics(at in 28..1_000_usize, byte in any::<u8>()) {
            for pem in [ED25519_PEM, RSA_PEM] {
                let mut bytes = pem.as_bytes().to_vec();
                let place = at % bytes.len();
                bytes[place] = byte;
                let _ = openssh(&String::from_utf8_lossy(&bytes));
            }
        }
    }
}
