//! The service account's token: where it comes from, and which host it may be shown to.
//!
//! The token holds all that it takes to sign in and to decrypt. No part of it is in an error, a log or a
//! `Debug`; it is looked into here because the core would send it wherever it says.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::file::OpenFile;
use crate::json::{Faults, Node, Path as Place};

/// Where the token of a service account is kept. It is read again at each sign-in, so that a new token in the
/// same file is found after the old one was revoked.
pub struct TokenSource(Kept);

enum Kept {
    Here(Zeroizing<String>),
    File(PathBuf),
    /// A file that systemd passes: only its owner and, by its own means, the service can read it.
    Credential(PathBuf),
}

/// The names under which a token is looked for.
#[derive(Debug, Clone, Copy)]
pub struct TokenNames<'a> {
    /// The variable that holds the token; with `_FILE` after it, the path of a file that does.
    pub variable: &'a str,
    /// The name of the systemd credential that holds it.
    pub credential: &'a str,
}

impl Default for TokenNames<'static> {
    fn default() -> Self {
        Self { variable: "OP_SERVICE_ACCOUNT_TOKEN", credential: "onepassword-token" }
    }
}

/// Why there is no token to sign in with. Never repeats a part of one.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not in the environment, not in a file, no credential.
    #[error(
        "no service account token: set `{variable}_FILE`, pass the systemd credential `{credential}`, or name \
         a file in the configuration"
    )]
    Missing {
        /// The variable that was looked for.
        variable: String,
        /// The credential that was looked for.
        credential: String,
    },
    /// Two tokens, and no telling which is meant.
    #[error("both `{0}` and `{0}_FILE` are set: keep one of them")]
    Twice(String),
    /// Likewise: what is in the environment is for all sources, and a credential is meant for one.
    #[error(
        "both `{variable}` (or `{variable}_FILE`) and the systemd credential `{credential}` are there: keep one \
         of them"
    )]
    TwiceWithCredential {
        /// The variable.
        variable: String,
        /// The credential.
        credential: String,
    },
    /// The system refused, or it is no regular file.
    #[error("cannot read the service account token's file `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read it.
    #[error(
        "the service account token's file `{}` is open to others (mode {mode:03o}): `chmod 600` it",
        .path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user could change it.
    #[error(
        "the service account token's file `{}` belongs to the user {owner}, who is neither this one nor root: \
         `chown` it, or run this as the user that runs the broker", .path.display()
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The number of the user whose file it is.
        owner: u32,
    },
    /// It is no token.
    #[error("the service account token {0}: take it again from where it was created")]
    Malformed(&'static str),
    /// It would be sent somewhere else.
    #[error(
        "the service account token's sign-in address is no host of 1password.com, 1password.ca or \
         1password.eu over https: it is not used"
    )]
    ForeignHost,
}

impl TokenSource {
    /// The file at `path`, which none but its owner can read.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self(Kept::File(path))
    }

    /// What `environment` says, a look-up of variables: the token itself, a file, or a systemd credential.
    ///
    /// # Errors
    /// [`TokenError::Missing`] where it says nothing, [`TokenError::Twice`] and
    /// [`TokenError::TwiceWithCredential`] where it says two things.
    pub fn find(
        environment: &dyn Fn(&str) -> Option<OsString>,
        names: TokenNames<'_>,
    ) -> Result<Self, TokenError> {
        let TokenNames { variable, credential } = names;
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let path = set(&format!("{variable}_FILE")).map(PathBuf::from);
        let passed = set("CREDENTIALS_DIRECTORY").map(|directory| PathBuf::from(directory).join(credential));
        let passed = passed.filter(|path| path.exists());
        if passed.is_some() && (set(variable).is_some() || path.is_some()) {
            let (variable, credential) = (variable.to_owned(), credential.to_owned());
            return Err(TokenError::TwiceWithCredential { variable, credential });
        }
        match (set(variable), path) {
            (Some(_), Some(_)) => Err(TokenError::Twice(variable.to_owned())),
            (Some(token), None) => {
                let token = token.into_string().map_err(|_| TokenError::Malformed("is no text"))?;
                Ok(Self(Kept::Here(Zeroizing::new(token))))
            }
            (None, Some(path)) => Ok(Self(Kept::File(path))),
            (None, None) => passed.map(|path| Self(Kept::Credential(path))).ok_or_else(|| {
                TokenError::Missing { variable: variable.to_owned(), credential: credential.to_owned() }
            }),
        }
    }

    /// Reads the token and looks into it.
    pub(crate) fn read(&self, hosts: Hosts) -> Result<ServiceAccountToken, TokenError> {
        match &self.0 {
            Kept::Here(token) => ServiceAccountToken::parse(token, hosts),
            Kept::File(path) => ServiceAccountToken::parse(&read(path, 0o077)?, hosts),
            // systemd lets the service in by an access list, whose mask shows as the group's bits.
            Kept::Credential(path) => ServiceAccountToken::parse(&read(path, 0o027)?, hosts),
        }
    }
}

/// Which hosts a token may be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// 1Password's, over https.
    Official,
    /// Those, and this machine over http too. For tests.
    OrLoopback,
}

impl Hosts {
    /// 1Password's; this machine too where that is allowed.
    pub(crate) fn of(allow_loopback: bool) -> Self {
        if allow_loopback { Self::OrLoopback } else { Self::Official }
    }
}

