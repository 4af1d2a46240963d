//! The calls of an agent and a tool.

use std::future::Future;
use std::time::Duration;

use tonic::{Response, Status};
use valetkey_proto::v1;
use valetkey_proto::v1::approval_service_client::ApprovalServiceClient;
use valetkey_proto::v1::audit_service_client::AuditServiceClient;
use valetkey_proto::v1::lease_service_client::LeaseServiceClient;
use valetkey_proto::v1::operator_service_client::OperatorServiceClient;
use valetkey_proto::v1::report_service_client::ReportServiceClient;
use valetkey_proto::v1::token_service_client::TokenServiceClient;

use crate::connect::{ConnectError, Identified, Link, connect};
use crate::credentials::Credentials;
use crate::error::CallError;
use crate::retries::{Attempts, Failed, Retries, ask};
use crate::secret::{Handle, SecretValue, Token};
use crate::stream::LeaseStream;

/// A connection to a broker, as one identity. Clones share the connection.
#[derive(Clone)]
pub struct Broker {
    pub(crate) leases: LeaseServiceClient<Identified>,
    pub(crate) audit: AuditServiceClient<Identified>,
    pub(crate) operator: OperatorServiceClient<Identified>,
    pub(crate) reports: ReportServiceClient<Identified>,
    pub(crate) tokens: TokenServiceClient<Identified>,
    pub(crate) approvals: ApprovalServiceClient<Identified>,
    pub(crate) retries: Retries,
    link: Link,
}

/// What an agent asks for.
#[derive(Debug, Clone)]
pub struct AcquireLease {
    /// The program that will use the secrets, and alone can redeem the handles.
    pub tool: String,
    /// 1 to 64 secret references, `op://<vault>/<item>[/<section>]/<field>`, each at most once.
    pub references: Vec<String>,
    /// The reason, for reviewers; never part of a decision.
    pub purpose: String,
    /// How long each handle shall live. Default: the broker's, 60 s.
    pub ttl: Option<Duration>,
    /// Whether some references will do where others are refused. Default: all or nothing.
    pub partial: bool,
    /// The agent's own name for its run.
    pub session: Option<String>,
    /// The host that the secrets will be sent to.
    pub destination: Option<String>,
}

/// What an agent wonders about.
#[derive(Debug, Clone)]
pub struct CheckAccess {
    /// As in [`AcquireLease`].
    pub tool: String,
    /// One secret reference.
    pub reference: String,
    /// As in [`AcquireLease`].
    pub ttl: Option<Duration>,
    /// As in [`AcquireLease`].
    pub session: Option<String>,
    /// As in [`AcquireLease`].
    pub destination: Option<String>,
}

/// What the broker would decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Whether a lease would be granted.
    pub allowed: bool,
    /// What the caller can do about a refusal; empty where policy gives no advice.
    pub advice: String,
    /// The audit record of the check.
    pub record_id: String,
    /// The longest life that policy allows, where it sets one.
    pub ttl_max: Option<Duration>,
    /// How often the handle could be redeemed; 0 for a refusal.
    pub uses: u32,
    /// Who could redeem it; unspecified for a refusal.
    pub redeemer: v1::Redeemer,
    /// Whether it would be good over mutual TLS only, and for one key.
    pub certificate_bound: bool,
    /// Whether a person would have to approve it first.
    pub approval_required: bool,
}

impl AcquireLease {
    /// Asks for `references` for `tool`, all or nothing, for the broker's usual life.
    pub fn new<R: Into<String>>(
        tool: impl Into<String>,
        references: impl IntoIterator<Item = R>,
        purpose: impl Into<String>,
    ) -> Self {
        Self {
            tool: tool.into(),
            references: references.into_iter().map(Into::into).collect(),
            purpose: purpose.into(),
            ttl: None,
            partial: false,
            session: None,
            destination: None,
        }
    }
}

impl Broker {
    /// Connects to the broker at `address`, such as `https://broker.example.com:7447`, `http://127.0.0.1:7447` or
    /// `unix:/run/valetkey/broker.sock`, with a [`Token`] or other [`Credentials`].
    ///
    /// # Errors
    /// [`ConnectError`] where the address is no place for a token, one side does not accept the other's certificate,
    /// or nobody answers there within 5 s.
    pub async fn connect(address: &str, credentials: impl Into<Credentials>) -> Result<Self, ConnectError> {
        Ok(Self::over(connect(address, credentials.into()).await?, Retries::default()))
    }

    /// The same connection, with other bounds for what an agent and a tool ask: [`lease`](Self::lease),
    /// [`redeem`](Self::redeem), [`check`](Self::check) and [`end_lease`](Self::end_lease).
    #[must_use]
    pub fn retries(self, retries: Retries) -> Self {
        Self { retries, ..self }
    }

    /// The same connection, for calls on behalf of the person whose signed token this is. The broker refuses
    /// them where it is not good.
    #[must_use]
    pub fn on_behalf_of(&self, person: Token) -> Self {
        Self::over(self.link.on_behalf_of(person), self.retries)
    }

    fn over(link: Link, retries: Retries) -> Self {
        let channel = link.identified();
        Self {
            leases: LeaseServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
            operator: OperatorServiceClient::new(channel.clone()),
            reports: ReportServiceClient::new(channel.clone()).max_decoding_message_size(REPORT_MAX),
            tokens: TokenServiceClient::new(channel.clone()),
            approvals: ApprovalServiceClient::new(channel).max_decoding_message_size(REPORT_MAX),
            retries,
            link,
        }
    }

