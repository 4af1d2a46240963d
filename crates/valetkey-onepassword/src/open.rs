//! Opens sources: an upstream of each kind, under the layer that all have in common.

use std::sync::Arc;

use valetkey_core::Clock;

use crate::connect::Connect;
use crate::op::Op;
use crate::{
    ConnectError, ConnectOptions, OpOptions, OpProgramError, QuotaError, SdkError, SdkOptions, SdkSource,
    Source, SourceOptions, TokenError,
};

/// Why a source cannot be opened. Nothing was asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The SDK core, or its token.
    #[error(transparent)]
    Sdk(#[from] SdkError),
    /// The service account's token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The Connect server, or its token.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The `op` program.
    #[error(transparent)]
    Op(#[from] OpProgramError),
    /// The budget.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// It is the embedded vault, which is loaded instead.
    #[error("a vault file is loaded, not asked")]
    NotRemote,
}

impl Source {
    /// A service account, through the SDK core.
    ///
    /// # Errors
    /// [`OpenError`] says what is not as it should be.
    pub fn sdk(sdk: SdkOptions, options: SourceOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Ok(Self::over(Box::new(SdkSource::open(sdk)?), "sdk", options, clock)?)
    }

    /// A Connect server.
    ///
    /// # Errors
    /// [`OpenError`] says what is not as it should be.
    pub fn connect(
        connect: ConnectOptions,
        options: SourceOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Ok(Self::over(Box::new(Connect::new(connect)?), "connect", options, clock)?)
    }

    /// A service account, through the `op` program.
    ///
    /// # Errors
    /// [`OpenError`] says what is not as it should be.
    pub fn op(op: OpOptions, options: SourceOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Ok(Self::over(Box::new(Op::open(op)?), "op", options, clock)?)
    }
}
