//! Who calls: an agent, a tool or a person. The transport says so; no request field does.

use std::fmt;
use std::sync::Arc;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// An AI agent.
    Agent(AgentId),
    /// The program that uses secrets.
    Tool(ToolId),
    /// A human: reviewer, approver or operator.
    Person(PersonId),
}

/// The name of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(pub Name);

/// The name of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ToolId(pub Name);

/// The name of a person.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PersonId(pub Name);

/// The name of a group of persons.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub Name);

/// A name of 1 to 128 characters of `A-Z a-z 0-9 . _ - / @ :`, compared letter by letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// The SHA-256 of a public key, as its certificate has it (`SubjectPublicKeyInfo`, DER): what a handle can be
/// bound to. A renewed certificate for the same key has the same one. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyThumbprint(pub [u8; 32]);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("must not be empty")]
    Empty,
    /// Over 128 bytes.
    #[error("must have at most 128 characters, has {0}")]
    TooLong(usize),
    /// A character outside the set.
    #[error("must consist of letters, digits and `.` `_` `-` `/` `@` `:`")]
    BadCharacter,
    /// Begins like a bearer string: somebody confused the fields.
    #[error("must not be a handle or a token")]
    Bearer,
}

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > LENGTH_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-/@:".contains(&c);
        if !text.bytes().all(plain) {
            return Err(NameError::BadCharacter);
        }
        // A name is written to the log as it stands; a bearer string must not get there.
        if crate::text::holds_bearer(text) {
            return Err(NameError::Bearer);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Identity {
    /// Parses what [`Identity`] prints, such as `agent:travel-bot`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let name = Name::parse(name).ok()?;
        Some(match kind {
            "agent" => Self::Agent(AgentId(name)),
            "tool" => Self::Tool(ToolId(name)),
            "person" => Self::Person(PersonId(name)),
            _ => return None,
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ToolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for KeyThumbprint {
    /// `sha256:` and 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Display for Identity {
    /// `agent:travel-bot`, `tool:navan.book_flight`, `person:ana`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Tool(id) => write!(f, "tool:{id}"),
            Self::Person(id) => write!(f, "person:{id}"),
        }
    }
}

const LENGTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "travel-bot", "navan.book_flight", "mcp:files/read@2"] {
            assert_eq!(Name::parse(good).map(|name| name.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(Name::parse(""), Err(NameError::Empty));
        assert_eq!(Name::parse(&"a".repeat(129)), Err(NameError::TooLong(129)));
        for bad in ["a b", "a\0", "ä", "a\"b", "a*"] {
            assert_eq!(Name::parse(bad), Err(NameError::BadCharacter), "{bad}");
        }
        let handle = crate::testing::handle();
        assert_eq!(Name::parse(&handle.expose_secret()), Err(NameError::Bearer));
    }

    #[test]
    fn identities_come_back_from_their_text() {
        for text in ["agent:travel-bot", "tool:a:b", "person:ana"] {
            assert_eq!(Identity::parse(text).map(|it| it.to_string()).as_deref(), Some(text));
        }
        for bad in ["", "ana", "Person:ana", "person:", "person:a b", ":ana", "robot:ana"] {
            assert_eq!(Identity::parse(bad), None, "{bad}");
        }
    }
}
