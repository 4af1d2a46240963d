//! Sessions, and the four steps that open one: start, exchange, confirm, complete.

use std::collections::HashMap;

use anyhow::Result;
use data_encoding::BASE32_NOPAD;
use serde_json::{Value, json};

use super::account::{EMAIL, SECRET_KEY_ID, USER, user_auth};
use super::seal::{Key, open, random, seal};
use super::server::Answer;
use super::srp::Exchange;
use crate::world::text;

/// The sessions by their ids.
#[derive(Default)]
pub(super) struct Sessions(HashMap<String, Session>);

/// How far a sign-in is.
enum Session {
    Started,
    Agreed(Exchange),
    Confirmed(Key),
    Open(Key),
}

impl Sessions {
    /// Takes one step of a sign-in. A step out of turn, or with the wrong proof, is refused and ends it.
    pub(super) fn step(&mut self, step: &str, session_id: &str, body: &[u8]) -> Result<Answer> {
        let body: Value = serde_json::from_slice(body)?;
        match (step, self.0.remove(session_id)) {
            ("start", _) if text(&body, "/email") == EMAIL => self.start(),
            ("auth", Some(Session::Started)) => {
                let exchange = Exchange::answer(text(&body, "/userA"))?;
                let user_b = exchange.user_b();
                self.keep(session_id, Session::Agreed(exchange));
                Ok(Answer::Json(json!({ "userB": user_b })))
            }
            ("confirm-key", Some(Session::Agreed(exchange))) => {
                let Ok((key, proof)) = exchange.confirm(text(&body, "/clientVerifyHash")) else {
                    return Ok(Answer::Status(401));
                };
                self.keep(session_id, Session::Confirmed(key));
                Ok(Answer::Json(json!({ "serverVerifyHash": proof })))
            }
            ("complete", Some(Session::Confirmed(key))) if open(&key, &body).is_ok() => {
                self.keep(session_id, Session::Open(key));
                let account = json!({ "accountUuid": ACCOUNT, "userUuid": USER, "mfa": null });
                Ok(Answer::Json(seal(&key, session_id, &account)?))
            }
            _ => Ok(Answer::Status(401)),
        }
    }

    /// The key of a session, once it is open.
    pub(super) fn key(&self, session_id: &str) -> Option<Key> {
        match self.0.get(session_id)? {
            Session::Open(key) => Some(*key),
            Session::Started | Session::Agreed(_) | Session::Confirmed(_) => None,
        }
    }

    /// Ends all sessions: the next request of each is refused, and a new sign-in works.
    pub(super) fn end(&mut self) {
        self.0.clear();
    }

    fn start(&mut self) -> Result<Answer> {
        let session_id = BASE32_NOPAD.encode(&random::<16>()?);
        self.keep(&session_id, Session::Started);
        Ok(Answer::Json(json!({
            "status": "ok",
            "sessionID": session_id,
            "accountKeyFormat": "A3",
            "accountKeyUuid": SECRET_KEY_ID,
            "userAuth": user_auth(),
        })))
    }

    fn keep(&mut self, session_id: &str, session: Session) {
        if self.0.len() >= SESSIONS_MAX {
            self.end();
        }
        self.0.insert(session_id.into(), session);
    }
}

const ACCOUNT: &str = "STANDINACCOUNTXXXXXXXXXXXX";
const SESSIONS_MAX: usize = 1000;
