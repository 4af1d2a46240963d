//! Fetches fields from a vault, given proof that it may.
//!
//! One item model, one set of matching rules and one way to make a value into what was asked for; sources
//! differ only in where items come from. [`VaultFile`] is the source for
//! development and tests: a JSON file of items, held in memory.
//!
//! Not here: policy, the log, the wire. A source is a [`valetkey_core::Directory`], which says what a
//! reference means, and a [`valetkey_core::Resolver`], which takes a [`valetkey_core::Grant`] and fetches
//! what stands in it and nothing else.
//!
//! Invariants:
//! - All spellings of one secret give equal [`valetkey_core::Target`]s.
//! - What is fetched is found by the ids of the target, never by a name.
//! - Nothing that holds a value has `Debug` or `Clone`; values lie in memory that is wiped.
//! - No error and no fault of a file repeats a value.

mod catalogue;
mod check;
#[cfg(test)]
mod conformance;
mod connect;
mod file;
mod full_item;
mod install;
mod item;
mod json;
mod matching;
mod names;
mod op;
mod open;
mod sdk;
mod source;
mod ssh;
mod token;
mod totp;
mod upstream;
mod vault_file;

pub use check::{Check, Verdict};
pub use connect::{ConnectError, ConnectOptions, ConnectToken, ConnectTokenSource, connect_checks};
pub use install::InstallError;
pub use json::VaultFault;
pub use op::{OpOptions, OpProgramError, OpRateLimit, find_op, op_checks};
pub use open::OpenError;
pub use sdk::{SdkError, SdkLibrary, SdkLibraryError, SdkOptions, SdkPin, SdkSource, sdk_checks, sdk_pins};
pub use source::{
    Member, QuotaError, QuotaLimits, Source, SourceFigures, SourceOptions, SourceState, Sources, Spending,
    quota_check,
};
pub use token::{TokenError, TokenNames, TokenSource};
pub use vault_file::{LoadOptions, VaultFile, VaultFileError};
