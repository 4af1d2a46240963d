//! The Connect source: a REST client of 1Password Connect, from the OpenAPI file that is published for it.
//!
//! Asks by id alone and lists without filters: names are matched on our side, by the rules of all sources,
//! and no name can change a question. Follows no redirect, uses no proxy, repeats nothing by itself.
//!
//! Not here: what is kept of the answers, how often is asked, what a reference means. Answers are copied
//! into wiped memory as they arrive; the buffers of the HTTP and TLS libraries are theirs, and are not wiped.

mod answer;
mod check;
mod options;
mod transport;

use async_trait::async_trait;
use valetkey_core::{ResolveError, SecretValue};

use crate::full_item::VALUE_MAX;
use crate::item::{ItemOutline, ItemValues, Vault, is_id};
use crate::upstream::{ItemSummary, Question, Upstream, UpstreamError};
pub use check::connect_checks;
pub use options::{ConnectError, ConnectOptions, ConnectToken, ConnectTokenSource};
use transport::{Failure, Transport};

/// One Connect server and one token for it.
pub(crate) struct Connect {
    transport: Transport,
}

impl Connect {
    /// Asks nothing yet: that the server is there, and takes the token, shows at the first question.
    pub(crate) fn new(options: ConnectOptions) -> Result<Self, ConnectError> {
        Ok(Self { transport: Transport::new(options)? })
    }

    /// Whether the server is alive; asks for nothing of 1Password's.
    async fn heartbeat(&self) -> Result<(), UpstreamError> {
        match self.transport.fetch("/heartbeat", HEARTBEAT_MAX).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(unavailable(&format!("the heartbeat has the status {}", answer.status))),
            Err(Failure::TooLarge) => Err(unavailable("the heartbeat is no heartbeat")),
            Err(Failure::Token(why)) => Err(error(ResolveError::CredentialsRefused, &why.to_string())),
            Err(Failure::Unreachable(detail) | Failure::Broken(detail)) => Err(unavailable(&detail)),
        }
    }

    /// The body of a successful answer; anything else is the question's error.
    async fn ask(&self, question: Question, path: &str, max: usize) -> Result<Body, UpstreamError> {
        let answer = match self.transport.fetch(path, max).await {
            Ok(answer) => answer,
            Err(Failure::TooLarge) if question == Question::File => {
                // Waiting does not make it smaller, and the server is well: the fault is the file's.
                return Err(error(ResolveError::UnsupportedFileFormat, "the file has more than 1 MiB"));
            }
            Err(Failure::TooLarge) => return Err(unusable("the answer is over its bound")),
            Err(Failure::Token(why)) => {
                return Err(unsent(ResolveError::CredentialsRefused, &why.to_string()));
            }
            Err(Failure::Unreachable(detail)) => return Err(unsent(ResolveError::Unavailable, &detail)),
            Err(Failure::Broken(detail)) => return Err(unavailable(&detail)),
        };
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(answer::refusal(question, &answer))
    }
}

#[async_trait]
impl Upstream for Connect {
    async fn vaults(&self) -> Result<Vec<Vault>, UpstreamError> {
        let body = self.ask(Question::Vaults, "/v1/vaults", LIST_MAX).await?;
        answer::vaults(&body)
    }

    async fn items(&self, vault_id: &str) -> Result<Vec<ItemSummary>, UpstreamError> {
        let path = format!("/v1/vaults/{}/items", vault(vault_id)?);
        let body = self.ask(Question::Items, &path, LIST_MAX).await?;
        answer::items(&body, vault_id)
    }

    async fn item(&self, vault_id: &str, item_id: &str) -> Result<(ItemOutline, ItemValues), UpstreamError> {
        let path = format!("/v1/vaults/{}/items/{}", vault(vault_id)?, item(item_id)?);
        let body = self.ask(Question::Item, &path, ITEM_MAX).await?;
        answer::item(&body, vault_id, item_id)
    }

    async fn file(&self, vault_id: &str, item_id: &str, file_id: &str) -> Result<SecretValue, UpstreamError> {
        let (vault_id, item_id, file_id) = (vault(vault_id)?, item(item_id)?, file(file_id)?);
        let path = format!("/v1/vaults/{vault_id}/items/{item_id}/files/{file_id}/content");
        let mut body = self.ask(Question::File, &path, VALUE_MAX).await?;
        Ok(SecretValue::new(std::mem::take(&mut *body)))
    }

    /// One each: Connect keeps what it serves, and 1Password's quotas count what it keeps it with.
    fn cost(&self, question: Question) -> u32 {
        match question {
            Question::Vaults | Question::Items | Question::Item | Question::File => 1,
        }
    }
}

/// A body in wiped memory.
type Body = zeroize::Zeroizing<Vec<u8>>;

/// A vault's id, which becomes a part of a path.
fn vault(id: &str) -> Result<&str, UpstreamError> {
    part(id, is_id, ResolveError::VaultNotFound)
}

fn item(id: &str) -> Result<&str, UpstreamError> {
    part(id, is_id, ResolveError::ItemNotFound)
}

/// A file's id. Its pattern is not published; this has no meaning in a path, whatever it is.
fn file(id: &str) -> Result<&str, UpstreamError> {
    let is_plain = |id: &str| {
        (1..=FILE_ID_MAX).contains(&id.len())
            && id.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c))
    };
    part(id, is_plain, ResolveError::FieldNotFound)
}

fn part(id: &str, is_valid: impl Fn(&str) -> bool, otherwise: ResolveError) -> Result<&str, UpstreamError> {
    if is_valid(id) { Ok(id) } else { Err(unsent(otherwise, "an id of this form is never asked for")) }
}

fn error(error: ResolveError, detail: &str) -> UpstreamError {
    UpstreamError::new(error, &format!("Connect: {detail}"))
}

/// For a question that the server did not get.
fn unsent(error: ResolveError, detail: &str) -> UpstreamError {
    UpstreamError::unsent(error, &format!("Connect: {detail}"))
}

fn unavailable(detail: &str) -> UpstreamError {
    error(ResolveError::Unavailable, detail)
}

fn unusable(detail: &str) -> UpstreamError {
    UpstreamError::unusable(&format!("Connect: {detail}"))
}

/// Of the list of all vaults, or of all items of one, in bytes.
const LIST_MAX: usize = 8 << 20;
/// Of an item with all its values, in bytes.
const ITEM_MAX: usize = 4 << 20;
const FILE_ID_MAX: usize = 64;
/// One point, as it is published; in bytes.
const HEARTBEAT_MAX: usize = 1_024;

#[cfg(test)]
mod tests;
