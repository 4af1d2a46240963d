//! 1Password through its SDK core: the official closed library, loaded at run time.
//!
//! The operator installs the library; it is used only if its bytes are pinned. The core does the cryptography and
//! the requests; which field a reference means is decided by our rules, so it is asked for vaults, items and files
//! by id, one a call, and never to resolve a reference. It honours the system's certificates and the proxy
//! variables of the environment.
//!
//! Invariants:
//! - The token is looked into before the core sees it, and goes nowhere but to 1Password's hosts.
//! - Every call ends in time, however the core or the service behaves; others go on meanwhile.
//! - What the core gave lies in memory that is wiped, here and there.

mod answer;
mod check;
mod fault;
#[expect(unsafe_code, reason = "the SDK core has a C interface, and all that is unsafe about it is in here")]
mod ffi;
mod item;
mod library;
mod request;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use valetkey_core::{ResolveError, SecretValue};

pub use check::sdk_checks;
pub use library::{SdkLibrary, SdkLibraryError, SdkPin, sdk_pins};

use self::answer::{content, items, read, vaults};
use self::ffi::{Answer, Core};
use self::item::item;
use self::request::Request;
use self::session::{SIGN_IN_COST, Session};
use crate::item::{ItemOutline, ItemValues, Vault};
use crate::token::{Hosts, TokenError, TokenSource};
use crate::upstream::{ItemSummary, Question, Upstream, UpstreamError};

/// What an [`SdkSource`] is made of.
pub struct SdkOptions {
    /// The library, by its absolute path.
    pub library: PathBuf,
    /// Its SHA-256 in lower-case hexadecimal, where it is to be this one and none of the known ones.
    pub pin: Option<String>,
    /// The service account.
    pub token: TokenSource,
    /// How long one question may take, signing in included.
    pub timeout: Duration,
    /// Accepts a token that signs in on this machine, over http too. For tests.
    pub allow_loopback: bool,
}

impl SdkOptions {
    /// For this library and this token, as it should be in production.
    #[must_use]
    pub fn new(library: PathBuf, token: TokenSource) -> Self {
        Self { library, pin: None, token, timeout: TIMEOUT, allow_loopback: false }
    }
}

/// One service account, through the SDK core. Nothing is asked before the first question.
pub struct SdkSource {
    core: Arc<Core>,
    session: Arc<Session>,
    calls: Semaphore,
    timeout: Duration,
}

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
pub enum SdkError {
    /// The library is not to be used.
    #[error(transparent)]
    Library(#[from] SdkLibraryError),
    /// The token is not to be used.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl SdkSource {
    /// Checks and loads the library, and looks into the token. Takes a fraction of a second, for the library is
    /// large; asks nobody.
    ///
    /// # Errors
    /// [`SdkError`] says what is not as it should be.
    pub fn open(options: SdkOptions) -> Result<Self, SdkError> {
        let SdkOptions { library, pin, token, timeout, allow_loopback } = options;
        let hosts = Hosts::of(allow_loopback);
        token.read(hosts)?;
        let core = SdkLibrary::read(&library, pin.as_deref())?.load()?;
        let session = Session::new(Arc::clone(&core), token, hosts, timeout);
        Ok(Self { core, session, calls: Semaphore::new(CALLS_MAX), timeout })
    }

    /// Asks, in the time there is.
    async fn ask(&self, question: Question, request: Request<'_>) -> Result<Answer, UpstreamError> {
        let answer = tokio::time::timeout(self.timeout, self.ask_untimed(question, request)).await;
        answer.unwrap_or_else(|_| Err(unavailable("1Password did not answer in time")))
    }

    async fn ask_untimed(&self, question: Question, request: Request<'_>) -> Result<Answer, UpstreamError> {
        let _permit = self.calls.acquire().await.map_err(|_| unavailable("the source is closed"))?;
        let client_id = self.session.client_id().await?;
        match self.core.invoke(&request.to_json(client_id)).await {
            Ok(answer) => {
                self.session.worked(client_id);
                Ok(answer)
            }
            Err(error) => {
                let fault = fault::fault(Some(question), &error);
                if fault.client_lost {
                    self.session.lost(client_id, &fault.error);
                }
                Err(fault.error)
            }
        }
    }
}

#[async_trait]
impl Upstream for SdkSource {
    async fn vaults(&self) -> Result<Vec<Vault>, UpstreamError> {
        read(&self.ask(Question::Vaults, Request::Vaults).await?, vaults)
    }

    async fn items(&self, vault_id: &str) -> Result<Vec<ItemSummary>, UpstreamError> {
        read(&self.ask(Question::Items, Request::Items { vault_id }).await?, items)
    }

    async fn item(&self, vault_id: &str, item_id: &str) -> Result<(ItemOutline, ItemValues), UpstreamError> {
        let answer = self.ask(Question::Item, Request::Item { vault_id, item_id }).await?;
        let (outline, values) = read(&answer, item)?;
        if (&*outline.vault_id, &*outline.id) != (vault_id, item_id) {
            return Err(UpstreamError::unusable("the SDK core gave another item than the one asked for"));
        }
        Ok((outline, values))
    }

    async fn file(&self, vault_id: &str, item_id: &str, file_id: &str) -> Result<SecretValue, UpstreamError> {
        content(&self.ask(Question::File, Request::FileContent { vault_id, item_id, file_id }).await?)
    }

    /// As counted at a stand-in. A vault whose keys the core has not seen costs one more, once.
    fn cost(&self, question: Question) -> u32 {
        match question {
            Question::Vaults | Question::Items | Question::Item => 1,
            // The core reads the item first.
            Question::File => 2,
        }
    }

    fn sign_in_cost(&self) -> u32 {
        if self.session.is_signed_in() { 0 } else { SIGN_IN_COST }
    }

    fn take_sign_in_spending(&self) -> u32 {
        self.session.take_spending()
    }
}

fn unavailable(detail: &str) -> UpstreamError {
    UpstreamError::new(ResolveError::Unavailable, detail)
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// Questions that are asked at once; more of them wait, within their time.
const CALLS_MAX: usize = 16;

#[cfg(test)]
mod tests;
