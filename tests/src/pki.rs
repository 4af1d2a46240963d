//! Certificates of every kind, the bad ones included, made while the test runs.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use valetkey_client::Credentials;

/// Somebody who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: Vec<u8>,
}

/// What is to be signed.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The URIs among its names.
    pub uris: Vec<String>,
    /// DNS names and addresses.
    pub hosts: Vec<String>,
    /// Seconds since 1970 at which its life begins and ends.
    pub life: (i64, i64),
    /// Whether it may sign others.
    pub signs: bool,
    /// Whether it says that it is a server's, rather than a client's.
    pub server: bool,
}

/// A certificate and its key, in files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key; closed to others.
    pub key: PathBuf,
}

/// A certificate and its key.
pub struct Signed {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// DER.
    pub certificate_der: Vec<u8>,
    /// PKCS#8, DER.
    pub key_der: Vec<u8>,
}

impl Authority {
    /// A fresh one.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let own = params.self_signed(&key)?;
        Ok(Self { pem: own.pem(), der: own.der().to_vec(), issuer: Issuer::new(params, key) })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Signs.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn sign(&self, leaf: &Leaf) -> Result<Signed> {
        let Leaf { uris, hosts, life, signs, server } = leaf;
        let mut params = CertificateParams::new(hosts.clone())?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        params.not_before = OffsetDateTime::from_unix_timestamp(life.0)?;
        params.not_after = OffsetDateTime::from_unix_timestamp(life.1)?;
        params.key_usages = match signs {
            true => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
            false => vec![KeyUsagePurpose::DigitalSignature],
        };
        params.extended_key_usages = vec![match server {
            true => ExtendedKeyUsagePurpose::ServerAuth,
            false => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        Ok(Signed {
            certificate: signed.pem(),
            key: key.serialize_pem(),
            certificate_der: signed.der().to_vec(),
            key_der: key.serialize_der(),
        })
    }

    /// Signs into files of that name, replacing those before them by renames.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn sign_into(&self, folder: &Path, name: &str, leaf: &Leaf) -> Result<Files> {
        let Signed { certificate, key, .. } = self.sign(leaf)?;
        let files = Files {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        replace(&files.certificate, &certificate)?;
        replace(&files.key, &key)?;
        Ok(files)
    }
}

impl Leaf {
    /// A client's, good for this year and the next ones.
    #[must_use]
    pub fn client(uri: &str) -> Self {
        Self { uris: vec![uri.to_owned()], hosts: Vec::new(), life: LONG, signs: false, server: false }
    }

    /// A broker's on this machine.
    #[must_use]
    pub fn broker() -> Self {
        let hosts = ["localhost", "127.0.0.1"].map(ToOwned::to_owned).to_vec();
        Self { uris: Vec::new(), hosts, life: LONG, signs: false, server: true }
    }
}

impl Files {
    /// Shows them, and trusts the authority in `ca`.
    #[must_use]
    pub fn credentials(&self, ca: &Path) -> Credentials {
        Credentials::default().ca(ca).certificate(&self.certificate, &self.key)
    }
}

/// Puts a file in place by a rename, closed to others.
///
/// # Errors
/// Where it cannot be written.
pub fn replace(path: &Path, content: &str) -> Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content.as_bytes())?;
    Ok(std::fs::rename(&beside, path)?)
}

/// From 2026 to 2046: good by the machine's clock and by a test's.
const LONG: (i64, i64) = (1_767_225_600, 2_398_377_600);
