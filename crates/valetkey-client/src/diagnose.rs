//! Finding out which step between a client and a broker fails.

mod advice;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::address::Address;
use crate::broker::Broker;
use crate::connect::{CONNECT_MAX, ConnectError};
use crate::credentials::{Credentials, TlsFiles};

use self::advice::{alert_advice, tls_advice, unix_advice};

/// One step on the way to a broker that knows the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was tried: `address`, `token`, `certificate`, `resolve`, `connect`, `tls`, `identity`.
    pub name: &'static str,
    /// What came of it.
    pub result: StepResult,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// It works.
    Good(String),
    /// It works, but something should be known.
    Note(String),
    /// It fails, and so does all that would come after it.
    Bad {
        /// What happens.
        what: String,
        /// What to do about it.
        advice: String,
    },
}

/// The steps so far.
struct Steps(Vec<Step>);

/// A step has failed.
struct Stop;

/// Goes step by step from an address to a call that the broker answers, and says how far it comes. The call ends a
/// lease that cannot exist; the broker records it as a message that breaks its rules.
pub async fn diagnose(address: &str, credentials: Credentials) -> Vec<Step> {
    let mut steps = Steps(Vec::new());
    // The last step says all there is to say.
    let _ = steps.walk(address, credentials).await;
    steps.0
}

impl Steps {
    async fn walk(&mut self, address: &str, credentials: Credentials) -> Result<(), Stop> {
        let parsed = match Address::parse(address) {
            Ok(parsed) => parsed,
            Err(error) => {
                return self.bad("address", error.to_string(), "set `VALETKEY_ADDRESS` to the broker's");
            }
        };
        self.good("address", address.to_owned());
        self.credentials(&parsed, &credentials)?;
        match &parsed {
            Address::Unix(path) => match UnixStream::connect(path).await {
                Ok(_) => self.good("connect", format!("the socket `{}` answers", path.display())),
                Err(error) => return self.bad("connect", error.to_string(), unix_advice(&error)),
            },
            Address::Plain(uri) => {
                let port = uri.port_u16().unwrap_or(80);
                self.connect(uri.host().unwrap_or_default(), port).await?;
            }
            Address::Tls { uri: _, host, port } => {
                let socket = self.connect(host, *port).await?;
                self.shake_hands(host, socket, &credentials.files).await?;
            }
        }
        self.identity(address, &parsed, credentials).await
    }

    /// What we would show, and whether it can be any good.
    fn credentials(&mut self, address: &Address, credentials: &Credentials) -> Result<(), Stop> {
        let Credentials { token, files } = credentials;
        match token {
            Some(_) => self.good("token", "one is sent".to_owned()),
            None => self.note("token", "none is sent".to_owned()),
        }
        if !matches!(address, Address::Tls { .. }) {
            return match files.certificate {
                Some(_) => self.bad(
                    "certificate",
                    "one is set, but this address is reached without TLS".to_owned(),
                    "use the broker's `https` address, or unset `VALETKEY_CERT` and `VALETKEY_KEY`",
                ),
                None => Ok(()),
            };
        }
        match files.own() {
            Ok(None) => self.note("certificate", "none would be shown".to_owned()),
            Ok(Some(own)) => self.own_certificate(&own)?,
            Err(error) => {
                return self.bad(
                    "certificate",
                    error.to_string(),
                    "check `VALETKEY_CERT` and `VALETKEY_KEY`",
                );
            }
        }
        Ok(())
    }

    fn own_certificate(&mut self, own: &CertifiedKey) -> Result<(), Stop> {
        let Some((uris, begins, ends)) = own.cert.first().and_then(|der| outline(der)) else {
            return self.bad("certificate", "it cannot be read".to_owned(), "have a new one issued");
        };
        let shown = format!("{}, {} to {}", uris.join(" and "), moment(begins), moment(ends));
        let now = now();
        if now > ends || now < begins {
            let what = format!("{shown}: not valid now");
            return self.bad("certificate", what, "renew it, and check this machine's clock");
        }
        match uris.as_slice() {
            [uri] if uri.starts_with("spiffe://") => self.good("certificate", shown),
            _ => {
                let what = format!("{shown}: a client certificate has exactly one URI, its SPIFFE id");
                return self.bad("certificate", what, "have one issued with a SPIFFE id");
            }
        }
        Ok(())
    }

