//! What must not be seen: the token, handles and values.

use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

/// Who the caller is, to the broker: a bearer token such as `vkt_…`.
///
/// Or who the person is that it acts for: a token that an issuer has signed.
///
/// No `Debug`, `Display` or `Clone`.
pub struct Token(Zeroizing<String>);

/// The text cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing there.
    #[error("the token is empty; `valetkey token create` makes one")]
    Empty,
    /// More than a token can have.
    #[error("the token has more than {TOKEN_LENGTH_MAX} characters; is it the right file?")]
    TooLong,
    /// White space inside, or a character that no token has.
    #[error("the token has a character that no token has; is it the right file?")]
    BadCharacter,
}

/// A handle: what an agent passes around in place of a value, and a tool redeems.
///
/// No `Debug`, `Display` or `Clone`. It is safe in a prompt because its tool alone can redeem it, once
/// and for a short time; that is no reason to print it.
pub struct Handle(Zeroizing<String>);

/// A plaintext. Wiped from memory when dropped; copies in the buffers of the connection are out of
/// this crate's reach.
///
/// No `Debug`, `Display` or `Clone`.
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl Token {
    /// Takes a token; white space around it, as at the end of a file, does not count.
    ///
    /// # Errors
    /// [`TokenError`] where the text cannot be a token. Whether it is somebody's only the broker knows.
    pub fn parse(text: impl Into<String>) -> Result<Self, TokenError> {
        let text = Zeroizing::new(text.into());
        let token = text.trim();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.len() > TOKEN_LENGTH_MAX {
            return Err(TokenError::TooLong);
        }
        if !token.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(TokenError::BadCharacter);
        }
        Ok(Self(Zeroizing::new(token.to_owned())))
    }

    /// The value of the `authorization` header.
    pub(crate) fn into_authorization(self) -> MetadataValue<Ascii> {
        header(&Zeroizing::new(format!("Bearer {}", *self.0)))
    }

    /// The value of a header that holds the token alone.
    pub(crate) fn into_plain(self) -> MetadataValue<Ascii> {
        header(&self.0)
    }
}

impl Handle {
    /// Takes a handle's text. Whether it is one is the broker's to say: a text that is none is worth a
    /// record there.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The whole handle, to be given to the tool that redeems it.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl SecretValue {
    /// Takes a plaintext over. The caller must not keep a copy.
    #[must_use]
    pub fn new(plaintext: Vec<u8>) -> Self {
        Self(Zeroizing::new(plaintext))
    }

    /// The plaintext, exactly as the vault holds it.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8] {
        &self.0
    }
}

#[expect(clippy::expect_used, reason = "called with visible ASCII alone, which every header takes")]
fn header(text: &str) -> MetadataValue<Ascii> {
    let mut value = MetadataValue::try_from(text).expect("visible ASCII");
    // Keeps it out of `Debug` forms and of HPACK's table of repeated headers.
    value.set_sensitive(true);
    value
}

/// More than any bearer token or signed identity that fits into a header.
const TOKEN_LENGTH_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let check = |text: &str| Token::parse(text).map(drop);
        assert_eq!(check(" vkt_abc\n"), Ok(()));
        assert_eq!(check(" \n"), Err(TokenError::Empty));
        assert_eq!(check(&"a".repeat(8193)), Err(TokenError::TooLong));
        for bad in ["a b", "a\nb", "ä", "a\0"] {
            assert_eq!(check(bad), Err(TokenError::BadCharacter), "{bad}");
        }
    }

    #[test]
    fn a_token_is_marked_sensitive() {
        let header = Token::parse("vkt_abc").ok().unwrap().into_authorization();
        assert!(header.is_sensitive());
        assert!(!format!("{header:?}").contains("vkt_abc"));
    }
}