/// A token that says where it may be sent, and may be. Wiped when dropped; no `Debug`, no `Clone`.
pub(crate) struct ServiceAccountToken {
    text: Zeroizing<String>,
    /// Where to sign in: a host, and a port.
    host: (String, u16),
}

impl ServiceAccountToken {
    fn parse(text: &str, hosts: Hosts) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Malformed("is empty"));
        }
        let Some(payload) = text.strip_prefix("ops_") else {
            return Err(TokenError::Malformed("does not start with `ops_`"));
        };
        if text.len() > TOKEN_MAX {
            return Err(TokenError::Malformed("is too long"));
        }
        let json = BASE64URL_NOPAD.decode(payload.as_bytes()).map(Zeroizing::new);
        let json = json.map_err(|_| TokenError::Malformed("is cut off or has characters of no token"))?;
        let node: Node = serde_json::from_slice(&json)
            .map_err(|_| TokenError::Malformed("does not hold what tokens hold"))?;
        let mut faults = Faults::default();
        let mut object = faults.open_object(Some(node), Place::Root);
        let address = faults.text(object.take("signInAddress"), Place::Root, ADDRESS_MAX);
        let address = address.filter(|_| faults.is_empty());
        let address = address.ok_or(TokenError::Malformed("does not say where to sign in"))?;
        if !is_allowed(&address, hosts) {
            return Err(TokenError::ForeignHost);
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), host: host_of(&address) })
    }

    pub(crate) fn expose_secret(&self) -> &str {
        &self.text
    }

    /// Connects to where the token signs in, and sends nothing.
    pub(crate) async fn knock(&self) -> io::Result<()> {
        let (host, port) = &self.host;
        let connected = tokio::time::timeout(KNOCK_MAX, TcpStream::connect((&**host, *port))).await;
        connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(drop)
    }
}

/// A text with `…` in place of each run of characters that stands in the token too and is long enough to be told
/// for a piece of it.
pub(crate) fn masked(text: &str, token: &[u8]) -> Zeroizing<String> {
    let pieces: HashSet<&[u8]> = token.windows(PIECE_MIN.min(token.len().max(1))).collect();
    let length = pieces.iter().next().map_or(PIECE_MIN, |piece| piece.len());
    let is_piece = |at: usize| text.as_bytes().get(at..at + length).is_some_and(|part| pieces.contains(part));
    let mut clean = Zeroizing::new(String::with_capacity(text.len().saturating_mul(3)));
    // Up to where a piece that began before goes on.
    let (mut until, mut is_told) = (0, false);
    for (at, character) in text.char_indices() {
        if is_piece(at) {
            until = at + length;
        }
        if at >= until {
            clean.push(character);
        } else if !is_told {
            clean.push('…');
        }
        is_told = at < until;
    }
    clean
}

/// The host and the port of an address that is allowed.
fn host_of(address: &str) -> (String, u16) {
    let (rest, usual) = match address.strip_prefix("http://") {
        Some(rest) => (rest, 80),
        None => (address.strip_prefix("https://").unwrap_or(address), 443),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let given = rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = given.unwrap_or((rest, usual));
    (host.trim_matches(['[', ']']).to_owned(), port)
}

fn read(path: &Path, forbidden: u32) -> Result<Zeroizing<String>, TokenError> {
    let in_reading = |source| TokenError::Read { path: path.into(), source };
    let file = OpenFile::open(path).map_err(in_reading)?;
    if let Some(owner) = file.foreign_owner() {
        return Err(TokenError::ForeignOwner { path: path.into(), owner });
    }
    if let Some(mode) = file.open_to_others(forbidden) {
        return Err(TokenError::OpenToOthers { path: path.into(), mode });
    }
    let bytes = file.read(TOKEN_MAX as u64).map_err(in_reading)?;
    let bytes = bytes.ok_or(TokenError::Malformed("is too long"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| TokenError::Malformed("is no text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Whether a token may be sent to its sign-in address.
///
/// The core parses the address with its own rules. So only what leaves no room for two readings is allowed:
/// `https://` or nothing, a plain host without port, user or escape, and nothing after it.
fn is_allowed(address: &str, hosts: Hosts) -> bool {
    let host = address.strip_prefix("https://").unwrap_or(address);
    let host = host.strip_suffix('/').unwrap_or(host);
    is_official(host) || (hosts == Hosts::OrLoopback && is_loopback(address))
}

fn is_official(host: &str) -> bool {
    let is_label = |label: &str| {
        let is_inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty() && label.bytes().all(is_inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_under = |domain: &str| {
        let above = host.strip_suffix(domain);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    };
    host.len() <= HOST_MAX && host.split('.').all(is_label) && DOMAINS.iter().any(|domain| is_under(domain))
}

fn is_loopback(address: &str) -> bool {
    let rest =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let port = LOOPBACK.iter().find_map(|host| rest.strip_prefix(host));
    port.is_some_and(|port| match port.strip_prefix(':') {
        Some(port) => port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => port.is_empty(),
    })
}

/// Under each lie the hosts of enterprises too, such as `ent.1password.com`.
const DOMAINS: [&str; 3] = ["1password.com", "1password.ca", "1password.eu"];
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];
/// In bytes; tokens have about 900.
const TOKEN_MAX: usize = 16 << 10;
/// Shorter runs are in many texts by chance.
const PIECE_MIN: usize = 12;
const KNOCK_MAX: Duration = Duration::from_secs(3);
const ADDRESS_MAX: usize = 512;
const HOST_MAX: usize = 253;
