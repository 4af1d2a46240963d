//! The `op` program as a source: the fallback where neither the SDK core nor a Connect server can be had.
//!
//! Each question is one run of the program, one to two seconds long. It gets its arguments without a shell, an
//! empty standard input, a home of its own and an environment in which the token is the only way to sign in.
//! Arguments carry ids alone: whoever can list processes can read arguments.
//!
//! The token goes by the environment, which is the one way that `op` takes. While a run lasts, it therefore
//! stands in `/proc/<pid>/environ` for root and for every process of the broker's own user: run nothing else as
//! that user. The copies of it that the start of a process makes in this one are not wiped.
//!
//! Not here: which names mean what. Everything is asked by id; names are matched above, by the same rules for
//! every source.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use valetkey_core::{ResolveError, SecretValue};

use crate::full_item::VALUE_MAX;
use crate::item::{ItemOutline, ItemValues, Vault, is_id, is_sayable};
use crate::token::TokenSource;
use crate::upstream::{ItemSummary, Progress, Question, Upstream, UpstreamError};

mod answer;
mod call;
mod check;
mod failure;
mod home;
mod program;

pub use answer::OpRateLimit;
pub use check::op_checks;
pub use program::{OpProgramError, find_op};

use call::Caller;

/// How `op` is run.
pub struct OpOptions {
    /// The program, by its absolute path; [`find_op`] looks for it.
    pub program: PathBuf,
    /// The service account.
    pub token: TokenSource,
    /// Accepts a token that signs in on this machine. For tests.
    pub allow_loopback: bool,
    /// How long a run may take, and how long a question may wait for its turn before it. Usually
    /// [`OpOptions::TIMEOUT`].
    pub timeout: Duration,
    /// How many runs there may be at a time, at least one. Usually [`OpOptions::PROCESSES_MAX`].
    pub processes_max: usize,
}

impl OpOptions {
    /// A run that has not answered by then hangs: `op` may wait for a desktop application for ever.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
    /// Each run is a process of some 50 MiB.
    pub const PROCESSES_MAX: usize = 4;
}

/// One service account, asked through `op`.
pub(crate) struct Op {
    caller: Caller,
}

impl Op {
    /// Checks the program, without running it, and makes its home.
    ///
    /// # Errors
    /// [`OpProgramError`] where the program must not be run.
    pub(crate) fn open(options: OpOptions) -> Result<Self, OpProgramError> {
        Ok(Self { caller: Caller::open(options)? })
    }

    /// The program's version, without asking 1Password.
    pub(crate) async fn version(&self) -> Result<String, UpstreamError> {
        answer::version(&self.caller.run(&["--version"]).await?)
    }

    /// What is left of the quotas. This question itself is free.
    pub(crate) async fn rate_limits(&self) -> Result<Vec<OpRateLimit>, UpstreamError> {
        let arguments = ["service-account", "ratelimit", "--format", "json"];
        answer::rate_limits(&self.caller.run(&arguments).await?)
    }
}

#[async_trait]
impl Upstream for Op {
    async fn vaults(&self) -> Result<Vec<Vault>, UpstreamError> {
        answer::vaults(&self.caller.run(&["vault", "list", "--format", "json"]).await?)
    }

    /// With the archived ones: that an id leads to one of them is to be said as such.
    async fn items(&self, vault_id: &str) -> Result<Vec<ItemSummary>, UpstreamError> {
        check(is_id(vault_id), ResolveError::VaultNotFound)?;
        let arguments = ["item", "list", "--vault", vault_id, "--include-archive", "--format", "json"];
        answer::items(&self.caller.run(&arguments).await?, vault_id)
    }

    async fn item(&self, vault_id: &str, item_id: &str) -> Result<(ItemOutline, ItemValues), UpstreamError> {
        check(is_id(vault_id), ResolveError::VaultNotFound)?;
        check(is_id(item_id), ResolveError::ItemNotFound)?;
        let arguments =
            ["item", "get", item_id, "--vault", vault_id, "--include-archive", "--format", "json"];
        answer::item(&self.caller.run(&arguments).await?, vault_id, item_id)
    }

    async fn file(&self, vault_id: &str, item_id: &str, file_id: &str) -> Result<SecretValue, UpstreamError> {
        check(is_id(vault_id), ResolveError::VaultNotFound)?;
        check(is_id(item_id), ResolveError::ItemNotFound)?;
        check(is_sayable(file_id), ResolveError::FieldNotFound)?;
        let reference = format!("op://{vault_id}/{item_id}/{file_id}");
        let too_large =
            || UpstreamError::new(ResolveError::UnsupportedFileFormat, "the file has more than 1 MiB");
        let content = self.caller.run(&["read", "--no-newline", &reference]).await;
        let mut content = content
            .map_err(|error| if error.progress == Progress::Answered { too_large() } else { error })?;
        if content.len() > VALUE_MAX {
            return Err(too_large());
        }
        Ok(SecretValue::new(std::mem::take(&mut *content)))
    }

    /// `op` keeps nothing between runs: an item is asked for after its vault, a file after both.
    fn cost(&self, question: Question) -> u32 {
        match question {
            Question::Vaults => 1,
            Question::Items | Question::Item => 2,
            Question::File => 3,
        }
    }
}

/// Refuses what can be nothing's id: it must not become an argument.
fn check(good: bool, error: ResolveError) -> Result<(), UpstreamError> {
    if good { Ok(()) } else { Err(UpstreamError::unsent(error, "is no id: `op` was not asked")) }
}

#[cfg(test)]
mod tests;
