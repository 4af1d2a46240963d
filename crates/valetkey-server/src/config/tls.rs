//! `[tls]` and `[unix]`: what a broker listens with.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use valetkey_core::TrustDomain;

use crate::listen::UnixSettings;
use crate::tls::{CertificateSource, ClientCertificates, TlsSettings};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsSection {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    workload_api: Option<String>,
    client_certificates: Option<Asked>,
    trust_domain: Option<String>,
    versions: Option<Vec<Version>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Asked {
    Required,
    Optional,
    None,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
enum Version {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnixSection {
    path: PathBuf,
    mode: Option<String>,
}

impl TlsSection {
    pub(super) fn check(self, folder: &Path, faults: &mut Vec<String>) -> Option<TlsSettings> {
        let Self { certificate, key, client_ca, workload_api, client_certificates, trust_domain, versions } =
            self;
        let before = faults.len();
        let mut fault = |text: &str| faults.push(format!("`tls` {text}"));
        let offers_clients = client_ca.is_some() || workload_api.is_some();
        let source = match (certificate, key, workload_api) {
            (Some(certificate), Some(key), None) => Some(CertificateSource::Files {
                certificate: folder.join(certificate),
                key: folder.join(key),
                client_ca: client_ca.map(|it| folder.join(it)),
            }),
            (None, None, Some(api)) if client_ca.is_none() => match socket(&api) {
                Some(path) => Some(CertificateSource::Workload(path)),
                None => {
                    fault("`workload_api` must be a socket, such as `unix:/run/spire/agent.sock`");
                    None
                }
            },
            _ => {
                fault("must have either `certificate` and `key`, or `workload_api` alone");
                None
            }
        };
        let asked = client_certificates.unwrap_or(if offers_clients { Asked::Required } else { Asked::None });
        let domain = trust_domain.as_deref().map(TrustDomain::parse).transpose();
        let domain = domain.map_err(|error| fault(&format!("`trust_domain` {error}"))).unwrap_or_default();
        let clients = match (asked, domain) {
            (Asked::None, _) if trust_domain.is_none() => None,
            (Asked::None, _) => {
                fault("`trust_domain` has no effect where callers are asked for no certificate");
                None
            }
            (Asked::Required | Asked::Optional, _) if !offers_clients => {
                fault("`client_certificates` needs `client_ca`: who signs them?");
                None
            }
            (Asked::Required | Asked::Optional, Some(trust_domain)) => {
                Some(ClientCertificates { trust_domain, required: asked == Asked::Required })
            }
            (Asked::Required | Asked::Optional, None) => {
                fault("must have a `trust_domain`, that of callers' SPIFFE ids");
                None
            }
        };
        let versions = versions.unwrap_or_else(|| vec![Version::Tls13]);
        if !versions.contains(&Version::Tls13) {
            fault("`versions` must be [\"1.3\"], or [\"1.2\", \"1.3\"]");
        }
        let settings = TlsSettings { source: source?, clients, tls12: versions.contains(&Version::Tls12) };
        (faults.len() == before).then_some(settings)
    }
}

impl UnixSection {
    pub(super) fn check(self, folder: &Path, faults: &mut Vec<String>) -> Option<UnixSettings> {
        let Self { path, mode } = self;
        let parse = |mode: &str| u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
        let mode = mode.as_deref().map_or(Some(MODE_USUAL), parse);
        if mode.is_none() {
            faults.push("`unix.mode` must be that of a file, such as \"0660\"".to_owned());
        }
        Some(UnixSettings { path: folder.join(path), mode: mode? })
    }
}

/// `unix:/path` and `unix:///path`, which is what a Workload API's environment says.
fn socket(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("unix:")?;
    let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
    path.starts_with('/').then(|| path.into())
}

/// The broker's user and group.
const MODE_USUAL: u32 = 0o660;
