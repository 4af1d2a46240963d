//! The whole broker from outside: real gRPC on a real socket, the real policies, SQLite on a real disk. One
//! file a capability; `tests/src` is the harness.

mod approvals;
mod audit;
mod backups;
mod behalf;
mod complete;
mod connections;
mod crash;
mod disk;
mod events_api;
mod events_tokens;
mod exports;
mod find_value;
mod hostile;
mod jwt;
mod limits;
mod mutual_tls;
mod no_leaks;
mod refusals;
mod reload;
mod reports;
mod reviewers;
mod rpc_coverage;
mod rust_client;
mod sources;
mod spellings;
mod story;
mod tokens;
mod unix_socket;
mod workload_api;
