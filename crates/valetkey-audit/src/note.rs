//! Signed notes and checkpoints as C2SP describes them (c2sp.org/signed-note, c2sp.org/tlog-checkpoint): Ed25519, one
//! key a log, its name the log's origin.
//!
//! Not here: files. Keys are texts in the form of Go's `sumdb/note`, so other programs can use them.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::tree::Hash;

/// The size and the root of a log's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose log.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// The key that signs a log's checkpoints. Wiped when it is dropped.
pub(crate) struct SignerKey {
    key: SigningKey,
    verifier: VerifierKey,
}

/// The public key that verifies them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// Why a note, a checkpoint or a key is none, or is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It has not the form of a key.
    #[error("is no key of a signed note")]
    NoKey,
    /// It has not the form of a note.
    #[error("is no signed note")]
    NoNote,
    /// It has not the form of a checkpoint.
    #[error("is no checkpoint of a log")]
    NoCheckpoint,
    /// It is signed, but not by this key.
    #[error("is not signed by the key")]
    OtherKey,
    /// It says that it is signed by this key.
    #[error("has a wrong signature: it was changed, or forged")]
    Forged,
}

impl Checkpoint {
    /// The text that is signed.
    fn text(&self) -> String {
        let Self { origin, size, root } = self;
        format!("{origin}\n{size}\n{}\n", BASE64.encode(&root.0))
    }

    /// Reads the text; further lines are of no concern.
    fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoteError::NoCheckpoint);
        };
        Ok(Self {
            origin: origin.to_owned(),
            size: decimal(size).ok_or(NoteError::NoCheckpoint)?,
            root: hash(root).ok_or(NoteError::NoCheckpoint)?,
        })
    }
}

impl SignerKey {
    /// A fresh key.
    #[expect(clippy::expect_used, reason = "an operating system without randomness cannot be worked on")]
    pub(crate) fn random(name: &str) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).expect("the operating system gives random bytes");
        Self::new(name, SigningKey::from_bytes(&seed))
    }

    fn new(name: &str, key: SigningKey) -> Self {
        let verifier = VerifierKey::new(name, key.verifying_key());
        Self { key, verifier }
    }

    /// Reads `PRIVATE+KEY+<name>+<id>+<base64>`.
    pub(crate) fn parse(text: &str) -> Result<Self, NoteError> {
        let (name, id, bytes) = text.strip_prefix(PRIVATE).and_then(key_parts).ok_or(NoteError::NoKey)?;
        let bytes = Zeroizing::new(bytes);
        let key = Self::new(name, SigningKey::from_bytes(&bytes));
        if key.verifier.id == id { Ok(key) } else { Err(NoteError::NoKey) }
    }

    /// The text that [`SignerKey::parse`] reads: a secret.
    pub(crate) fn expose_secret(&self) -> Zeroizing<String> {
        let mut bytes = [ED25519; 33];
        for (byte, of_key) in bytes.iter_mut().skip(1).zip(self.key.as_bytes()) {
            *byte = *of_key;
        }
        let mut encoded = BASE64.encode(&bytes);
        let VerifierKey { name, id, key: _ } = &self.verifier;
        let text = Zeroizing::new(format!("{PRIVATE}{name}+{}+{encoded}", HEXLOWER_PERMISSIVE.encode(id)));
        // The key in other forms.
        bytes.zeroize();
        encoded.zeroize();
        text
    }

    /// The public key.
    pub(crate) fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs the size and the root of the log's tree.
    pub(crate) fn sign(&self, size: u64, root: Hash) -> String {
        let VerifierKey { name, id, key: _ } = &self.verifier;
        let text = Checkpoint { origin: name.clone(), size, root }.text();
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let signature = BASE64.encode(&[id.as_slice(), &signature].concat());
        format!("{text}\n{DASH}{name} {signature}\n")
    }
}

impl VerifierKey {
    fn new(name: &str, key: VerifyingKey) -> Self {
        let digest =
            Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(digest.finalize());
        Self { name: name.to_owned(), id: [a, b, c, d], key }
    }

    /// Reads `<name>+<id>+<base64>`; blanks around it are of no concern.
    ///
    /// # Errors
    /// [`NoteError::NoKey`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let (name, id, bytes) = key_parts(text.trim()).ok_or(NoteError::NoKey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| NoteError::NoKey)?;
        let key = Self::new(name, key);
        if key.id == id { Ok(key) } else { Err(NoteError::NoKey) }
    }

    /// The log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a checkpoint that this key has signed. Signatures of others are of no concern.
    ///
    /// # Errors
    /// [`NoteError`] says what is wrong with it.
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let checkpoint = Checkpoint::parse(self.open_note(note)?)?;
        if checkpoint.origin == self.name { Ok(checkpoint) } else { Err(NoteError::OtherKey) }
    }

    /// The text of a note that this key has signed.
    fn open_note<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let clean = note.len() <= NOTE_BYTES_MAX && !note.bytes().any(|c| c < b' ' && c != b'\n');
        let end = note.rfind("\n\n").filter(|_| clean).ok_or(NoteError::NoNote)?;
        let (text, signatures) = note.split_at(end + 1);
        let signatures = signatures.strip_prefix('\n').filter(|rest| rest.ends_with('\n'));
        let mut signed = false;
        for line in signatures.ok_or(NoteError::NoNote)?.lines() {
            let (name, id, signature) = signature_parts(line).ok_or(NoteError::NoNote)?;
            if name != self.name || id != self.id {
                continue;
            }
            let signature = Signature::from_slice(&signature).map_err(|_| NoteError::NoNote)?;
            self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteError::Forged)?;
            signed = true;
        }
        if signed { Ok(text) } else { Err(NoteError::OtherKey) }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, key } = self;
        let bytes = [[ED25519].as_slice(), key.as_bytes()].concat();
        write!(f, "{name}+{}+{}", HEXLOWER_PERMISSIVE.encode(id), BASE64.encode(&bytes))
    }
}

