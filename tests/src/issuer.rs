//! An issuer of signed tokens on loopback: keys that it publishes, tokens that it signs, and faults.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow};
use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The server. Gone when dropped.
pub struct StandIn {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
}

/// How the server answers.
#[derive(Debug, Clone, Default)]
pub enum Answer {
    /// Hangs up.
    #[default]
    Down,
    /// Takes the question and says nothing.
    Silent,
    /// With this status and this body.
    With(u16, String),
}

/// A key that signs.
pub struct Signer {
    /// Its `kid`.
    pub id: String,
    key: Key,
}

enum Key {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(Box<RsaKeyPair>),
}

impl StandIn {
    /// Starts it; it is down until it is told what to answer.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, shared) = (listener.local_addr()?, Arc::<Shared>::default());
        let state = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, Arc::clone(&state)));
            }
        });
        Ok(Self { address, shared, serving })
    }

    /// Answers so from now on.
    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// Publishes these keys from now on.
    pub fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.answer(Answer::With(200, json!({ "keys": keys }).to_string()));
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// The URL of its keys.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Signer {
    /// ECDSA on P-256.
    ///
    /// # Errors
    /// Never, unless the machine has no randomness.
    pub fn es256(id: &str) -> Result<Self> {
        let random = SystemRandom::new();
        let bytes =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(broken)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes.as_ref(), &random);
        Ok(Self { id: id.to_owned(), key: Key::Es256(key.map_err(broken)?) })
    }

    /// Ed25519.
    ///
    /// # Errors
    /// Likewise.
    pub fn eddsa(id: &str) -> Result<Self> {
        let bytes = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(broken)?;
        let key = Ed25519KeyPair::from_pkcs8(bytes.as_ref()).map_err(broken)?;
        Ok(Self { id: id.to_owned(), key: Key::EdDsa(key) })
    }

    /// RSA, always the same one: making one takes seconds.
    ///
    /// # Errors
    /// Never.
    pub fn rs256(id: &str) -> Result<Self> {
        let key = RsaKeyPair::from_pkcs8(include_bytes!("../testdata/issuer-rsa.der")).map_err(broken)?;
        Ok(Self { id: id.to_owned(), key: Key::Rs256(Box::new(key)) })
    }

    /// Its public half, as it is published.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match &self.key {
            Key::Es256(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": text(x), "y": text(y)})
            }
            Key::EdDsa(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": text(key.public_key().as_ref())})
            }
            Key::Rs256(key) => {
                let public = ring::signature::RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                let (n, e) = (text(&public.n), text(&public.e));
                json!({"kty": "RSA", "kid": self.id, "alg": "RS256", "n": n, "e": e})
            }
        }
    }

    /// The name of its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match &self.key {
            Key::Es256(_) => "ES256",
            Key::EdDsa(_) => "EdDSA",
            Key::Rs256(_) => "RS256",
        }
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub fn token(&self, claims: &Value) -> Result<String> {
        self.sign(&json!({"alg": self.algorithm(), "kid": self.id, "typ": "JWT"}), claims)
    }

    /// A token with this header, whatever it says.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Es256(key) => key.sign(&random, signed.as_bytes()).map_err(broken)?.as_ref().to_vec(),
            Key::EdDsa(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
            Key::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).map_err(broken)?;
                signature
            }
        };
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

async fn answer(mut socket: TcpStream, shared: Arc<Shared>) {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let answer = shared.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match answer {
        Answer::Down => {}
        Answer::Silent => std::future::pending().await,
        Answer::With(status, body) => {
            let mut question = [0; 4096];
            let _ = socket.read(&mut question).await;
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nlocation: /elsewhere\r\nconnection: close\r\n\r\n"
            );
            let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
        }
    }
}

fn broken(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("{error:?}")
}
