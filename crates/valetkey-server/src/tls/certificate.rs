//! Reading certificates: the few things that the broker wants to know of one. Trust is not among them; rustls
//! verifies signatures, and only what it has verified is anybody's identity.

use std::fmt;

use data_encoding::HEXLOWER;
use valetkey_core::{KeyThumbprint, Reason, SpiffeId, Timestamp, TrustDomain, scrub};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use crate::digest::sha256;
use crate::identity::evidence::ClientCertificate;

/// What a certificate says.
#[derive(Debug, Clone)]
pub(crate) struct Outline {
    serial: String,
    thumbprint: [u8; 32],
    key: KeyThumbprint,
    /// The URIs among its names.
    uris: Vec<String>,
    /// Whether it may sign certificates: then it is an authority's, and no caller's.
    signs: bool,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Outline {
    /// Reads one.
    ///
    /// # Errors
    /// [`Reason::CertificateUntrusted`] where it is none, or its names cannot be read.
    pub(crate) fn read(der: &[u8]) -> Result<Self, Reason> {
        Self::try_read(der).map_err(|_| Reason::CertificateUntrusted)
    }

    fn try_read(der: &[u8]) -> Result<Self, x509_cert::der::Error> {
        let certificate = Certificate::from_der(der)?;
        let body = certificate.tbs_certificate();
        let names = body.get_extension::<SubjectAltName>()?.map_or_else(Vec::new, |(_, names)| names.0);
        let uris = names.into_iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
            _ => None,
        });
        let authority = body.get_extension::<BasicConstraints>()?.is_some_and(|(_, it)| it.ca);
        let usage = body.get_extension::<KeyUsage>()?;
        let signs = usage.is_some_and(|(_, usage)| usage.key_cert_sign() || usage.crl_sign());
        let moment = |time: x509_cert::time::Time| EPOCH.after(time.to_unix_duration());
        Ok(Self {
            serial: HEXLOWER.encode(body.serial_number().as_bytes()),
            thumbprint: sha256(der),
            key: KeyThumbprint(sha256(&body.subject_public_key_info().to_der()?)),
            uris: uris.collect(),
            signs: authority || signs,
            not_before: moment(body.validity().not_before),
            not_after: moment(body.validity().not_after),
        })
    }

    /// The certificate as a caller's: not an authority's, with exactly one URI, which is a SPIFFE id of our domain.
    ///
    /// # Errors
    /// The [`Reason`] for the record.
    pub(crate) fn into_client(self, domain: &TrustDomain) -> Result<ClientCertificate, Reason> {
        let Self { serial: _, thumbprint, key, uris, signs, not_before, not_after } = self;
        let [uri] = uris.as_slice() else { return Err(Reason::CertificateSpiffeId) };
        let id = SpiffeId::parse(uri).map_err(|_| Reason::CertificateSpiffeId)?;
        if signs {
            return Err(Reason::CertificateSpiffeId);
        }
        match domain.holds(&id) {
            true => Ok(ClientCertificate { id, thumbprint, key, not_before, not_after }),
            false => Err(Reason::CertificateTrustDomain),
        }
    }

    /// The one URI, if it is a SPIFFE id.
    pub(super) fn spiffe_id(&self) -> Option<SpiffeId> {
        let [uri] = self.uris.as_slice() else { return None };
        SpiffeId::parse(uri).ok()
    }

    /// When its life is over.
    pub(super) fn end(&self) -> Moment {
        Moment(self.not_after)
    }

    /// Whether it is within its life.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether less than a tenth of its life is left.
    pub(super) fn nears_its_end(&self, now: Timestamp) -> bool {
        self.not_after.since(now) < self.not_after.since(self.not_before) / LAST_PART
    }
}

/// A moment, for people.
pub(super) struct Moment(Timestamp);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_micros() / 1_000_000;
        match time::OffsetDateTime::from_unix_timestamp(seconds) {
            Ok(moment) => moment.fmt(f),
            Err(_) => seconds.fmt(f),
        }
    }
}

impl fmt::Display for Outline {
    /// For records and logs: serial, thumbprint, and the URIs as far as they go.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, thumbprint, key: _, uris, signs: _, not_before: _, not_after: _ } = self;
        write!(f, "serial {serial} sha256:{}", HEXLOWER.encode(thumbprint))?;
        match uris.as_slice() {
            [] => f.write_str(" no URI"),
            [uri] => write!(f, " {}", scrub(uri, URI_SHOWN_MAX)),
            [uri, ..] => write!(f, " {} URIs, the first {}", uris.len(), scrub(uri, URI_SHOWN_MAX)),
        }
    }
}

const EPOCH: Timestamp = Timestamp::from_micros(0);
const LAST_PART: u32 = 10;
const URI_SHOWN_MAX: usize = 256;
