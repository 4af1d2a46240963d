//! `ReportService`: decide and record that the log may be read, then answer what reviewers ask of the whole of it.

use tonic::{Request, Response, Status};
use valetkey_proto::v1::report_service_server::ReportService;
use valetkey_proto::v1::{
    FindValueRequest, FindValueResponse, GetUsageReportRequest, GetUsageReportResponse, ListFirstUsesRequest,
    ListFirstUsesResponse, ListRefusalsRequest, ListRefusalsResponse, ListUnusedAccessRequest,
    ListUnusedAccessResponse,
};

use crate::find_value::Finder;

/// The service.
pub(crate) struct Reports {
    pub(crate) finder: Finder,
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn get_usage_report(
        &self,
        _: Request<GetUsageReportRequest>,
    ) -> Result<Response<GetUsageReportResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn list_refusals(
        &self,
        _: Request<ListRefusalsRequest>,
    ) -> Result<Response<ListRefusalsResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn list_first_uses(
        &self,
        _: Request<ListFirstUsesRequest>,
    ) -> Result<Response<ListFirstUsesResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn list_unused_access(
        &self,
        _: Request<ListUnusedAccessRequest>,
    ) -> Result<Response<ListUnusedAccessResponse>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn find_value(&self, it: Request<FindValueRequest>) -> Result<Response<FindValueResponse>, Status> {
        self.finder.find(it).await
    }
}
