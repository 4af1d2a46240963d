//! `GET /metrics`: the broker's state as counts, in Prometheus's text format.
//!
//! A listener of its own, on loopback alone and off by default: no identity is asked for, so there is nothing in it
//! that names a caller, a vault or a secret. Sources are named as the configuration names them.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use valetkey_proto::v1::{GetStatusResponse, SourceState, SourceStatus};

use crate::state::State;

/// Serves until it is no longer polled. A connection has a few seconds, and there are only so many.
pub(crate) async fn serve(listener: TcpListener, state: State) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let state = state.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&request, &state);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(CONNECTION_TIME_MAX).keep_alive(false);
            // How a scrape went wrong is for the one who scrapes.
            let _ = tokio::time::timeout(
                CONNECTION_TIME_MAX,
                http.serve_connection(TokioIo::new(socket), answer),
            )
            .await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => Response::new(Full::from(exposition(&state.show()))),
        _ => {
            let mut unknown = Response::new(Full::from("there is only GET /metrics\n"));
            *unknown.status_mut() = StatusCode::NOT_FOUND;
            unknown
        }
    };
    let format = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
fn exposition(status: &GetStatusResponse) -> String {
    let mut text = Exposition::default();
    text.head("valetkey_leases", "gauge", "Open leases.");
    text.value("valetkey_leases", "", status.leases);
    text.head("valetkey_handles", "gauge", "Handles that can be redeemed.");
    text.value("valetkey_handles", "", status.handles);
    text.head("valetkey_audit_available", "gauge", "1 where the audit log can be written.");
    text.value("valetkey_audit_available", "", status.audit_available.into());
    let lag = "Records of the audit log that its index does not cover yet.";
    text.head("valetkey_audit_index_lag_records", "gauge", lag);
    text.value("valetkey_audit_index_lag_records", "", status.audit_index_lag);
    let sources = &status.sources;
    let ready = |source: &SourceStatus| Some(u64::from(source.state() == SourceState::Ready));
    text.of_sources("ready", "gauge", "1 where the source answers, or was not asked yet.", sources, ready);
    text.of_sources("reads_total", "counter", "Questions to the source.", sources, |it| Some(it.reads));
    let shared = |it: &SourceStatus| Some(it.shared_reads);
    text.of_sources("shared_reads_total", "counter", "Questions that shared an answer.", sources, shared);
    let cached = |it: &SourceStatus| Some(it.cached_reads);
    text.of_sources(
        "cached_reads_total",
        "counter",
        "Questions answered from what was kept.",
        sources,
        cached,
    );
    for (name, quota) in [
        ("hour", (|it: &SourceStatus| it.hour) as fn(&SourceStatus) -> _),
        ("day", |it: &SourceStatus| it.day),
    ] {
        let used = |it: &SourceStatus| quota(it).map(|quota| quota.used);
        let help = format!("Requests within the last {name}.");
        text.of_sources(&format!("requests_last_{name}"), "gauge", &help, sources, used);
        let left = |it: &SourceStatus| quota(it).map(|quota| quota.left);
        let help = format!("Requests that are left of the last {name}.");
        text.of_sources(&format!("requests_left_{name}"), "gauge", &help, sources, left);
    }
    text.0
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn of_sources(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        sources: &[SourceStatus],
        value: impl Fn(&SourceStatus) -> Option<u64>,
    ) {
        let name = format!("valetkey_source_{name}");
        self.head(&name, kind, help);
        for source in sources {
            if let Some(value) = value(source) {
                // Names have nothing in them that would have to be escaped.
                self.value(&name, &format!("{{source=\"{}\",kind=\"{}\"}}", source.name, source.kind), value);
            }
        }
    }
}

const CONNECTIONS_MAX: usize = 8;
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use valetkey_proto::v1::SourceQuota;

    #[test]
    fn the_text_is_prometheus_s() {
        let source = SourceStatus {
            name: "team".into(),
            kind: "sdk".into(),
            state: SourceState::Limited.into(),
            hour: Some(SourceQuota { used: 900, left: 0 }),
            reads: 412,
            shared_reads: 30,
            ..SourceStatus::default()
        };
        let status = GetStatusResponse {
            leases: 3,
            audit_available: true,
            audit_index_lag: 812,
            sources: vec![source],
            ..Default::default()
        };
        let text = exposition(&status);
        for line in [
            "# TYPE valetkey_leases gauge",
            "valetkey_leases 3",
            "valetkey_audit_available 1",
            "valetkey_audit_index_lag_records 812",
            "# TYPE valetkey_source_reads_total counter",
            "valetkey_source_ready{source=\"team\",kind=\"sdk\"} 0",
            "valetkey_source_reads_total{source=\"team\",kind=\"sdk\"} 412",
            "valetkey_source_requests_last_hour{source=\"team\",kind=\"sdk\"} 900",
            "valetkey_source_requests_left_hour{source=\"team\",kind=\"sdk\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("_day{"), "no limit, no figure");
        assert!(text.lines().all(|line| line.starts_with('#') || line.split(' ').count() == 2), "{text}");
    }
}
