//! May the log be read, and up to where? Decided and recorded as every reading of the log, but a client that polls
//! every ten seconds would fill it by that alone: what was decided within a minute, and could not be decided otherwise
//! now, is counted. The record at the minute's end has the number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::{Code, Status};
use valetkey_core::Call;

use super::Events;
use crate::limits::{Source, What};
use crate::review::{Review, permit, unreadable};

/// What was decided last, for each credential and thing asked for.
#[derive(Default)]
pub(crate) struct Polls(Mutex<HashMap<(Arc<str>, &'static str), Decided>>);

#[derive(Clone)]
enum Decided {
    Allow(Arc<Review>),
    /// Under the policies of that generation.
    Deny(u64, Status),
}

impl Events {
    /// Decides whether and how much of the log `call` may read for `endpoint`.
    ///
    /// # Errors
    /// The status says why not.
    pub(crate) async fn review(
        &self,
        call: &Call,
        endpoint: &'static str,
        detail: &str,
    ) -> Result<Arc<Review>, Status> {
        let credential = Arc::clone(call.credential.id());
        let (what, source) =
            (What::Poll(endpoint), Source::Credential(call.caller.clone(), Arc::clone(&credential)));
        let last = self.polls.last(&credential, endpoint);
        let again = match last {
            Some(Decided::Allow(review)) => {
                let renewed = review.renewed(&self.broker, &self.reader).await.map_err(unreadable)?;
                renewed.map(|review| Ok(Arc::new(review)))
            }
            Some(Decided::Deny(generation, status)) if generation == self.broker.generation() => {
                Some(Err(status))
            }
            Some(Decided::Deny(..)) | None => None,
        };
        match again {
            Some(decided) if self.limiter.repeats.is_counted(what, source.clone()) => return decided,
            Some(_) => {}
            None => self.limiter.repeats.written(what, source),
        }
        let generation = self.broker.generation();
        let decided = permit(&self.broker, &self.reader, call, detail).await;
        match &decided {
            Ok(review) => {
                let review = Arc::new(review.clone());
                self.polls.keep(credential, endpoint, Decided::Allow(Arc::clone(&review)));
                return Ok(review);
            }
            Err(status) if status.code() == Code::PermissionDenied => {
                self.polls.keep(credential, endpoint, Decided::Deny(generation, status.clone()));
            }
            // Nothing was decided.
            Err(_) => self.polls.forget(&credential, endpoint),
        }
        decided.map(Arc::new)
    }
}

impl Polls {
    fn last(&self, credential: &Arc<str>, endpoint: &'static str) -> Option<Decided> {
        self.lock().get(&(Arc::clone(credential), endpoint)).cloned()
    }

    /// Without room, nothing is kept: then each poll is decided and recorded.
    fn keep(&self, credential: Arc<str>, endpoint: &'static str, decided: Decided) {
        let mut polls = self.lock();
        if polls.len() >= POLLS_MAX {
            polls.clear();
        }
        polls.insert((credential, endpoint), decided);
    }

    fn forget(&self, credential: &Arc<str>, endpoint: &'static str) {
        self.lock().remove(&(Arc::clone(credential), endpoint));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Arc<str>, &'static str), Decided>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const POLLS_MAX: usize = 4_096;
