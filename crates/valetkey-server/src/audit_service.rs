//! `AuditService`: decide and record that the log may be read, then read it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use valetkey_audit::{AuditReader, Filter, PageToken, Proof, ReadError, Vaults};
use valetkey_core::{
    AuditRecord, AuditScope, Broker, Call, Identity, Reason, RecordId, RecordKind, Refusal, scrub,
};
use valetkey_proto::v1::audit_service_server::AuditService;
use valetkey_proto::v1::{
    ExportAuditRecordsRequest, ExportAuditRecordsResponse, GetAuditCheckpointRequest,
    GetAuditCheckpointResponse, GetAuditProofRequest, GetAuditProofResponse, GetAuditRecordRequest,
    GetAuditRecordResponse, ListAuditRecordsRequest, ListAuditRecordsResponse, WatchAuditRecordsRequest,
    WatchAuditRecordsResponse,
};

use crate::audit_record;
use crate::convert::Violation;
use crate::identity::call_of;
use crate::status;

/// The service.
pub(crate) struct Audit {
    pub(crate) broker: Arc<Broker>,
    pub(crate) reader: AuditReader,
    /// The public key of its checkpoints.
    pub(crate) verifier_key: String,
    /// The last durable record, as it moves.
    pub(crate) committed: watch::Receiver<u64>,
    /// Turns true when the broker stops: watches end then.
    pub(crate) stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_audit_records(
        &self,
        request: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        let call = call_of(&request)?;
        let ListAuditRecordsRequest { filter, page_size, page_token } = request.into_inner();
        let Review { scope, .. } = self.permit(&call, &format!("list {filter}")).await?;
        let parsed = self.parse(&call, parse_list(&filter, page_size, &page_token)).await?;
        let (filter, limit, before) = parsed;
        let page = self.reader.list(&filter, &scope, before, limit).await.map_err(unreadable)?;
        Ok(Response::new(ListAuditRecordsResponse {
            records: page.records.into_iter().map(audit_record::print).collect(),
            next_page_token: page.next.map(|before| PageToken { before }.encode(&filter)).unwrap_or_default(),
        }))
    }

    async fn get_audit_record(
        &self,
        request: Request<GetAuditRecordRequest>,
    ) -> Result<Response<GetAuditRecordResponse>, Status> {
        let call = call_of(&request)?;
        let GetAuditRecordRequest { record_id } = request.into_inner();
        let Review { scope, .. } = self.permit(&call, &format!("get {record_id}")).await?;
        let record = self.parse(&call, parse_record_id("record_id", &record_id)).await?;
        let record = self.reader.fetch(&scope, record).await.map_err(unreadable)?;
        let record = record.ok_or_else(status::record_not_found)?;
        Ok(Response::new(GetAuditRecordResponse { record: Some(audit_record::print(record)) }))
    }

    type WatchAuditRecordsStream = BoxStream<'static, Result<WatchAuditRecordsResponse, Status>>;

    async fn watch_audit_records(
        &self,
        request: Request<WatchAuditRecordsRequest>,
    ) -> Result<Response<Self::WatchAuditRecordsStream>, Status> {
        let call = call_of(&request)?;
        let WatchAuditRecordsRequest { filter, after_record_id } = request.into_inner();
        let detail = format!("watch {filter}");
        let review = self.permit(&call, &detail).await?;
        let filter = self.parse(&call, parse_filter(&filter)).await?;
        let committed = self.committed.clone();
        let after = match after_record_id.as_str() {
            "" => RecordId(*committed.borrow()),
            text => self.parse(&call, parse_record_id("after_record_id", text)).await?,
        };
        let watch = Watch {
            broker: Arc::clone(&self.broker),
            reader: self.reader.clone(),
            call,
            detail,
            review,
            filter,
            after,
            committed,
            stopping: self.stopping.clone(),
        };
        Ok(Response::new(stream::try_unfold(watch, Watch::batch).flat_map(flatten).boxed()))
    }

    type ExportAuditRecordsStream = BoxStream<'static, Result<ExportAuditRecordsResponse, Status>>;

