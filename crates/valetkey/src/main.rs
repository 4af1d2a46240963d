//! The one binary: argument parsing, output, exit codes.
//!
//! `cli.rs` has the arguments and their help, `output.rs` everything that is printed, `failure.rs` the exit
//! codes; each command group has a file of its own, and `demo/` the travel story.
//!
//! Not here: decisions, storage, the wire; the server and the client do those.
//!
//! Invariants:
//! - Data goes to stdout and messages to stderr, through `output.rs` alone.
//! - A token is never an argument; values are printed by `redeem`, `read` and `inject` alone.
//! - Nobody of the same user looks into the process's memory.

mod approval;
mod audit;
mod backup;
mod check;
mod cli;
mod config;
mod connection;
mod demo;
mod dev_ca;
mod doctor;
mod export;
mod failure;
mod find_value;
mod inject;
mod lease;
mod logging;
mod mcp;
mod onepassword;
mod output;
mod policy;
mod read;
mod redeem;
mod run;
mod serve;
mod shell;
mod signals;
mod status;
mod throwaway;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    hide_memory();
    let Cli { command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    match run(command) {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Policy(command) => block_on(policy::run(command)),
        Command::Token(command) => block_on(token::run(command)),
        Command::Approval(command) => block_on(approval::run(command)),
        Command::Config(command) => block_on(config::run(command)),
        Command::Backup(args) => block_on(backup::run(args)),
        Command::DevCa(args) => dev_ca::run(args).map(Into::into),
        Command::Doctor(args) => block_on(doctor::run(args)),
        Command::Onepassword(command) => block_on(onepassword::run(command)),
        Command::Demo => block_on(demo::run()),
        Command::Serve(args) => {
            logging::start(args.log_format)?;
            block_on(serve::run(args))
        }
        Command::Acquire(args) => block_on(lease::run(args)),
        Command::Redeem(args) => block_on(redeem::run(args)),
        Command::Check(args) => block_on(check::run(args)),
        Command::Read(args) => block_on(read::run(args)),
        Command::Inject(args) => block_on(inject::run(args)),
        Command::Run(args) => block_on_and_leave(run::run(args)),
        Command::Mcp(args) => block_on_and_leave(mcp::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Audit(command) => block_on(audit::run(command)),
    }
}

fn block_on<E: Into<ExitCode>>(
    command: impl Future<Output = Result<E, Failure>>,
) -> Result<ExitCode, Failure> {
    tokio::runtime::Runtime::new()?.block_on(command).map(Into::into)
}

/// Likewise, for a command that may have begun to read stdin or to write to stdout: a thread that hangs in that cannot be
/// stopped, and must not keep the process.
fn block_on_and_leave<E: Into<ExitCode>>(
    command: impl Future<Output = Result<E, Failure>>,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(command);
    runtime.shutdown_background();
    ended.map(Into::into)
}

/// Values and tokens are in our memory: no core file of it, and no look into it or our environment for other processes
/// of the same user, such as the command of `run`.
fn hide_memory() {
    #[cfg(target_os = "linux")]
    // Where the kernel refuses, there is nothing else to be done.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    #[test]
    fn nobody_looks_into_the_memory() {
        super::hide_memory();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
