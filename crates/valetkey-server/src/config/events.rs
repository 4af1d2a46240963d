//! `[events]`: the Events API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::events::{EventsRate, EventsSettings};
use crate::tls::{CertificateSource, TlsSettings};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsSection {
    listen: SocketAddr,
    host: String,
    signing_key: PathBuf,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    requests_per_minute: Option<u32>,
    requests_per_hour: Option<u32>,
}

impl EventsSection {
    /// With the certificate of `[tls]`, where it has none of its own.
    pub(super) fn check(
        self,
        folder: &Path,
        tls: Option<&TlsSettings>,
        faults: &mut Vec<String>,
    ) -> Option<EventsSettings> {
        let Self { listen, host, signing_key, certificate, key, requests_per_minute, requests_per_hour } =
            self;
        let before = faults.len();
        let mut fault = |text: &str| faults.push(format!("`events{text}"));
        let usual = EventsRate::default();
        let rate = EventsRate {
            per_minute_max: requests_per_minute.unwrap_or(usual.per_minute_max),
            per_hour_max: requests_per_hour.unwrap_or(usual.per_hour_max),
        };
        if rate.per_minute_max == 0 || rate.per_hour_max == 0 {
            fault("` must allow at least 1 of `requests_per_minute` and `requests_per_hour`");
        }
        if !is_host(&host) {
            fault(".host` must be what clients call it, such as `events.example.com:8443`");
        }
        let files = match (certificate, key, tls.map(|tls| &tls.source)) {
            (Some(certificate), Some(key), _) => Some((folder.join(certificate), folder.join(key))),
            (None, None, Some(CertificateSource::Files { certificate, key, client_ca: _ })) => {
                Some((certificate.clone(), key.clone()))
            }
            (None, None, None | Some(CertificateSource::Workload(_))) => {
                fault(
                    "` must have a `certificate` and its `key`: there is none in `[tls]`, and never plain HTTP",
                );
                None
            }
            (Some(_), None, _) | (None, Some(_), _) => {
                fault("` must have both `certificate` and `key`, or neither");
                None
            }
        };
        let (certificate, key) = files?;
        let source = CertificateSource::Files { certificate, key, client_ca: None };
        let tls = TlsSettings { source, clients: None, tls12: tls.is_some_and(|tls| tls.tls12) };
        let settings = EventsSettings { listen, host, tls, signing_key: folder.join(signing_key), rate };
        (faults.len() == before).then_some(settings)
    }
}

/// A name or an address, and a port where it is not 443.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253
        && name.split('.').all(label)
        && port.is_none_or(|port| {
            port.parse::<u16>().is_ok_and(|number| number.to_string() == port && number > 0)
        })
}
