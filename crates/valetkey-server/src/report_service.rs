//! `ReportService`: decide and record that the log may be read, then answer what reviewers ask of the whole of it.
//!
//! `ask.rs` parses, `count.rs` sums up what the log counts, `reach.rs` says what could be used, `answer.rs` prints.
//! Nothing here asks a source: what can be accessed is worked out from what is known of it already.

mod answer;
mod ask;
mod count;
mod reach;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use valetkey_audit::{AuditReader, Counted};
use valetkey_core::{AuditScope, Broker, Call, PolicyId};
use valetkey_proto::v1::report_service_server::ReportService;
use valetkey_proto::v1::{
    FindValueRequest, FindValueResponse, GetUsageReportRequest, GetUsageReportResponse, ListFirstUsesRequest,
    ListFirstUsesResponse, ListRefusalsRequest, ListRefusalsResponse, ListUnusedAccessRequest,
    ListUnusedAccessResponse,
};

use crate::convert::Violation;
use crate::find_value::Finder;
use crate::identity::call_of;
use crate::review::{Review, permit, refuse, unreadable};
use ask::{Period, today};
use count::{Tally, refusals};
pub(crate) use reach::Reach;

/// The service.
pub(crate) struct Reports {
    pub(crate) broker: Arc<Broker>,
    pub(crate) reader: AuditReader,
    pub(crate) reach: Reach,
    pub(crate) finder: Finder,
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn get_usage_report(
        &self,
        request: Request<GetUsageReportRequest>,
    ) -> Result<Response<GetUsageReportResponse>, Status> {
        let call = call_of(&request)?;
        let request = request.into_inner();
        let scope = self.permit(&call, &ask::story_of_usage(&request)).await?;
        let (about, period) = self.parse(&call, ask::usage(request, today(&self.broker))).await?;
        let counted = self.reader.usage(&about.subject(), &scope, period.days()).await;
        let Counted { rows, seen } = counted.map_err(unreadable)?;
        let mut tally = Tally::of(rows, |usage| about.has(usage));
        let truncated = tally.cut(USAGES_MAX);
        let totals = tally.totals;
        let (access, usages) = self.reach.of_usage(about, scope, tally.rows).await?;
        Ok(Response::new(GetUsageReportResponse {
            period: Some(period.print()),
            seen_record_id: seen.to_string(),
            access: Some(access),
            usages: usages.into_iter().map(answer::usage).collect(),
            totals: Some(totals),
            truncated,
        }))
    }

    async fn list_refusals(
        &self,
        request: Request<ListRefusalsRequest>,
    ) -> Result<Response<ListRefusalsResponse>, Status> {
        let call = call_of(&request)?;
        let ListRefusalsRequest { agent, period } = request.into_inner();
        let detail = format!("refusals {agent} {}", ask::story_of_period(period.as_ref()));
        let scope = self.permit(&call, &detail).await?;
        let asked = ask::agent_and_period(&agent, period, today(&self.broker));
        let (agent, period) = self.parse(&call, asked).await?;
        let agent = agent.as_ref().map(|agent| agent.0.as_str());
        let counted = self.reader.refusals(agent, &scope, period.days()).await;
        let Counted { rows, seen } = counted.map_err(unreadable)?;
        let mut rows = refusals(rows);
        let truncated = cut(&mut rows, LISTED_MAX);
        Ok(Response::new(ListRefusalsResponse {
            refusals: rows.into_iter().map(answer::refusals).collect(),
            period: Some(period.print()),
            seen_record_id: seen.to_string(),
            truncated,
        }))
    }

    async fn list_first_uses(
        &self,
        request: Request<ListFirstUsesRequest>,
    ) -> Result<Response<ListFirstUsesResponse>, Status> {
        let call = call_of(&request)?;
        let ListFirstUsesRequest { period } = request.into_inner();
        let detail = format!("first uses {}", ask::story_of_period(period.as_ref()));
        let scope = self.permit(&call, &detail).await?;
        let period = self.parse(&call, Period::parse(period, today(&self.broker))).await?;
        let counted = self.reader.first_uses(&scope, period.days()).await;
        let Counted { mut rows, seen } = counted.map_err(unreadable)?;
        rows.sort_by_key(|first| std::cmp::Reverse(first.record));
        let truncated = cut(&mut rows, LISTED_MAX);
        Ok(Response::new(ListFirstUsesResponse {
            uses: rows.into_iter().map(answer::first_use).collect(),
            period: Some(period.print()),
            seen_record_id: seen.to_string(),
            truncated,
        }))
    }

    async fn list_unused_access(
        &self,
        request: Request<ListUnusedAccessRequest>,
    ) -> Result<Response<ListUnusedAccessResponse>, Status> {
        let call = call_of(&request)?;
        let ListUnusedAccessRequest { days, agent } = request.into_inner();
        let scope = self.permit(&call, &format!("unused access {agent} {days} days")).await?;
        let asked = ask::unused(days, &agent, today(&self.broker));
        let (agent, period) = self.parse(&call, asked).await?;
        let Counted { rows, seen } = self.reader.last_uses(&scope).await.map_err(unreadable)?;
        let policies = match (&agent, &scope) {
            (None, AuditScope::Whole) => self.unused_policies(&period).await?,
            (Some(_), _) | (None, AuditScope::Vaults(_)) => Vec::new(),
        };
        let (access, mut accesses) = self.reach.unused(agent, scope, rows, period.clone()).await?;
        let truncated = cut(&mut accesses, USAGES_MAX);
        Ok(Response::new(ListUnusedAccessResponse {
            accesses: accesses.into_iter().map(answer::unused).collect(),
            policy_ids: policies.into_iter().map(|policy| policy.to_string()).collect(),
            period: Some(period.print()),
            seen_record_id: seen.to_string(),
            truncated,
            access: Some(access),
        }))
    }

    async fn find_value(&self, it: Request<FindValueRequest>) -> Result<Response<FindValueResponse>, Status> {
        self.finder.find(it).await
    }
}

impl Reports {
    /// Decides how much of the log the answer may be made of, and records the question.
    async fn permit(&self, call: &Call, detail: &str) -> Result<AuditScope, Status> {
        let review = permit(&self.broker, &self.reader, call, detail).await;
        review.map(|Review { scope, .. }| scope)
    }

    async fn parse<T>(&self, call: &Call, parsed: Result<T, Vec<Violation>>) -> Result<T, Status> {
        match parsed {
            Ok(parsed) => Ok(parsed),
            Err(violations) => Err(refuse(&self.broker, call, &violations).await),
        }
    }

    /// The policies in force that determined nothing.
    async fn unused_policies(&self, period: &Period) -> Result<Vec<PolicyId>, Status> {
        let used = self.reader.policy_uses(&AuditScope::Whole, period.days()).await.map_err(unreadable)?;
        let used: std::collections::HashSet<_> = used.rows.into_iter().map(|row| row.policy).collect();
        let mut policies = self.reach.policies();
        policies.retain(|policy| !used.contains(&*policy.0));
        Ok(policies)
    }
}

/// Keeps the first; whether there were more.
fn cut<T>(rows: &mut Vec<T>, max: usize) -> bool {
    let truncated = rows.len() > max;
    rows.truncate(max);
    truncated
}

const USAGES_MAX: usize = 10_000;
const LISTED_MAX: usize = 1_000;