    /// A name to addresses, and one of those to a connection.
    async fn connect(&mut self, host: &str, port: u16) -> Result<TcpStream, Stop> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<_> = match lookup_host((host, port)).await {
            Ok(found) => found.collect(),
            Err(error) => {
                return self.bad("resolve", format!("`{host}`: {error}"), "check the name and the resolver");
            }
        };
        let shown: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
        self.good("resolve", shown.join(", "));
        match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(found.as_slice())).await {
            Ok(Ok(socket)) => {
                let to = socket.peer_addr().map(|address| address.to_string()).unwrap_or_default();
                self.good("connect", to);
                Ok(socket)
            }
            Ok(Err(error)) => self.bad(
                "connect",
                error.to_string(),
                "is the broker running there, on that port, and let through?",
            ),
            Err(_) => {
                self.bad("connect", "no answer".to_owned(), "is something in between that drops packets?")
            }
        }
    }

    async fn shake_hands(&mut self, host: &str, socket: TcpStream, files: &TlsFiles) -> Result<(), Stop> {
        let own = files.own().ok().flatten().map(Arc::new);
        let demand = Arc::new(Demand { own: own.clone(), asked: AtomicBool::new(false) });
        let config = match files.load_with(Some(Arc::clone(&demand) as _)) {
            Ok(config) => config,
            Err(error) => {
                return self.bad("tls", error.to_string(), "name a file with the broker's authority");
            }
        };
        let Ok(name) = ServerName::try_from(host.to_owned()) else {
            return self.bad(
                "tls",
                format!("`{host}` is no name that a certificate can have"),
                "use another",
            );
        };
        let connected = TlsConnector::from(Arc::new(config)).connect(name, socket);
        let mut stream = match tokio::time::timeout(CONNECT_MAX, connected).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.bad("tls", error.to_string(), tls_advice(&error)),
            Err(_) => return self.bad("tls", "no answer".to_owned(), "does something else listen there?"),
        };
        // In TLS 1.3 we are done before the broker has judged our certificate. A broker that takes it says nothing.
        let judged = tokio::time::timeout(JUDGE_MAX, stream.read_u8()).await;
        if let Ok(Err(error)) = judged {
            return self.bad("tls", error.to_string(), tls_advice(&error));
        }
        let (_, session) = stream.get_ref();
        let version = session.protocol_version().and_then(|it| it.as_str()).unwrap_or("TLS");
        if session.alpn_protocol() != Some(b"h2") {
            let what = format!("{version}, but no HTTP/2 (ALPN)");
            return self.bad(
                "tls",
                what,
                "something else than a broker answers; a proxy must pass HTTP/2 through",
            );
        }
        let asked = match (demand.asked.load(Ordering::Relaxed), own.is_some()) {
            (false, _) => "it asks for no client certificate",
            (true, true) => "it asks for a client certificate, and gets ours",
            (true, false) => "it asks for a client certificate, and we have none",
        };
        self.good("tls", format!("{version}, HTTP/2; we trust the broker; {asked}"));
        Ok(())
    }

    /// A call that changes nothing: whoever is told that its lease id is none has an identity.
    async fn identity(
        &mut self,
        address: &str,
        kind: &Address,
        credentials: Credentials,
    ) -> Result<(), Stop> {
        let (token, certificate) = (credentials.token.is_some(), credentials.files.certificate.is_some());
        let broker = match Broker::connect(address, credentials).await {
            Ok(broker) => broker,
            Err(ConnectError::Tls { address: _, source }) => {
                return self.bad("identity", source.to_string(), alert_advice(&source));
            }
            Err(error) if matches!(kind, Address::Plain(_)) => {
                return self.bad("identity", error.to_string(), advice::CLEAR_TEXT);
            }
            Err(error) => return self.bad("identity", error.to_string(), "see the step before"),
        };
        let answer = broker.end_lease("doctor").await;
        match advice::judge(&answer, kind, token, certificate) {
            Ok(what) => {
                self.good("identity", what);
                Ok(())
            }
            Err((what, advice)) => self.bad("identity", what, advice),
        }
    }

    fn good(&mut self, name: &'static str, what: String) {
        self.0.push(Step { name, result: StepResult::Good(what) });
    }

    fn note(&mut self, name: &'static str, what: String) {
        self.0.push(Step { name, result: StepResult::Note(what) });
    }

    fn bad<T>(&mut self, name: &'static str, what: String, advice: &str) -> Result<T, Stop> {
        self.0.push(Step { name, result: StepResult::Bad { what, advice: advice.to_owned() } });
        Err(Stop)
    }
}

/// Answers the broker's demand for a certificate, and remembers that there was one.
#[derive(Debug)]
struct Demand {
    own: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Demand {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.own.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The URIs of a certificate, and the seconds since 1970 between which it is valid.
fn outline(der: &[u8]) -> Option<(Vec<String>, u64, u64)> {
    let certificate = Certificate::from_der(der).ok()?;
    let body = certificate.tbs_certificate();
    let names = body.get_extension::<SubjectAltName>().ok()?.map_or_else(Vec::new, |(_, names)| names.0);
    let uris = names.into_iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
        _ => None,
    });
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    let validity = body.validity();
    Some((uris.collect(), seconds(validity.not_before), seconds(validity.not_after)))
}

fn moment(seconds: u64) -> String {
    let moment =
        i64::try_from(seconds).ok().and_then(|it| time::OffsetDateTime::from_unix_timestamp(it).ok());
    moment.map_or_else(|| seconds.to_string(), |moment| moment.to_string())
}

fn now() -> u64 {
    u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default()
}

/// How long a broker may take to refuse a certificate.
const JUDGE_MAX: Duration = Duration::from_millis(500);