    /// Acquires a lease, as an agent, and gives its stream: its handles come as events, all of which the caller must
    /// read. [`lease`](Self::lease) does that in the background. One attempt, of at most 60 s.
    ///
    /// # Errors
    /// [`CallError`] where the request as a whole is refused or fails.
    pub async fn acquire(&self, request: AcquireLease) -> Result<LeaseStream, CallError> {
        // The bound is ours alone: a deadline in the call would end the stream as well.
        let begun = tokio::time::timeout(ACQUIRE_MAX, self.begin(request)).await;
        begun.map_err(|_| CallError::TimedOut(ACQUIRE_MAX))?.map_err(|failed| failed.error)
    }

    pub(crate) async fn begin(&self, request: AcquireLease) -> Result<LeaseStream, Failed> {
        let AcquireLease { tool, references, purpose, ttl, partial, session, destination } = request;
        let request = v1::AcquireLeaseRequest {
            tool,
            references,
            purpose,
            ttl: ttl.map(duration),
            partial,
            session: session.unwrap_or_default(),
            destination: destination.unwrap_or_default(),
        };
        let answer = self.leases.clone().acquire_lease(request).await?;
        LeaseStream::open(answer, self.clone()).await
    }

    /// Redeems a handle, as the tool that it was issued for. Asked for again only where no use can have been spent.
    ///
    /// # Errors
    /// [`CallError::HandleNotActive`] for every handle that gives nothing, whatever the cause;
    /// [`CallError::TimedOut`] may have spent a use.
    pub async fn redeem(&self, handle: &Handle) -> Result<SecretValue, CallError> {
        self.redeem_for(handle, "").await
    }

    /// Redeems a handle and names the host that the value will be sent to.
    ///
    /// # Errors
    /// As [`Broker::redeem`].
    pub async fn redeem_for(&self, handle: &Handle, destination: &str) -> Result<SecretValue, CallError> {
        self.redeem_within(&mut Attempts::new(self.retries), handle, destination).await
    }

    pub(crate) async fn redeem_within(
        &self,
        attempts: &mut Attempts,
        handle: &Handle,
        destination: &str,
    ) -> Result<SecretValue, CallError> {
        let request = v1::RedeemHandleRequest {
            handle: handle.expose_secret().to_owned(),
            destination: destination.to_owned(),
        };
        let call = || {
            let (mut leases, request) = (self.leases.clone(), request.clone());
            async move { leases.redeem_handle(request).await }
        };
        let v1::RedeemHandleResponse { secret_value, record_id: _ } = ask(attempts, call).await?;
        Ok(SecretValue::new(secret_value))
    }

    /// Asks whether a lease would be granted, as an agent. Nothing is fetched; the question is recorded.
    ///
    /// # Errors
    /// [`CallError`] where the question cannot be answered; a refusal is an answer.
    pub async fn check(&self, request: CheckAccess) -> Result<Access, CallError> {
        let CheckAccess { tool, reference, ttl, session, destination } = request;
        let request = v1::CheckAccessRequest {
            tool,
            reference,
            ttl: ttl.map(duration),
            session: session.unwrap_or_default(),
            destination: destination.unwrap_or_default(),
        };
        let call = || {
            let (mut leases, request) = (self.leases.clone(), request.clone());
            async move { leases.check_access(request).await }
        };
        let answer = ask(&mut Attempts::new(self.retries), call).await?;
        let redeemer = answer.redeemer();
        let allowed = answer.decision() == v1::Decision::Allow;
        let v1::CheckAccessResponse {
            decision: _,
            advice,
            record_id,
            ttl_max,
            uses,
            redeemer: _,
            certificate_bound,
            approval_required,
        } = answer;
        let ttl_max = ttl_max.and_then(|life| life.try_into().ok());
        Ok(Access {
            allowed,
            advice,
            record_id,
            ttl_max,
            uses,
            redeemer,
            certificate_bound,
            approval_required,
        })
    }

    /// Ends a lease by its id: its handles are dead when this returns.
    ///
    /// # Errors
    /// [`CallError::Denied`] for a lease that does not exist or is not the caller's to end.
    pub async fn end_lease(&self, lease_id: &str) -> Result<(), CallError> {
        self.end_within(&mut Attempts::new(self.retries), lease_id).await
    }

    pub(crate) async fn end_within(&self, attempts: &mut Attempts, lease_id: &str) -> Result<(), CallError> {
        let request = v1::EndLeaseRequest { lease_id: lease_id.to_owned() };
        let call = || {
            let (mut leases, request) = (self.leases.clone(), request.clone());
            async move { leases.end_lease(request).await }
        };
        let v1::EndLeaseResponse {} = ask(attempts, call).await?;
        Ok(())
    }
}

/// Waits for an answer, but not for ever: one attempt, for whoever is no agent and no tool.
pub(crate) async fn bounded<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    let answer = tokio::time::timeout(CALL_MAX, call).await.map_err(|_| CallError::TimedOut(CALL_MAX))?;
    Ok(answer?.into_inner())
}

/// A life beyond what the wire can say is sent as the longest one, which the broker refuses.
pub(crate) fn duration(life: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(life.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(life.subsec_nanos()).unwrap_or_default(),
    }
}

/// Ten thousand rows with the longest names.
const REPORT_MAX: usize = 16 << 20;
/// Longer than the broker takes to give up on its log or source.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Opening waits for the broker's decisions, and without `partial` for all values.
const ACQUIRE_MAX: Duration = Duration::from_secs(60);
