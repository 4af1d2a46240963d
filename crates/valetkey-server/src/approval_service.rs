//! `ApprovalService`: parse, ask the broker, print.

mod meaning;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use valetkey_core::{
    Ask, AskPage, AuditRecord, Broker, Call, Choice, Chosen, Reason, RecordKind, Refusal, Subject, Want,
};
use valetkey_proto::v1;
use valetkey_proto::v1::approval_service_server::ApprovalService;
use valetkey_proto::v1::{
    ApproveAccessRequest, ApproveAccessResponse, ListApprovalsRequest, ListApprovalsResponse,
    RejectAccessRequest, RejectAccessResponse,
};

use crate::convert::{self, Violation, timestamp};
use crate::identity::call_of;
use crate::status;

/// The service.
#[derive(Clone)]
pub(crate) struct Approvals {
    pub(crate) broker: Arc<Broker>,
}

#[tonic::async_trait]
impl ApprovalService for Approvals {
    async fn list_approvals(
        &self,
        request: Request<ListApprovalsRequest>,
    ) -> Result<Response<ListApprovalsResponse>, Status> {
        let call = call_of(&request)?;
        let ListApprovalsRequest { page_size, page_token } = request.into_inner();
        let (limit, after) = match parse_page(page_size, &page_token) {
            Ok(parsed) => parsed,
            Err(violation) => return Err(self.invalid(&call, RecordKind::ApprovalList, &[violation]).await),
        };
        let AskPage { asks, next } =
            self.broker.asks(&call, after, limit).await.map_err(|refusal| refused(&refusal, &call))?;
        let approvals = asks.iter().map(|ask| print(ask)).collect();
        let next_page_token = next.map(|place| place.to_string()).unwrap_or_default();
        Ok(Response::new(ListApprovalsResponse { approvals, next_page_token }))
    }

    async fn approve_access(
        &self,
        request: Request<ApproveAccessRequest>,
    ) -> Result<Response<ApproveAccessResponse>, Status> {
        let call = call_of(&request)?;
        let ApproveAccessRequest { approval_id } = request.into_inner();
        let Chosen { ask, expire_time, record } = self.choose(&call, Choice::Approve, &approval_id).await?;
        Ok(Response::new(ApproveAccessResponse {
            approval: Some(print(&ask)),
            expire_time: Some(timestamp(expire_time)),
            record_id: record.to_string(),
        }))
    }

    async fn reject_access(
        &self,
        request: Request<RejectAccessRequest>,
    ) -> Result<Response<RejectAccessResponse>, Status> {
        let call = call_of(&request)?;
        let RejectAccessRequest { approval_id } = request.into_inner();
        let Chosen { ask, expire_time, record } = self.choose(&call, Choice::Reject, &approval_id).await?;
        Ok(Response::new(RejectAccessResponse {
            approval: Some(print(&ask)),
            expire_time: Some(timestamp(expire_time)),
            record_id: record.to_string(),
        }))
    }
}

impl Approvals {
    async fn choose(&self, call: &Arc<Call>, choice: Choice, approval_id: &str) -> Result<Chosen, Status> {
        let kind = match choice {
            Choice::Approve => RecordKind::Approve,
            Choice::Reject => RecordKind::Reject,
        };
        let id = match convert::approval_id(approval_id) {
            Ok(id) => id,
            Err(violations) => return Err(self.invalid(call, kind, &violations).await),
        };
        // In a task of its own: where a caller goes away, what is written down is done all the same.
        let (broker, by) = (Arc::clone(&self.broker), Arc::clone(call));
        match tokio::spawn(async move { broker.choose(&by, choice, id).await }).await {
            Ok(chosen) => chosen.map_err(|refusal| refused(&refusal, call)),
            Err(_) => Err(status::internal(&call.id.to_string())),
        }
    }

    /// Refuses a message whose fields break their rules, and records it.
    async fn invalid(&self, call: &Call, kind: RecordKind, violations: &[Violation]) -> Status {
        let detail: Vec<_> = violations.iter().map(ToString::to_string).collect();
        let record = AuditRecord::refusal(self.broker.clock().now(), kind, Reason::FieldInvalid).by(call);
        let record = self.broker.note(record.with_detail(&detail.join("; "))).await;
        record.map_or_else(|_| status::audit_unavailable(), |record| status::invalid(violations, record))
    }
}

fn refused(refusal: &Refusal, call: &Call) -> Status {
    status::refused(refusal, &call.id.to_string())
}

fn print(ask: &Ask) -> v1::Approval {
    let Ask { id, subject, wants, purpose, session, groups, create_time, expire_time } = ask;
    let Subject { agent, person, tool, destination, claims } = subject;
    v1::Approval {
        approval_id: id.to_string(),
        agent: agent.to_string(),
        on_behalf_of: person.as_ref().map(ToString::to_string).unwrap_or_default(),
        tool: tool.to_string(),
        references: wants.iter().map(reference).collect(),
        purpose: purpose.as_ref().map_or("", |it| it.as_str()).to_owned(),
        destination: destination.as_ref().map_or("", |it| it.as_str()).to_owned(),
        session: session.as_ref().map_or("", |it| it.as_str()).to_owned(),
        claims: claims.iter().map(|claim| claim.as_str().to_owned()).collect(),
        groups: groups.iter().map(ToString::to_string).collect(),
        create_time: Some(timestamp(*create_time)),
        expire_time: Some(timestamp(*expire_time)),
    }
}

fn reference(want: &Want) -> v1::ApprovalReference {
    let Want { reference, target, record } = want;
    let (vault, item, field) = (target.vault(), target.item(), target.field());
    let text = |text: Option<&Arc<str>>| text.map(ToString::to_string).unwrap_or_default();
    v1::ApprovalReference {
        reference: reference.as_ref().to_owned(),
        vault: text(vault.map(|it| &it.name)),
        item: text(item.map(|it| &it.name)),
        field: text(field.map(|it| &it.field)),
        record_id: record.to_string(),
        section: text(field.map(|it| &it.section)),
        kind: field.map_or("", |it| it.facet.as_str()).to_owned(),
        vault_id: text(vault.map(|it| &it.id)),
        item_id: text(item.map(|it| &it.id)),
        field_id: text(field.map(|it| &it.field_id)),
        meaning: meaning::of(reference, target),
    }
}

/// A place is a position, and no permission: whoever makes one up gets what a list gives anyway.
fn parse_page(page_size: i32, page_token: &str) -> Result<(usize, u64), Violation> {
    let limit = match usize::try_from(page_size) {
        Ok(0) => PAGE_SIZE_USUAL,
        Ok(size) => size.min(PAGE_SIZE_MAX),
        Err(_) => return Err(Violation::new("page_size", "INVALID_PAGE_SIZE", "must not be negative")),
    };
    if page_token.is_empty() {
        return Ok((limit, 0));
    }
    let wrong = |_| Violation::new("page_token", "INVALID_PAGE_TOKEN", "is not a page token");
    page_token.parse().map(|after| (limit, after)).map_err(wrong)
}

const PAGE_SIZE_USUAL: usize = 50;
const PAGE_SIZE_MAX: usize = 1000;
