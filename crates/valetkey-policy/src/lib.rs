//! Turns a directory of Cedar files into answers.
//!
//! [`Bundle::load`] reads and checks the files, an [`Engine`] decides by them, [`run_tests`] and
//! [`matrix`] show what they decide.
//!
//! Not here: gRPC, SQL, secrets, and when to load again.
//!
//! Invariants:
//! - A request that any policy fails to evaluate is refused: Cedar alone would skip a forbid that fails.
//! - The answer is Cedar's own over all policies; the index only leaves out what its scope rules out.
//! - Neither the spelling of a reference nor the purpose reaches a policy. One secret, one answer.
//! - A name that two vaults or items could have forbids what it names and permits nothing.
//! - A word in a policy that could match nothing, or mean nothing, is refused when it is loaded.

mod access;
#[cfg(test)]
mod agreement;
mod bundle;
mod cache;
mod contract;
mod engine;
mod entities;
mod entity_file;
mod error;
mod fault;
mod files;
#[cfg(any(test, feature = "test-util"))]
pub mod generate;
mod index;
mod links;
mod matrix;
mod obligations;
mod policy_file;
mod reviewing;
mod ruling;
mod snapshot;
mod spelling;
mod suite;

pub use bundle::Bundle;
pub use engine::{Engine, Retired};
pub use fault::{Fault, LoadError, Place};
pub use files::revision_of;
pub use matrix::{Cast, CastError, matrix};
pub use suite::{Checked, TestCase, TestReport, check, run_tests};
