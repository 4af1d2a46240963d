//! The broker's own certificates from a SPIFFE Workload API: a stand-in on a socket, which renews them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use valetkey_client::{Broker, CheckAccess};
use valetkey_core::{Reason, RecordKind, SpiffePattern, TrustDomain};
use valetkey_proto::spiffe::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use valetkey_proto::spiffe::{X509svid, X509svidRequest, X509svidResponse};
use valetkey_server::{CertificateSource, ClientCertificates, IdentityKind, SpiffeRule, TlsSettings};
use valetkey_tests::Setup;
use valetkey_tests::pki::{Authority, Leaf, Signed, replace};

/// Says what the test tells it to, to whoever sends the header that the specification wants.
struct StandIn(watch::Receiver<X509svidResponse>);

#[tonic::async_trait]
impl SpiffeWorkloadApi for StandIn {
    type FetchX509SVIDStream = Pin<Box<dyn Stream<Item = Result<X509svidResponse, Status>> + Send>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("no security header"));
        }
        Ok(Response::new(Box::pin(WatchStream::new(self.0.clone()).map(Ok))))
    }
}

fn svid(authority: &Authority) -> Result<X509svidResponse> {
    let id = "spiffe://example.org/valetkey";
    let leaf = Leaf { uris: vec![id.to_owned()], ..Leaf::broker() };
    let Signed { certificate_der, key_der, .. } = authority.sign(&leaf)?;
    let svid = X509svid {
        spiffe_id: id.to_owned(),
        x509_svid: certificate_der,
        x509_svid_key: key_der,
        bundle: authority.der().to_vec(),
        hint: String::new(),
    };
    Ok(X509svidResponse { svids: vec![svid], crl: Vec::new(), federated_bundles: [].into() })
}

fn check() -> CheckAccess {
    let (tool, reference) = ("navan.book_flight".into(), "op://Tutorial/Navan/username".into());
    CheckAccess { tool, reference, ttl: None, session: None, destination: None }
}

#[tokio::test]
async fn certificates_come_from_a_workload_api_and_are_renewed() -> Result<()> {
    let setup = Setup::new()?;
    let folder = setup.dir().to_owned();
    let (one, two) = (Authority::new("one")?, Authority::new("two")?);
    let (say, said) = watch::channel(svid(&one)?);
    let socket = folder.join("agent.sock");
    let api = Server::builder()
        .add_service(SpiffeWorkloadApiServer::new(StandIn(said)))
        .serve_with_incoming(UnixListenerStream::new(UnixListener::bind(&socket)?));
    let api = tokio::spawn(api);

    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let broker = setup
        .configure(move |config| {
            config.tls = Some(TlsSettings {
                source: CertificateSource::Workload(socket),
                clients: Some(ClientCertificates { trust_domain, required: true }),
                tls12: false,
            });
            let pattern = SpiffePattern::parse("spiffe://example.org/agent/{name}").unwrap();
            let (kind, prefix, suffix) = (IdentityKind::Agent, String::new(), String::new());
            config.spiffe_rules = vec![SpiffeRule { pattern, kind, prefix, suffix }];
        })
        .start()
        .await?;
    let (address, folder) = (format!("https://127.0.0.1:{}", broker.address.port()), Arc::new(folder));
    let call = async |authority: &Authority| {
        let files =
            authority.sign_into(&folder, "bot", &Leaf::client("spiffe://example.org/agent/travel-bot"))?;
        let trust = folder.join("trust.pem");
        replace(&trust, authority.pem())?;
        Ok::<_, anyhow::Error>(
            Broker::connect(&address, files.credentials(&trust)).await?.check(check()).await?,
        )
    };
    ensure!(call(&one).await?.allowed);
    ensure!(call(&two).await.is_err(), "somebody else's authority");

    let mark = broker.mark();
    say.send(svid(&two)?)?;
    let replaced =
        |log: &[valetkey_audit::StoredRecord]| log.iter().find(|it| it.kind == RecordKind::TlsLoad).cloned();
    let record = broker.await_records(mark, replaced).await?;
    assert_eq!(record.reason, Reason::Done);
    ensure!(record.detail.context("no detail")?.contains("spiffe://example.org/valetkey"), "whose?");
    ensure!(call(&two).await?.allowed);

    // Without its agent the broker goes on with what it has.
    let mark = broker.mark();
    say.send(X509svidResponse { svids: Vec::new(), crl: Vec::new(), federated_bundles: [].into() })?;
    assert_eq!(broker.await_records(mark, replaced).await?.reason, Reason::Failed);
    api.abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    ensure!(call(&two).await?.allowed);
    Ok(())
}
