//! `OperatorService`: asks the gate, and shows the broker's state.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use valetkey_core::{AdminAction, AdminRequest, AdminResource};
use valetkey_proto::v1::operator_service_server::OperatorService;
use valetkey_proto::v1::{GetStatusRequest, GetStatusResponse};

use crate::identity::call_of;
use crate::state::State;
use crate::status;

/// The service.
pub(crate) struct Operator(pub(crate) State);

#[tonic::async_trait]
impl OperatorService for Operator {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let call = call_of(&request)?;
        let GetStatusRequest {} = request.into_inner();
        let asked = AdminRequest {
            call: Arc::clone(&call),
            action: AdminAction::Operate,
            resource: AdminResource::Broker,
            detail: "GetStatus".into(),
        };
        match self.0.broker.permit(&asked).await {
            Ok(_permission) => Ok(Response::new(self.0.show())),
            Err(refusal) => Err(status::refused(&refusal, &call.id.to_string())),
        }
    }
}
