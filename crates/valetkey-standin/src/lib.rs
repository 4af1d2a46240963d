//! Stand-ins, for tests, for what cannot be had there: written from published contracts, on loopback alone.
//!
//! None of them is 1Password's, and what they prove is how our side behaves, not theirs. All serve one
//! [`World`] of vaults and items, so that one table of references can be held against every source.
//!
//! Not here: anything of ours. Nothing but tests depends on this crate.

mod connect;
mod op;
mod sdk_library;
mod service;
mod world;

pub use connect::{ConnectFault, ConnectServer};
pub use op::{OpCall, OpFault, OpProgram};
pub use sdk_library::{sdk_library, skip};
pub use service::Service;
pub use world::World;
