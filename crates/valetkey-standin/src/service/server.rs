//! HTTP: takes requests in, counts them, applies the faults that a test has asked for, and answers.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::read::{file, read};
use super::seal::seal;
use super::sign_in::Sessions;
use crate::World;

/// What requests and the test share. A lock is never held while something is awaited.
pub(super) struct State {
    pub(super) world: World,
    pub(super) sessions: Sessions,
    pub(super) requests: Vec<(String, String)>,
    pub(super) fault: Fault,
    pub(super) delay: Duration,
}

/// What goes wrong with every request.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    None,
    /// The request is answered with this HTTP status.
    Status(u16),
    /// The request is never answered.
    Stall,
}

/// An answer.
pub(super) enum Answer {
    Json(Value),
    Bytes(Vec<u8>),
    /// A refusal, by its HTTP status.
    Status(u16),
}

/// The state, also after a test has panicked with it in hand.
pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until it is dropped, and takes its connections with it.
pub(super) async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        let service = service_fn(move |request| respond(request, Arc::clone(&state)));
        let connection = hyper::server::conn::http1::Builder::new();
        connections.spawn(connection.serve_connection(TokioIo::new(stream), service));
    }
}

async fn respond(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let (fault, delay) = {
        let mut state = lock(&state);
        if state.requests.len() < REQUESTS_MAX {
            state.requests.push((head.method.to_string(), head.uri.path().into()));
        }
        (state.fault, state.delay)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let answer = match fault {
        Fault::Stall => pending().await,
        Fault::Status(status) => Answer::Status(status),
        Fault::None => match Limited::new(body, BODY_LEN_MAX).collect().await {
            Ok(body) => {
                let session_id = head.headers.get(SESSION_HEADER).and_then(|id| id.to_str().ok());
                let path = (head.method.as_str(), head.uri.path());
                answer(path, session_id.unwrap_or_default(), &body.to_bytes(), &state)
                    .unwrap_or(Answer::Status(400))
            }
            Err(_) => Answer::Status(413),
        },
    };
    Ok(response(answer))
}

fn answer(
    (method, path): (&str, &str),
    session_id: &str,
    body: &[u8],
    state: &Mutex<State>,
) -> Result<Answer> {
    let mut state = lock(state);
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let ("GET", ["api", path @ ..]) = (method, parts.as_slice()) else {
        return match (method, parts.as_slice()) {
            ("POST", ["api", "v3", "auth", "start"]) => state.sessions.step("start", session_id, body),
            ("POST", ["api", "v2", "auth"]) => state.sessions.step("auth", session_id, body),
            ("POST", ["api", "v2", "auth", step]) => state.sessions.step(step, session_id, body),
            _ => Ok(Answer::Status(404)),
        };
    };
    let Some(key) = state.sessions.key(session_id) else { return Ok(Answer::Status(401)) };
    let answer = match path {
        ["v3", "file", file_id] => file(&state.world, file_id)?.map(Answer::Bytes),
        path => match read(&state.world, path)? {
            Some(plain) => Some(Answer::Json(seal(&key, session_id, &plain)?)),
            None => None,
        },
    };
    Ok(answer.unwrap_or(Answer::Status(404)))
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Answer::Json(json) => (200, json.to_string().into_bytes()),
        Answer::Bytes(bytes) => (200, bytes),
        Answer::Status(status) => (status, b"{}".to_vec()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

const SESSION_HEADER: &str = "x-agilebits-session-id";
const BODY_LEN_MAX: usize = 64 * 1024;
const REQUESTS_MAX: usize = 100_000;
