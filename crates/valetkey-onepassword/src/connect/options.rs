//! How a Connect server is reached: its address, the token for it, whom to trust.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use crate::file::OpenFile;
use crate::token::masked;

/// How a Connect server is reached. No `Debug`: the token is in it.
pub struct ConnectOptions {
    /// Its address, such as `https://connect.example:8443`. `http` is for a server on this machine alone.
    pub host: String,
    /// What it asks for.
    pub token: ConnectTokenSource,
    /// Certificates of authorities, in PEM. Must be set if the server's certificate is from none of the
    /// system's; then only these count.
    pub ca_file: Option<PathBuf>,
    /// The bound of one question, from waiting for its turn to the last byte of the answer.
    pub timeout: Duration,
}

/// Where the token for Connect is kept.
pub enum ConnectTokenSource {
    /// In memory.
    Here(ConnectToken),
    /// In a file, which none but its owner can read. It is read for each question, so that a new token is found
    /// without a restart.
    File(PathBuf),
}

/// A token for Connect, as the header that carries it. Wiped when dropped; no `Debug`, no `Clone`.
pub struct ConnectToken(HeaderValue);

/// Why a Connect server cannot be used as configured. Never repeats a token.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address.
    #[error(
        "no Connect server is named: set the source's `host`, such as `https://connect.example:8443`, or \
         `OP_CONNECT_HOST`"
    )]
    HostMissing,
    /// No address either. It is not repeated: it may have a password in it.
    #[error("the Connect server's address {0}: write it like `https://connect.example:8443`")]
    HostMalformed(&'static str),
    /// Whoever is on the way could read the token and every value.
    #[error("`http` is for a Connect server on this machine alone: reach `{host}` by `https`")]
    HostInClear {
        /// The host's name.
        host: String,
    },
    /// No token.
    #[error(
        "there is no token for Connect: put it into a file, and name that as the source's `token_file` or in \
         `OP_CONNECT_TOKEN_FILE`"
    )]
    TokenMissing,
    /// Two tokens.
    #[error("there are two tokens for Connect: set `OP_CONNECT_TOKEN` or `OP_CONNECT_TOKEN_FILE`, not both")]
    TokenTwice,
    /// No token either.
    #[error(
        "the token for Connect is malformed: it is one line of letters, digits and signs, of at most 8 KiB; \
         copy it again"
    )]
    TokenMalformed,
    /// The system refused.
    #[error("cannot read the file `{path}` with the token for Connect")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner have access to it.
    #[error(
        "the file `{path}` with the token for Connect is open to others (mode {mode:03o}): `chmod 600` it"
    )]
    TokenFileOpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system refused.
    #[error("cannot read the file `{path}` with Connect's authorities")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing to trust in it.
    #[error("the file `{path}` has no certificate of an authority: give Connect's, in PEM")]
    CaMalformed {
        /// The file.
        path: PathBuf,
    },
    /// The system knows no authorities.
    #[error("the system's certificate authorities cannot be had: name a file with Connect's")]
    SystemRoots(#[source] rustls::Error),
    /// Ours.
    #[error("the HTTP client cannot be made")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ConnectOptions {
    /// What a question may take at most, where nothing else is configured.
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

    /// A server reached by `https` with the system's authorities, or by `http` on this machine.
    #[must_use]
    pub fn new(host: String, token: ConnectTokenSource) -> Self {
        Self { host, token, ca_file: None, timeout: Self::TIMEOUT_DEFAULT }
    }

    /// What is configured counts. Where it is not, the address comes from `OP_CONNECT_HOST`, and the token
    /// from `OP_CONNECT_TOKEN` or the file in `OP_CONNECT_TOKEN_FILE`, as `environment`, a look-up of
    /// variables, has them; an empty one is as good as absent.
    ///
    /// # Errors
    /// [`ConnectError`] says what is missing.
    pub fn find(
        host: Option<String>,
        token_file: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConnectError> {
        let host = match host {
            Some(host) => host,
            None => {
                let host = set(environment, "OP_CONNECT_HOST").ok_or(ConnectError::HostMissing)?;
                host.into_string().map_err(|_| ConnectError::HostMalformed("is no text"))?
            }
        };
        let token = match token_file {
            Some(path) => ConnectTokenSource::File(path.to_owned()),
            None => ConnectTokenSource::find(environment)?,
        };
        // That it cannot be had is said before anything is asked.
        token.read()?;
        Ok(Self::new(host, token))
    }
}

impl ConnectTokenSource {
    /// What is there now.
    pub(super) fn read(&self) -> Result<ConnectToken, ConnectError> {
        match self {
            Self::Here(token) => Ok(ConnectToken(token.header())),
            Self::File(path) => ConnectToken::load(path),
        }
    }

    fn find(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, ConnectError> {
        match (set(environment, "OP_CONNECT_TOKEN"), set(environment, "OP_CONNECT_TOKEN_FILE")) {
            (None, None) => Err(ConnectError::TokenMissing),
            (Some(_), Some(_)) => Err(ConnectError::TokenTwice),
            (Some(text), None) => {
                let text = text.into_string().map_err(|_| ConnectError::TokenMalformed)?;
                ConnectToken::parse(text).map(Self::Here)
            }
            (None, Some(path)) => Ok(Self::File(path.into())),
        }
    }
}

impl ConnectToken {
    /// Takes the token's text, and wipes it. Blanks around it do not count.
    ///
    /// # Errors
    /// Where it cannot be one.
    pub fn parse(text: String) -> Result<Self, ConnectError> {
        let text = Zeroizing::new(text);
        let token = text.trim();
        if token.is_empty() || token.len() > TOKEN_MAX || !token.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(ConnectError::TokenMalformed);
        }
        // Room for all of it from the start: a vector that grows leaves copies behind.
        let mut header = Zeroizing::new(Vec::with_capacity(SCHEME.len() + token.len()));
        header.extend_from_slice(SCHEME.as_bytes());
        header.extend_from_slice(token.as_bytes());
        // The header borrows these bytes, however often it is cloned, and the last of its clones wipes them.
        let header = HeaderValue::from_maybe_shared(Bytes::from_owner(header));
        let mut header = header.map_err(|_| ConnectError::TokenMalformed)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// Reads a file that has the token in it, and is closed to all but its owner.
    ///
    /// # Errors
    /// [`ConnectError`] says why it cannot be used.
    pub fn load(path: &Path) -> Result<Self, ConnectError> {
        let in_reading = |source| ConnectError::TokenFile { path: path.into(), source };
        let file = OpenFile::open(path).map_err(in_reading)?;
        if let Some(mode) = file.open_to_others(0o077) {
            return Err(ConnectError::TokenFileOpenToOthers { path: path.into(), mode });
        }
        let text =
            file.read(TOKEN_MAX as u64 + 2).map_err(in_reading)?.ok_or(ConnectError::TokenMalformed)?;
        let text = std::str::from_utf8(&text).map_err(|_| ConnectError::TokenMalformed)?;
        Self::parse(text.to_owned())
    }

    /// The header that carries it; shows as sensitive, and must go nowhere but to the server.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// A text without pieces of the token.
    pub(super) fn masked(&self, text: &str) -> Zeroizing<String> {
        let header = self.0.as_bytes();
        masked(text, header.get(SCHEME.len()..).unwrap_or(header))
    }
}

fn set(environment: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<OsString> {
    environment(name).filter(|value| !value.is_empty())
}

const SCHEME: &str = "Bearer ";
/// In bytes.
const TOKEN_MAX: usize = 8 << 10;
