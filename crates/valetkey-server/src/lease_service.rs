//! `LeaseService`: parse, ask the broker, print.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tonic::{Request, Response, Status};
use valetkey_core::{AgentId, AuditRecord, Broker, Call, LeaseEvents, Reason, RecordKind, Redeemed, Refusal};
use valetkey_proto::v1::lease_service_server::LeaseService;
use valetkey_proto::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, CheckAccessRequest, CheckAccessResponse, EndLeaseRequest,
    EndLeaseResponse, RedeemHandleRequest, RedeemHandleResponse,
};
use zeroize::Zeroizing;

use crate::config::ApprovalLink;
use crate::convert::{self, AskLimits, Violation};
use crate::identity::{agent_of, call_of};
use crate::limits::Limiter;
use crate::status;

/// The service.
pub(crate) struct Leases {
    pub(crate) broker: Arc<Broker>,
    pub(crate) limits: AskLimits,
    pub(crate) limiter: Arc<Limiter>,
    /// Where people approve.
    pub(crate) approval_link: Option<ApprovalLink>,
}

/// The events of a lease, printed. Dropping it ends the lease.
pub(crate) struct LeaseStream(LeaseEvents);

impl Stream for LeaseStream {
    type Item = Result<AcquireLeaseResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context).map(|event| event.map(|event| Ok(convert::lease_event(event))))
    }
}

#[tonic::async_trait]
impl LeaseService for Leases {
    type AcquireLeaseStream = LeaseStream;

    async fn acquire_lease(
        &self,
        request: Request<AcquireLeaseRequest>,
    ) -> Result<Response<LeaseStream>, Status> {
        let call = call_of(&request)?;
        let agent = self.agent(&call, RecordKind::Acquire).await?;
        let message = request.into_inner();
        let ask = match convert::acquire(message, Arc::clone(&call), agent, self.limits) {
            Ok(ask) => ask,
            Err(violations) => return Err(self.invalid(&call, RecordKind::Acquire, &violations).await),
        };
        self.charge(&call, ask.references.len()).await?;
        match self.broker.acquire(ask).await {
            Ok(events) => Ok(Response::new(LeaseStream(events))),
            Err(Refusal::AgentLimit { full }) => Err(self.limiter.refuse_lease(&call, full).await),
            Err(Refusal::ApprovalRequired { id, reference, record }) => {
                Err(status::approval_required(id, &reference, record, self.approval_link.as_ref()))
            }
            Err(refusal) => Err(refused(&refusal, &call)),
        }
    }

    async fn redeem_handle(
        &self,
        request: Request<RedeemHandleRequest>,
    ) -> Result<Response<RedeemHandleResponse>, Status> {
        let call = call_of(&request)?;
        let RedeemHandleRequest { handle, destination } = request.into_inner();
        let handle = Zeroizing::new(handle);
        let destination = match convert::destination(&destination) {
            Ok(destination) => destination,
            Err(violations) => {
                return Err(self.invalid(&call, RecordKind::Redeem, &violations).await);
            }
        };
        let Redeemed { value, record } = self
            .broker
            .redeem(&call, &handle, destination)
            .await
            .map_err(|refusal| refused(&refusal, &call))?;
        Ok(Response::new(RedeemHandleResponse {
            secret_value: value.expose_secret().to_vec(),
            record_id: record.to_string(),
        }))
    }

    async fn end_lease(
        &self,
        request: Request<EndLeaseRequest>,
    ) -> Result<Response<EndLeaseResponse>, Status> {
        let call = call_of(&request)?;
        let EndLeaseRequest { lease_id } = request.into_inner();
        let lease = match convert::lease_id(&lease_id) {
            Ok(lease) => lease,
            Err(violations) => {
                return Err(self.invalid(&call, RecordKind::EndLease, &violations).await);
            }
        };
        self.broker.end_lease(&call, lease).await.map_err(|refusal| refused(&refusal, &call))?;
        Ok(Response::new(EndLeaseResponse {}))
    }

    async fn check_access(
        &self,
        request: Request<CheckAccessRequest>,
    ) -> Result<Response<CheckAccessResponse>, Status> {
        let call = call_of(&request)?;
        let agent = self.agent(&call, RecordKind::Check).await?;
        let message = request.into_inner();
        let ask = match convert::check(message, Arc::clone(&call), agent, self.limits) {
            Ok(ask) => ask,
            Err(violations) => return Err(self.invalid(&call, RecordKind::Check, &violations).await),
        };
        let answer = self.broker.check(ask).await.map_err(|refusal| refused(&refusal, &call))?;
        Ok(Response::new(convert::check_answer(answer)))
    }
}

impl Leases {
    /// The caller as an agent; anybody else is refused, and recorded.
    async fn agent(&self, call: &Call, kind: RecordKind) -> Result<AgentId, Status> {
        if let Some(agent) = agent_of(call) {
            return Ok(agent);
        }
        let record = AuditRecord::refusal(self.broker.clock().now(), kind, Reason::CallerKind).by(call);
        match self.broker.note(record).await {
            Ok(record) => Err(status::wrong_caller(record)),
            Err(error) => Err(refused(&error.into(), call)),
        }
    }

    /// Counts each reference as the caller's.
    async fn charge(&self, call: &Call, references: usize) -> Result<(), Status> {
        match self.limiter.identities.references(&call.caller, references) {
            Ok(()) => Ok(()),
            Err(exceeded) => Err(self.limiter.refuse(call, "references", &exceeded).await),
        }
    }

    /// Refuses a message whose fields break their rules, and records it.
    async fn invalid(&self, call: &Call, kind: RecordKind, violations: &[Violation]) -> Status {
        let first = violations.iter().take(VIOLATIONS_RECORDED_MAX);
        let detail: Vec<_> = first.map(|violation| violation.to_string()).collect();
        let record = AuditRecord::refusal(self.broker.clock().now(), kind, Reason::FieldInvalid).by(call);
        match self.broker.note(record.with_detail(&detail.join("; "))).await {
            Ok(record) => status::invalid(violations, record),
            Err(error) => refused(&error.into(), call),
        }
    }
}

fn refused(refusal: &Refusal, call: &Call) -> Status {
    status::refused(refusal, &call.id.to_string())
}

const VIOLATIONS_RECORDED_MAX: usize = 8;
