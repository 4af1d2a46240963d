//! The SPIFFE Workload API: certificates from an agent on this machine, pushed as they are renewed.
//!
//! Only X.509 identities are asked for, and of those the first, which the specification calls the default one.
//! A stream that breaks is opened again, ever more slowly; what is in force stays in force meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};
use valetkey_proto::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use valetkey_proto::spiffe::{X509svid, X509svidRequest, X509svidResponse};
use x509_cert::der::{Reader, SliceReader};
use zeroize::Zeroizing;

use super::material::{Material, TlsError};

/// The latest that the Workload API said, kept up by a task that ends with this.
pub(super) struct Updates {
    socket: PathBuf,
    latest: watch::Receiver<Option<Said>>,
    task: JoinHandle<()>,
}

/// What it said, or why it said nothing.
type Said = Result<Svid, String>;

/// One X.509 identity, as it came: concatenated DER.
#[derive(Clone)]
pub(super) struct Svid {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    bundle: Vec<u8>,
}

/// Updates from here on.
pub(super) struct Subscription {
    socket: PathBuf,
    latest: watch::Receiver<Option<Said>>,
}

impl Updates {
    pub(super) fn new(socket: &Path) -> Self {
        let (sender, latest) = watch::channel(None);
        let task = tokio::spawn(keep_asking(socket.to_owned(), sender));
        Self { socket: socket.to_owned(), latest, task }
    }

    /// The first certificates, waited for within [`FIRST_MAX`]. An agent that refuses may just not know us yet.
    pub(super) async fn first(&mut self) -> Result<Material, TlsError> {
        let good = self.latest.wait_for(|said| matches!(said, Some(Ok(_))));
        let found = match tokio::time::timeout(FIRST_MAX, good).await {
            Ok(Ok(said)) => said.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let said = found.or_else(|| self.latest.borrow().clone());
        material(&self.socket, said.unwrap_or_else(|| Err("it does not answer".to_owned())))
    }

    /// What comes after what was seen.
    pub(super) fn subscribe(&self) -> Subscription {
        Subscription { socket: self.socket.clone(), latest: self.latest.clone() }
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscription {
    /// The next certificates, or why there are none; `None` when there will be no more.
    pub(super) async fn next(&mut self) -> Option<Result<Material, TlsError>> {
        self.latest.changed().await.ok()?;
        let said = self.latest.borrow_and_update().clone()?;
        Some(material(&self.socket, said))
    }
}

/// Asks for the stream again whenever it ends.
async fn keep_asking(socket: PathBuf, latest: watch::Sender<Option<Said>>) {
    let mut wait = RETRY_INITIAL;
    loop {
        let why = match ask(&socket).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(response)) => {
                        wait = RETRY_INITIAL;
                        latest.send_replace(Some(default_of(response)));
                    }
                    Ok(None) => break "the stream ended".to_owned(),
                    Err(status) => break status.message().to_owned(),
                }
            },
            Err(why) => why,
        };
        tracing::warn!(why, socket = %socket.display(), "the Workload API is away; asking again");
        // Once is enough in the audit log; certificates that are in force are good until they expire.
        if latest.borrow().is_none() {
            latest.send_replace(Some(Err(why)));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn ask(socket: &Path) -> Result<Streaming<X509svidResponse>, String> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
        .map_err(|error| format!("its path is none: {error}"))?
        .connect_timeout(CONNECT_MAX);
    let channel = endpoint.connect().await.map_err(|error| chain(&error))?;
    let mut client = SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
    let mut request = Request::new(X509svidRequest {});
    // The specification wants it, so that nobody can be talked into asking by a web page.
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let stream = client.fetch_x509svid(request).await.map_err(|status| status.message().to_owned())?;
    Ok(stream.into_inner())
}

/// The first identity of an answer.
fn default_of(response: X509svidResponse) -> Said {
    let X509svidResponse { svids, crl: _, federated_bundles: _ } = response;
    let svid = svids.into_iter().next().ok_or("the answer has no identity")?;
    let X509svid { spiffe_id: _, x509_svid, x509_svid_key, bundle, hint: _ } = svid;
    Ok(Svid { chain: x509_svid, key: Zeroizing::new(x509_svid_key), bundle })
}

fn material(socket: &Path, said: Said) -> Result<Material, TlsError> {
    let fault = |detail: String| TlsError::Workload { socket: socket.into(), detail };
    let Svid { chain, key, bundle } = said.map_err(fault)?;
    let split = |what: &str, der: &[u8]| {
        certificates(der).ok_or_else(|| fault(format!("its {what} is no sequence of certificates")))
    };
    Ok(Material {
        chain: split("chain", &chain)?,
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec())),
        roots: split("bundle", &bundle)?,
    })
}

/// The certificates that stand one after the other.
fn certificates(der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut reader = SliceReader::new(der).ok()?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(CertificateDer::from(reader.tlv_bytes().ok()?.to_vec()));
    }
    Some(found)
}

/// An error and its causes: the transport's own text says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a start waits for the first certificates.
const FIRST_MAX: Duration = Duration::from_secs(10);
const RETRY_INITIAL: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
const MESSAGE_MAX: usize = 1024 * 1024;
