//! Judging a client's certificate in the handshake.
//!
//! rustls verifies the chain; on top of that a certificate must be a SPIFFE one of our domain. To the client every
//! refusal of a certificate is the same alert: why it was refused is for the record.

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use valetkey_core::Reason;

use super::certificate::Outline;
use super::{ClientCertificates, HandshakeRefused};

/// A chain that rustls verifies, to a certificate that is a caller's.
#[derive(Debug)]
pub(super) struct SpiffeVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    clients: ClientCertificates,
}

/// A certificate that is refused, on its way through rustls to the record.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is refused")]
struct Refused {
    reason: Reason,
    detail: String,
}

impl SpiffeVerifier {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, clients: ClientCertificates) -> Self {
        Self { inner, clients }
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Refused> {
        let outline = Outline::read(end_entity);
        let about = outline.as_ref().map(ToString::to_string).unwrap_or_default();
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|error| Refused { reason: reason(&error), detail: format!("{about}: {error}") })?;
        match outline.and_then(|outline| outline.into_client(&self.clients.trust_domain)) {
            Ok(_) => Ok(verified),
            Err(reason) => Err(Refused { reason, detail: about }),
        }
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.clients.required
    }

    /// Nobody is told whom we trust; a client has one certificate for us, or none.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now)
            .map_err(|refused| CertificateError::Other(OtherError(Arc::new(refused))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What went wrong in a handshake; `None` for a peer that just went away, which tried nothing.
pub(super) fn refusal(error: &io::Error) -> Option<HandshakeRefused> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    if let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) = inner
        && let Some(Refused { reason, detail }) = other.downcast_ref()
    {
        return Some(HandshakeRefused { reason: *reason, detail: detail.clone() });
    }
    let reason = match inner {
        Some(Error::NoCertificatesPresented) => Reason::CertificateMissing,
        Some(_) => Reason::TlsHandshake,
        None => return None,
    };
    Some(HandshakeRefused { reason, detail: error.to_string() })
}

fn reason(error: &Error) -> Reason {
    match error {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Reason::CertificateExpired
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => Reason::CertificateNotYetValid,
        _ => Reason::CertificateUntrusted,
    }
}
