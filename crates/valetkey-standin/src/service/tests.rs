//! The stand-in against a client of ours that speaks as the core does. That the genuine core and it
//! understand one another is tested where the core is called.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::account::EMAIL;
use super::seal::{Key, open, seal};
use super::*;
use crate::world::text;

/// A client, with the id and the key of its session once it has them.
struct Client<'a> {
    service: &'a Service,
    session_id: String,
    key: Key,
}

impl<'a> Client<'a> {
    fn new(service: &'a Service) -> Self {
        Self { service, session_id: String::new(), key: [0; 32] }
    }

    /// The status and the body of an answer.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream =
            TcpStream::connect(self.service.address().trim_start_matches("http://")).await.unwrap();
        let (session_id, body_len) = (&self.session_id, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\
             x-agilebits-session-id: {session_id}\r\ncontent-length: {body_len}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask("POST", path, &body.to_string()).await
    }

    /// Reads, and opens what was sealed for the session.
    async fn read(&self, path: &str) -> Result<Value, u16> {
        match self.ask("GET", path, "").await {
            (200, sealed) => Ok(open(&self.key, &sealed).unwrap()),
            (status, _) => Err(status),
        }
    }

    /// Signs in with this exponent, as far as it is let.
    async fn sign_in(&mut self, srp_x: &[u8]) -> Result<(), u16> {
        let done = |(status, answer): (u16, Value)| if status == 200 { Ok(answer) } else { Err(status) };
        let started = done(self.post("/api/v3/auth/start", json!({ "email": EMAIL })).await)?;
        self.session_id = text(&started, "/sessionID").into();
        let client = srp::tests::Client::new();
        let answer = done(self.post("/api/v2/auth", json!({ "userA": client.user_a() })).await)?;
        let (key, proof) = client.prove(srp_x, text(&answer, "/userB"));
        done(self.post("/api/v2/auth/confirm-key", json!({ "clientVerifyHash": proof })).await)?;
        self.key = key;
        let hello = seal(&key, &self.session_id, &json!({ "client": "a test" })).unwrap();
        done(self.post("/api/v2/auth/complete", hello).await).map(|_| ())
    }
}

async fn service() -> Service {
    Service::start(World::travel().unwrap()).await.unwrap()
}

/// What the token has as the exponent.
fn srp_x(service: &Service) -> Vec<u8> {
    let token = BASE64URL_NOPAD.decode(service.token().trim_start_matches("ops_").as_bytes()).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    assert_eq!(text(&token, "/signInAddress"), service.address());
    HEXLOWER.decode(text(&token, "/srpX").as_bytes()).unwrap()
}

const VAULTS: &str = "/api/v1/vaults?attrs=combined-access";
const NAVAN: &str = "/api/v1/vault/tutorialxxxxxxxxxxxxxxxxxx/item/navanxxxxxxxxxxxxxxxxxxxxx";

#[tokio::test]
async fn who_has_the_token_reads_and_nobody_else() {
    let service = service().await;
    let mut client = Client::new(&service);
    assert_eq!(client.read(VAULTS).await, Err(401));
    assert_eq!(client.sign_in(b"another").await, Err(401));
    assert_eq!(service.requests().last().unwrap().1, "/api/v2/auth/confirm-key");
    assert_eq!(client.read(VAULTS).await, Err(401));
    client.sign_in(&srp_x(&service)).await.unwrap();
    assert_eq!(client.read(VAULTS).await.unwrap().as_array().unwrap().len(), 2);
    let item = client.read(NAVAN).await.unwrap();
    let key = account::vault_key("tutorialxxxxxxxxxxxxxxxxxx");
    let details = open(&key, &item["item"]["encDetails"]).unwrap();
    assert_eq!(text(&details, "/fields/1/value"), "demo-navan-password-7f3a91");
    assert_eq!(text(&details, "/sections/0/fields/0/n"), "TOTP_onetimepassword");
    assert_eq!(client.read("/api/v1/vault/tutorialxxxxxxxxxxxxxxxxxx/item/none").await, Err(404));
}

#[tokio::test]
async fn a_step_out_of_turn_ends_the_sign_in() {
    let service = service().await;
    let mut client = Client::new(&service);
    let started = client.post("/api/v3/auth/start", json!({ "email": EMAIL })).await;
    client.session_id = text(&started.1, "/sessionID").into();
    assert_eq!(client.post("/api/v2/auth/complete", json!({})).await.0, 401);
    assert_eq!(client.post("/api/v2/auth", json!({ "userA": "5" })).await.0, 401);
    let started = client.post("/api/v3/auth/start", json!({ "email": EMAIL })).await;
    client.session_id = text(&started.1, "/sessionID").into();
    // A client whose number is a multiple of the prime would know the key without knowing the exponent.
    assert_eq!(client.post("/api/v2/auth", json!({ "userA": "0" })).await.0, 400);
    for (path, body, status) in [
        ("/api/v3/auth/start", json!({ "email": "nobody" }), 401),
        ("/api/v3/auth/start", "x".repeat(100_000).into(), 413),
        ("/api/v2/auth/none", json!({}), 401),
        ("/api/v2/none", json!({}), 404),
    ] {
        assert_eq!(client.post(path, body).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn sessions_end_and_a_revoked_token_is_worth_nothing() {
    let service = service().await;
    let mut client = Client::new(&service);
    client.sign_in(&srp_x(&service)).await.unwrap();
    service.expire_session();
    assert_eq!(client.read(VAULTS).await, Err(401));
    client.sign_in(&srp_x(&service)).await.unwrap();
    client.read(VAULTS).await.unwrap();
    service.revoke();
    assert_eq!(client.read(VAULTS).await, Err(401));
    assert_eq!(client.sign_in(&srp_x(&service)).await, Err(401));
}

#[tokio::test]
async fn faults_come_and_go_and_requests_are_counted() {
    let service = service().await;
    let mut client = Client::new(&service);
    client.sign_in(&srp_x(&service)).await.unwrap();
    service.rate_limit(true);
    assert_eq!(client.read(VAULTS).await, Err(429));
    service.rate_limit(false);
    service.fail(Some(503));
    assert_eq!(client.read(VAULTS).await, Err(503));
    service.fail(None);
    service.stall(true);
    let stalled = tokio::time::timeout(Duration::from_millis(50), client.read(VAULTS)).await;
    assert!(stalled.is_err());
    service.stall(false);
    service.change_item("navanxxxxxxxxxxxxxxxxxxxxx", |item| item["version"] = 4.into());
    assert_eq!(client.read(NAVAN).await.unwrap()["item"]["itemVersion"], 4);
    service.remove_item("navanxxxxxxxxxxxxxxxxxxxxx");
    assert_eq!(client.read(NAVAN).await, Err(404));
    let vaults = ("GET".to_owned(), "/api/v1/vaults".to_owned());
    let requests = service.requests();
    assert_eq!(requests.iter().filter(|request| **request == vaults).count(), 3);
    assert_eq!(requests.len(), 9);
}

#[tokio::test]
async fn it_is_gone_once_it_is_dropped() {
    let service = service().await;
    let address = service.address().trim_start_matches("http://").to_owned();
    let mut open = TcpStream::connect(&address).await.unwrap();
    drop(service);
    assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(&address).await.is_err());
}
