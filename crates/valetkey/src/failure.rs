//! How a command ends, and what it says when it does not do what was asked.

use std::fmt;
use std::io;
use std::process::ExitCode;

use valetkey_client::{CallError, ConnectError, EndCause, TokenError};

use crate::output;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Not done, or a test failed.
    Failed = 1,
    /// Policy refuses.
    Denied = 2,
    /// The policies or the configuration are not valid.
    Invalid = 3,
    /// A person has to approve it first.
    Approval = 4,
    /// The command line is not.
    Usage = 64,
    /// The broker, its log or its source is away.
    Unavailable = 69,
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// Something with causes, each of which its `Display` leaves out.
    pub(crate) fn chain(exit: Exit, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self { exit, message }
    }

    /// Says it on stderr.
    pub(crate) fn report(&self) -> ExitCode {
        let Self { exit, message } = self;
        if !message.is_empty() {
            output::error(message);
        }
        (*exit).into()
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let exit = match error {
            CallError::Denied { .. } | CallError::LeaseEnded(EndCause::Policy | EndCause::Credential) => {
                Exit::Denied
            }
            CallError::ApprovalRequired { .. } => Exit::Approval,
            CallError::Unavailable { .. }
            | CallError::LimitReached { .. }
            | CallError::TimedOut(_)
            | CallError::NoBroker { .. }
            | CallError::LeaseLost(_)
            | CallError::LeaseEnded(_) => Exit::Unavailable,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unavailable { .. } | ConnectError::Tls { .. } => {
                Self::chain(Exit::Unavailable, &error)
            }
            _ => Self::new(Exit::Usage, error),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever reads our output has seen enough, as `head` does: nobody is left to tell.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Failed, message: String::new() };
        }
        Self::new(Exit::Failed, error)
    }
}
