//! The calls of an operator.

use valetkey_proto::v1;

use crate::broker::{Broker, bounded};
use crate::error::CallError;

impl Broker {
    /// What the broker is doing: its leases, its log, its sources and what is left of their quotas.
    ///
    /// # Errors
    /// [`CallError::Denied`] for those who may not operate it.
    pub async fn status(&self) -> Result<v1::GetStatusResponse, CallError> {
        bounded(self.operator.clone().get_status(v1::GetStatusRequest {})).await
    }
}
