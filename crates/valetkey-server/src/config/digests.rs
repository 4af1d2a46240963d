//! What was configured, in so few words that it fits into a record: a change between two starts shows.

use std::fmt;

use crate::digest::sha256;

/// One section of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionDigest {
    /// Its key, such as `identity`.
    pub name: String,
    /// How many entries it has, where it is a list; otherwise 1.
    pub entries: usize,
    /// The beginning of the SHA-256 of what it says, in hexadecimal digits. Comments, blanks and the order of keys do
    /// not count.
    pub digest: String,
}

/// The sections of a configuration, by name.
pub(super) fn digests(document: &toml::Table) -> Vec<SectionDigest> {
    let digest = |(name, value): (&String, &toml::Value)| {
        let hash = sha256(value.to_string().as_bytes());
        SectionDigest {
            name: name.clone(),
            entries: value.as_array().map_or(1, Vec::len),
            digest: hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
        }
    };
    document.iter().map(digest).collect()
}

impl fmt::Display for SectionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, entries, digest } = self;
        match entries {
            1 => write!(f, "{name} {digest}"),
            entries => write!(f, "{name} ({entries}) {digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_counts_and_how_it_says_it_does_not() {
        let of = |text: &str| digests(&toml::from_str(text).unwrap());
        let one =
            of("listen = \"a\"\n[[identity]]\nagent = \"a\"\ntoken = \"b\"\n[[identity]]\nagent = \"c\"\n");
        let same = of("# said\n[[identity]]\ntoken   = 'b'\nagent = 'a'\n[[identity]]\nagent = \"c\" # so\n");
        assert_eq!(one[0], same[0]);
        assert_eq!(one[0].to_string(), format!("identity (2) {}", one[0].digest));
        assert!(one[1].to_string().starts_with("listen ") && one[1].digest.len() == 16);
        let other = of("[[identity]]\nagent = \"a\"\ntoken = \"x\"\n[[identity]]\nagent = \"c\"\n");
        assert_ne!(one[0].digest, other[0].digest);
    }
}
