//! What should never happen while deciding, and is a Deny if it does.

use std::error::Error;

/// Cedar would not take what the engine made of a request. The loader tries every kind of request
/// against the schema, so what remains is a caller that has no business with the call, or a fault of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EngineError(String);

impl EngineError {
    /// What is wrong, in our own words.
    pub(crate) fn new(message: String) -> Self {
        Self(message)
    }

    /// From one of Cedar's errors, with its causes.
    pub(crate) fn of(error: impl Error) -> Self {
        Self(chain(&error))
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let own = error.to_string();
        // Some of Cedar's errors repeat their source.
        if !text.contains(&own) {
            text = if text.is_empty() { own } else { format!("{text}: {own}") };
        }
        next = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