/// Name, id and key of `<name>+<id>+<base64>`.
fn key_parts(text: &str) -> Option<(&str, [u8; 4], [u8; 32])> {
    let (name, rest) = text.split_once('+')?;
    let (id, encoded) = rest.split_once('+')?;
    let bytes = Zeroizing::new(BASE64.decode(encoded.as_bytes()).ok()?);
    let (kind, key) = bytes.split_first()?;
    let named = !name.is_empty() && !name.contains(char::is_whitespace);
    let id = HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok()?.try_into().ok()?;
    (named && *kind == ED25519).then_some(())?;
    Some((name, id, key.try_into().ok()?))
}

/// Name, id and signature of a line.
fn signature_parts(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = BASE64.decode(encoded.as_bytes()).ok()?;
    let (id, signature) = bytes.split_first_chunk()?;
    Some((name, *id, signature.to_vec()))
}

/// A number as checkpoints and proofs write it: no sign, no zero before it.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// A hash in base64.
pub(crate) fn hash(text: &str) -> Option<Hash> {
    Some(Hash(BASE64.decode(text.as_bytes()).ok()?.try_into().ok()?))
}

/// The kind of signature: Ed25519.
const ED25519: u8 = 1;
const PRIVATE: &str = "PRIVATE+KEY+";
/// What a line with a signature begins with.
const DASH: &str = "\u{2014} ";
/// Room for the largest signatures of sixteen others.
pub(crate) const NOTE_BYTES_MAX: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Go's documentation of `sumdb/note` has this pair, and this note.
    const GO_PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn key() -> SignerKey {
        SignerKey::random("valetkey/test")
    }

    #[test]
    fn keys_and_signatures_are_those_of_others() {
        let key = SignerKey::parse(GO_PRIVATE).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(key.verifier().to_string(), GO_PUBLIC);
        assert_eq!(*key.expose_secret(), GO_PRIVATE);
        let verifier = VerifierKey::parse(GO_PUBLIC).unwrap();
        assert!(verifier.open_note(GO_NOTE).unwrap().ends_with("problem is.\n"));
        assert_eq!(verifier.open(GO_NOTE), Err(NoteError::NoCheckpoint));
    }

    #[test]
    fn what_is_signed_is_read_and_nothing_else() {
        let key = key();
        let root = Hash([7; 32]);
        let note = key.sign(300, root);
        let expected = Checkpoint { origin: "valetkey/test".into(), size: 300, root };
        assert_eq!(key.verifier().open(&note), Ok(expected.clone()));
        let extended = format!("{note}\u{2014} witness AAAAAAAA\n");
        assert_eq!(key.verifier().open(&extended), Ok(expected), "others may sign too");
        assert_eq!(SignerKey::random("valetkey/test").verifier().open(&note), Err(NoteError::OtherKey));
        let check = |from: &str, to: &str, error| {
            assert_eq!(key.verifier().open(&note.replacen(from, to, 1)), Err(error), "{from:?} -> {to:?}");
        };
        check("300", "301", NoteError::Forged);
        check("\n300", "\n300 ", NoteError::Forged);
        check("valetkey/test\n", "valetkey/other\n", NoteError::Forged);
        check("\u{2014} valetkey/test", "\u{2014} valetkey/other", NoteError::OtherKey);
        check("\n\n", "\n", NoteError::NoNote);
        check("\u{2014}", "-", NoteError::NoNote);
        check("\n300", "\r\n300", NoteError::NoNote);
        assert_eq!(key.verifier().open(note.trim_end()), Err(NoteError::NoNote));
    }

    #[test]
    fn no_byte_of_a_note_can_be_another() {
        let key = key();
        let note = key.sign(1, Hash([1; 32]));
        for place in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[place] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(key.verifier().open(&changed).is_err(), "byte {place}");
            }
        }
    }

    #[test]
    fn keys_that_are_none() {
        for bad in [
            "",
            "a+b",
            "a+00000000+AQ==",
            &GO_PUBLIC.replace("c74", "c75"),
            &GO_PUBLIC.replace("Peter", "P ter"),
        ] {
            assert_eq!(VerifierKey::parse(bad), Err(NoteError::NoKey), "{bad}");
            assert!(SignerKey::parse(&format!("{PRIVATE}{bad}")).is_err(), "{bad}");
        }
        assert!(SignerKey::parse(GO_PUBLIC).is_err());
    }
}
