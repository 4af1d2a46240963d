//! The questions of a reviewer about the whole log.

use valetkey_proto::v1;
use valetkey_proto::v1::get_usage_report_request::Subject;

use crate::broker::{Broker, bounded};
use crate::error::CallError;

/// What a usage report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportSubject {
    /// Everybody: the overview.
    Overview,
    /// An agent, by name.
    Agent(String),
    /// A vault, by id or name.
    Vault(String),
    /// An item, by id, by name, or as `vault/item`.
    Item(String),
    /// A tool, by name.
    Tool(String),
}

impl Broker {
    /// Reports what was used in a period, and what can be used now. An empty period is the last month.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a subject or a day that is none, [`CallError::Denied`] for those who may not read
    /// the log.
    pub async fn usage_report(
        &self,
        subject: ReportSubject,
        period: v1::ReportPeriod,
    ) -> Result<v1::GetUsageReportResponse, CallError> {
        let subject = match subject {
            ReportSubject::Overview => None,
            ReportSubject::Agent(name) => Some(Subject::Agent(name)),
            ReportSubject::Vault(name) => Some(Subject::Vault(name)),
            ReportSubject::Item(name) => Some(Subject::Item(name)),
            ReportSubject::Tool(name) => Some(Subject::Tool(name)),
        };
        let request = v1::GetUsageReportRequest { subject, period: Some(period) };
        bounded(self.reports.clone().get_usage_report(request)).await
    }

    /// Lists what was refused in a period, the most frequent first; of all agents where `agent` is empty.
    ///
    /// # Errors
    /// As [`Broker::usage_report`].
    pub async fn refusals(
        &self,
        agent: &str,
        period: v1::ReportPeriod,
    ) -> Result<v1::ListRefusalsResponse, CallError> {
        let request = v1::ListRefusalsRequest { agent: agent.to_owned(), period: Some(period) };
        bounded(self.reports.clone().list_refusals(request)).await
    }

    /// Lists the first uses that fall into a period, the newest first.
    ///
    /// # Errors
    /// As [`Broker::usage_report`].
    pub async fn first_uses(&self, period: v1::ReportPeriod) -> Result<v1::ListFirstUsesResponse, CallError> {
        bounded(self.reports.clone().list_first_uses(v1::ListFirstUsesRequest { period: Some(period) })).await
    }

    /// Lists what can be accessed and was not used for `days`, today included (0: 90, at most 365); of all agents
    /// where `agent` is empty.
    ///
    /// # Errors
    /// As [`Broker::usage_report`].
    pub async fn unused_access(
        &self,
        days: u16,
        agent: &str,
    ) -> Result<v1::ListUnusedAccessResponse, CallError> {
        let request = v1::ListUnusedAccessRequest { days: days.into(), agent: agent.to_owned() };
        bounded(self.reports.clone().list_unused_access(request)).await
    }
}
