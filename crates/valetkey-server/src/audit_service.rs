//! `AuditService`: decide and record that the log may be read, then read it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use valetkey_audit::{AuditReader, Filter, PageToken, Proof};
use valetkey_core::{Broker, Call, RecordId};
use valetkey_proto::v1::audit_service_server::AuditService;
use valetkey_proto::v1::{
    ExportAuditRecordsRequest, ExportAuditRecordsResponse, GetAuditCheckpointRequest,
    GetAuditCheckpointResponse, GetAuditProofRequest, GetAuditProofResponse, GetAuditRecordRequest,
    GetAuditRecordResponse, ListAuditRecordsRequest, ListAuditRecordsResponse, WatchAuditRecordsRequest,
    WatchAuditRecordsResponse,
};

use crate::audit_record;
use crate::convert::Violation;
use crate::export_service;
use crate::identity::call_of;
use crate::review::{Reading, Review, permit, refuse, unreadable};
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
            text => {
                let after = self.parse(&call, parse_record_id("after_record_id", text)).await?;
                self.within(&call, after).await?
            }
        };
        let reading = self.reading(call, detail, review);
        let watch = Watch { reading, filter, after, committed, stopping: self.stopping.clone() };
        Ok(Response::new(stream::try_unfold(watch, Watch::batch).flat_map(flatten).boxed()))
    }

    type ExportAuditRecordsStream = BoxStream<'static, Result<ExportAuditRecordsResponse, Status>>;

    async fn export_audit_records(
        &self,
        request: Request<ExportAuditRecordsRequest>,
    ) -> Result<Response<Self::ExportAuditRecordsStream>, Status> {
        let call = call_of(&request)?;
        let message = request.into_inner();
        let detail = export_service::describe(&message);
        let review = self.permit(&call, &detail).await?;
        let ask = self.parse(&call, export_service::parse(message)).await?;
        if let Some(after) = ask.after {
            self.within(&call, after).await?;
        }
        let reading = self.reading(call, detail, review);
        Ok(Response::new(export_service::stream(ask, reading, self.stopping.clone()).await?))
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
            Proof::Changed => Err(status::record_changed()),
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

    /// A position that somebody can have from this log: before the record of this very call. Any other is of a log
    /// that had more, and was restored from a copy since: its numbers are used again, for other records.
    async fn within(&self, call: &Call, after: RecordId) -> Result<RecordId, Status> {
        let (_, newest) = self.reader.checkpoint().await.map_err(unreadable)?;
        let description =
            format!("is beyond the log, whose newest record is {newest}: it is of another log; begin with 0");
        let wrong = || Violation::new("after_record_id", "INVALID_RECORD_ID", description);
        self.parse(call, if after < newest { Ok(after) } else { Err(wrong()) }).await
    }

    /// To go on with what was permitted.
    fn reading(&self, call: Arc<Call>, detail: String, review: Review) -> Reading {
        Reading { broker: Arc::clone(&self.broker), reader: self.reader.clone(), call, detail, review }
    }

    /// Refuses a message whose fields break their rules, and records it.
    async fn parse<T>(&self, call: &Call, parsed: Result<T, Violation>) -> Result<T, Status> {
        match parsed {
            Ok(parsed) => Ok(parsed),
            Err(violation) => Err(refuse(&self.broker, call, &[violation]).await),
        }
    }
}

/// A watch between two batches.
struct Watch {
    reading: Reading,
    filter: Filter,
    after: RecordId,
    committed: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
}

type Batch = Vec<WatchAuditRecordsResponse>;

impl Watch {
    /// The next records, as soon as there are any; `None` when the broker stops.
    async fn batch(mut self) -> Result<Option<(Batch, Self)>, Status> {
        loop {
            if *self.stopping.borrow() {
                return Ok(None);
            }
            self.committed.mark_unchanged();
            let until = self.reading.decide_again().await?;
            let (reader, scope, span) = (&self.reading.reader, self.reading.scope(), (self.after, until));
            let tail = reader.after(&self.filter, scope, span, WATCH_BATCH).await.map_err(unreadable)?;
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

pub(crate) fn parse_filter(text: &str) -> Result<Filter, Violation> {
    Filter::parse(text).map_err(|error| Violation::new("filter", "INVALID_FILTER", error))
}

pub(crate) fn parse_record_id(field: &str, text: &str) -> Result<RecordId, Violation> {
    let wrong = |_| Violation::new(field, "INVALID_RECORD_ID", "must be a decimal sequence number");
    text.parse().map(RecordId).map_err(wrong)
}

const PAGE_SIZE_USUAL: usize = 50;
const PAGE_SIZE_MAX: usize = 1000;
const WATCH_BATCH: usize = 256;
