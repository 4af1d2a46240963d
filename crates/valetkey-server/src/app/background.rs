//! What goes on beside the calls.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use valetkey_audit::{AuditReader, AuditStore, ReadError};
use valetkey_core::Broker;
use valetkey_proto::v1::approval_service_server::SERVICE_NAME as APPROVAL_SERVICE;
use valetkey_proto::v1::audit_service_server::SERVICE_NAME as AUDIT_SERVICE;
use valetkey_proto::v1::lease_service_server::SERVICE_NAME as LEASE_SERVICE;
use valetkey_proto::v1::operator_service_server::SERVICE_NAME as OPERATOR_SERVICE;
use valetkey_proto::v1::report_service_server::SERVICE_NAME as REPORT_SERVICE;
use valetkey_proto::v1::token_service_server::SERVICE_NAME as TOKEN_SERVICE;

use crate::identity::bearers::Bearers;
use crate::reload::Reloader;
use crate::token_service;

/// What goes on beside the calls, for as long as the broker serves.
pub(super) fn background(
    broker: &Arc<Broker>,
    store: &Arc<AuditStore>,
    bearers: &Bearers,
    reloader: Reloader,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (keeper, renewer) = (Arc::clone(broker), Arc::clone(broker));
    tasks.spawn(async move { keeper.keep_leases().await });
    tasks.spawn(async move { renewer.renew_leases().await });
    tasks.spawn(async move { reloader.follow_files().await });
    tasks.spawn(learn_vaults(store.reader().clone()));
    bearers.issuers.keep(&mut tasks);
    tasks.spawn(token_service::keep_uses(Arc::clone(&bearers.tokens), Arc::clone(store.tokens())));
    tasks
}

/// Keeps the health service true: a broker that cannot write its log does not serve.
pub(super) async fn report_health(health: HealthReporter, mut available: watch::Receiver<bool>) {
    loop {
        let status = match *available.borrow_and_update() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for service in [
            "",
            LEASE_SERVICE,
            AUDIT_SERVICE,
            OPERATOR_SERVICE,
            REPORT_SERVICE,
            TOKEN_SERVICE,
            APPROVAL_SERVICE,
        ] {
            health.set_service_status(service, status).await;
        }
        if available.changed().await.is_err() {
            return;
        }
    }
}

/// Looks through the log for its vaults, before a reviewer who is limited to some has to wait for it.
async fn learn_vaults(reader: AuditReader) {
    // Each try takes its time and goes on where the last one stopped.
    while let Err(ReadError::Busy | ReadError::TooLong) = reader.vaults().await {}
}