    async fn export_audit_records(
        &self,
        _: Request<ExportAuditRecordsRequest>,
    ) -> Result<Response<Self::ExportAuditRecordsStream>, Status> {
        Err(Status::unimplemented("to come"))
    }

    async fn get_audit_proof(
        &self,
        request: Request<GetAuditProofRequest>,
    ) -> Result<Response<GetAuditProofResponse>, Status> {
        let call = call_of(&request)?;
        let GetAuditProofRequest { record_id } = request.into_inner();
        let Review { scope, .. } = self.permit(&call, &format!("prove {record_id}")).await?;
        let record = self.parse(&call, parse_record_id("record_id", &record_id)).await?;
        match self.reader.prove(&scope, record).await.map_err(unreadable)? {
            Proof::NoRecord => Err(status::record_not_found()),
            Proof::NotSigned => Err(status::record_not_signed()),
            Proof::Text(proof) => Ok(Response::new(GetAuditProofResponse { proof })),
        }
    }

    async fn get_audit_checkpoint(
        &self,
        request: Request<GetAuditCheckpointRequest>,
    ) -> Result<Response<GetAuditCheckpointResponse>, Status> {
        let call = call_of(&request)?;
        let GetAuditCheckpointRequest {} = request.into_inner();
        self.permit(&call, "checkpoint").await?;
        let (checkpoint, last) = self.reader.checkpoint().await.map_err(unreadable)?;
        Ok(Response::new(GetAuditCheckpointResponse {
            checkpoint: checkpoint.ok_or_else(status::record_not_signed)?,
            verifier_key: self.verifier_key.clone(),
            last_record_id: last.to_string(),
        }))
    }
}

impl Audit {
    async fn permit(&self, call: &Call, detail: &str) -> Result<Review, Status> {
        permit(&self.broker, &self.reader, call, detail).await
    }

    /// Refuses a message whose fields break their rules, and records it.
    async fn parse<T>(&self, call: &Call, parsed: Result<T, Violation>) -> Result<T, Status> {
        let violation = match parsed {
            Ok(parsed) => return Ok(parsed),
            Err(violation) => violation,
        };
        let now = self.broker.clock().now();
        let record = AuditRecord::refusal(now, RecordKind::ReadAudit, Reason::FieldInvalid).by(call);
        let record = self.broker.note(record.with_detail(&violation.to_string())).await;
        Err(record
            .map_or_else(|_| status::audit_unavailable(), |record| status::invalid(&[violation], record)))
    }
}

/// What somebody may read, and what that was decided on.
pub(crate) struct Review {
    pub(crate) scope: AuditScope,
    /// The policies.
    generation: u64,
    /// The vaults that occur in the log.
    vaults: Vaults,
}

/// Decides how much of the log may be read, and records it. Only people can be limited to some vaults, so for
/// others nobody needs to know which there are.
pub(crate) async fn permit(
    broker: &Broker,
    reader: &AuditReader,
    call: &Call,
    detail: &str,
) -> Result<Review, Status> {
    let vaults = match call.caller {
        Identity::Person(_) => reader.vaults().await,
        Identity::Agent(_) | Identity::Tool(_) => Ok(Vaults::default()),
    };
    let generation = broker.generation();
    let known = vaults.as_ref().map(|vaults| vaults.vaults.as_slice()).unwrap_or_default();
    match (broker.permit_audit(call, known, &scrub(detail, DETAIL_MAX)).await, vaults) {
        (Ok(scope), vaults) => Ok(Review { scope, generation, vaults: vaults.unwrap_or_default() }),
        // Whoever reads the whole log does not depend on its vaults; a refusal may.
        (Err(Refusal::Denied { .. }), Err(error)) => Err(unreadable(error)),
        (Err(refusal), _) => Err(status::refused(&refusal, &call.id.to_string())),
    }
}

/// A watch between two batches.
struct Watch {
    broker: Arc<Broker>,
    reader: AuditReader,
    call: Arc<Call>,
    detail: String,
    /// What was permitted. Under other policies it is decided again, and where the log has other vaults.
    review: Review,
    filter: Filter,
    after: RecordId,
    committed: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
}

/// A log without bound.
const TO_THE_END: RecordId = RecordId(u64::MAX);

