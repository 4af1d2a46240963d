//! The whole broker from outside: real gRPC on a real socket, the real policies, SQLite on a real disk. One
//! file a capability; `tests/src` is the harness.

mod audit;
mod connections;
mod crash;
mod disk;
mod hostile;
mod limits;
mod no_leaks;
mod refusals;
mod reload;
mod reviewers;
mod rpc_coverage;
mod sources;
mod spellings;
mod story;