type Batch = Vec<WatchAuditRecordsResponse>;

impl Watch {
    /// Has it decided again where what it was decided on has changed. Up to which record that holds: a vault that
    /// comes up later is to be decided on before its records are passed over.
    async fn decide_again(&mut self) -> Result<RecordId, Status> {
        let limited = matches!(self.review.scope, AuditScope::Vaults(_));
        let found = match limited {
            true => self.reader.vaults().await.map_err(unreadable)?,
            false => Vaults::default(),
        };
        let changed = self.broker.generation() != self.review.generation;
        if changed || (limited && found.vaults != self.review.vaults.vaults) {
            self.review = permit(&self.broker, &self.reader, &self.call, &self.detail).await?;
        } else {
            self.review.vaults = found;
        }
        Ok(match self.review.scope {
            AuditScope::Whole => TO_THE_END,
            AuditScope::Vaults(_) => self.review.vaults.seen,
        })
    }

    /// The next records, as soon as there are any; `None` when the broker stops.
    async fn batch(mut self) -> Result<Option<(Batch, Self)>, Status> {
        loop {
            if *self.stopping.borrow() {
                return Ok(None);
            }
            self.committed.mark_unchanged();
            let until = self.decide_again().await?;
            let Review { scope, .. } = &self.review;
            let span = (self.after, until);
            let tail = self.reader.after(&self.filter, scope, span, WATCH_BATCH).await.map_err(unreadable)?;
            let moved = tail.seen > self.after;
            self.after = tail.seen;
            if !tail.records.is_empty() {
                let print = |record| WatchAuditRecordsResponse { record: Some(audit_record::print(record)) };
                return Ok(Some((tail.records.into_iter().map(print).collect(), self)));
            }
            if moved {
                continue;
            }
            tokio::select! {
                changed = self.committed.changed() => if changed.is_err() { return Ok(None) },
                changed = self.stopping.changed() => if changed.is_err() { return Ok(None) },
            }
        }
    }
}

fn flatten(
    batch: Result<Batch, Status>,
) -> stream::Iter<std::vec::IntoIter<Result<WatchAuditRecordsResponse, Status>>> {
    let items: Vec<_> = match batch {
        Ok(batch) => batch.into_iter().map(Ok).collect(),
        Err(status) => vec![Err(status)],
    };
    stream::iter(items)
}

fn parse_list(
    filter: &str,
    page_size: i32,
    page_token: &str,
) -> Result<(Filter, usize, Option<RecordId>), Violation> {
    let filter = parse_filter(filter)?;
    let limit = match usize::try_from(page_size) {
        Ok(0) => PAGE_SIZE_USUAL,
        Ok(size) => size.min(PAGE_SIZE_MAX),
        Err(_) => return Err(Violation::new("page_size", "INVALID_PAGE_SIZE", "must not be negative")),
    };
    if page_token.is_empty() {
        return Ok((filter, limit, None));
    }
    let PageToken { before } = PageToken::parse(page_token, &filter)
        .map_err(|error| Violation::new("page_token", "INVALID_PAGE_TOKEN", error))?;
    Ok((filter, limit, Some(before)))
}

fn parse_filter(text: &str) -> Result<Filter, Violation> {
    Filter::parse(text).map_err(|error| Violation::new("filter", "INVALID_FILTER", error))
}

fn parse_record_id(field: &str, text: &str) -> Result<RecordId, Violation> {
    let wrong = |_| Violation::new(field, "INVALID_RECORD_ID", "must be a decimal sequence number");
    text.parse().map(RecordId).map_err(wrong)
}

pub(crate) fn unreadable(error: ReadError) -> Status {
    match error {
        ReadError::Busy | ReadError::TooLong | ReadError::TooManyVaults => {
            status::query_limit(&error.to_string())
        }
        ReadError::Unavailable(source) => {
            tracing::error!(%source, "the audit log cannot be read");
            status::audit_unavailable()
        }
    }
}

const PAGE_SIZE_USUAL: usize = 50;
const PAGE_SIZE_MAX: usize = 1000;
const WATCH_BATCH: usize = 256;
const DETAIL_MAX: usize = 1024;
