//! What every source that asks a service has in common: it asks seldom, and never without proof.
//!
//! A [`Source`] is a directory and a resolver over one `Upstream`. Between the two stand, from above:
//!
//! - the directory: what exists, of a bounded age; only vaults that the configuration names,
//! - flights: what is asked twice at once, or again at once, is asked once; answers are kept sealed,
//! - turns: so many questions at once, and not all of them one agent's,
//! - the breaker: a source that refuses is left alone for a while,
//! - the quota: a budget that is shared fairly and outlives a crash.
//!
//! Not here: how references select fields, which is the catalogue's, and how a service is spoken to.
//!
//! Invariants:
//! - `locate` asks nothing. A survey asks one question, about the vault and the item that stand in it.
//! - A value is given only after the grant's target was put together again from what was just read, and is
//!   the same.
//! - Every wait ends: what is still on its way then goes on to its end, for whoever asks next; what still waits
//!   for its turn, and so is not paid for, is cancelled when nobody waits for it.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, join_all, select};
use futures_util::{StreamExt, stream};
use valetkey_core::{
    Clock, Directory, Gap, Grant, Inventory, Located, ResolveError, ResolveFailure, Resolved, Resolver,
    SecretReference, Survey, Target,
};

use asking::{Asking, is_gone};
use directory::{Cause, SourceDirectory};
use flights::{Key, Sharing};
use selection::Selection;

pub use figures::{SourceFigures, SourceState};
pub use quota::{QuotaError, QuotaLimits, Spending, quota_check};
pub use sources::{Member, Sources};

mod asking;
mod breaker;
mod directory;
mod figures;
mod flights;
mod quota;
mod reading;
mod sealed;
mod selection;
mod sources;
mod turns;

use crate::upstream::Upstream;

/// How a source is used.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Its name in the configuration: in records, and in the name of its state file.
    pub name: Arc<str>,
    /// The vaults that it serves, by id, or by name in any case. Others do not exist for it.
    pub vaults: Vec<Arc<str>>,
    /// How old the lists of vaults and items and the outlines of items may be. 15 minutes by default: so long
    /// may a renamed vault or item go by its former name.
    pub directory_age_max: Duration,
    /// How old they may be where they lack the name that is asked for. 10 seconds by default.
    pub refresh_interval: Duration,
    /// How long a value serves those who ask for it next. One second by default, so that what a survey read
    /// need not be read again.
    pub share_window: Duration,
    /// How long a value is kept, sealed, beyond that: nothing by default, at most 60 seconds. So long may a
    /// value be used after it was changed or taken away. Never for one-time passwords and their seeds.
    pub value_cache: Option<Duration>,
    /// How many questions are asked at once. 8 by default.
    pub concurrency_max: usize,
    /// How long looking up takes at most. 5 seconds by default.
    pub learn_timeout: Duration,
    /// How long fetching takes at most. 8 seconds by default.
    pub resolve_timeout: Duration,
    /// The budget.
    pub quota: QuotaLimits,
    /// Where the state of the budget lies; must be set if there are limits, and be there.
    pub state_dir: Option<PathBuf>,
}

impl SourceOptions {
    /// The defaults, for a source of this name that serves these vaults.
    #[must_use]
    pub fn new(name: Arc<str>, vaults: Vec<Arc<str>>) -> Self {
        Self {
            name,
            vaults,
            directory_age_max: Duration::from_mins(15),
            refresh_interval: Duration::from_secs(10),
            share_window: Duration::from_secs(1),
            value_cache: None,
            concurrency_max: 8,
            learn_timeout: Duration::from_secs(5),
            resolve_timeout: Duration::from_secs(8),
            quota: QuotaLimits::default(),
            state_dir: None,
        }
    }
}

/// One set of credentials for one place where items are kept, used sparingly.
pub struct Source {
    asking: Arc<Asking>,
    options: SourceOptions,
    clock: Arc<dyn Clock>,
}

impl Source {
    /// A source over an upstream; `kind` is what figures call it. Asks nothing yet.
    ///
    /// # Errors
    /// [`QuotaError`] where its budget cannot be kept.
    pub(crate) fn over(
        upstream: Box<dyn Upstream>,
        kind: &'static str,
        options: SourceOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, QuotaError> {
        let options = SourceOptions {
            value_cache: options.value_cache.map(|keep| keep.min(VALUE_CACHE_MAX)),
            concurrency_max: options.concurrency_max.max(1),
            ..options
        };
        let selection = Selection::new(&options.vaults);
        let directory = SourceDirectory::new(selection, options.directory_age_max, options.refresh_interval);
        let asking = Asking::new(upstream, kind, directory, &options, Arc::clone(&clock))?;
        Ok(Self { asking: Arc::new(asking), options, clock })
    }

    /// How it is, and what it has done.
    #[must_use]
    pub fn figures(&self) -> SourceFigures {
        self.asking.figures()
    }

    /// Asks the one question of a survey, unless it was answered meanwhile.
    async fn learn_one(&self, survey: &Survey, deadline: Duration) -> Result<(), ResolveFailure> {
        let request = survey.request();
        let (target, open) = self.asking.directory.gap(&request.reference, self.clock.monotonic());
        let Some((gap, cause)) = open.filter(|(gap, _)| *gap == survey.gap()) else { return Ok(()) };
        // What may be asked about stands in the survey; where the directory means something else by now, the
        // core looks again and surveys that.
        let ids = |target: &Target| {
            let id = |named: Option<&valetkey_core::Named>| named.map(|named| Arc::clone(&named.id));
            (id(target.vault()), id(target.item()))
        };
        let key = match (gap, ids(&request.target)) {
            (Gap::Vaults, _) => Key::Vaults,
            (Gap::Items, (Some(vault), _)) if ids(&target).0.as_ref() == Some(&vault) => Key::Items(vault),
            (Gap::Fields, (Some(vault), Some(item)))
                if ids(&target) == (Some(Arc::clone(&vault)), Some(Arc::clone(&item))) =>
            {
                Key::Item(vault, item)
            }
            (Gap::Items | Gap::Fields, _) => return Ok(()),
        };
        if cause == Cause::Missing && !self.asking.quota.is_ample() {
            self.asking.directory.be_patient(self.clock.monotonic());
            return Ok(());
        }
        let sharing = Sharing { age_max: self.options.share_window, not_before: Duration::ZERO };
        let landing = self.within(deadline, self.asking.ask(&request.agent, key, sharing)).await;
        match landing {
            // The directory knows that now: it is an answer.
            Err(failure) if gap == Gap::Fields && is_gone(&failure.error) => Ok(()),
            // The list is known, if not of this moment. That the name could not be looked for again must not be
            // told to one who may not know whether it is there.
            Err(_) if cause == Cause::Missing => {
                self.asking.directory.be_patient(self.clock.monotonic());
                Ok(())
            }
            landing => landing.map(drop),
        }
    }

    /// Asks for the vaults, whatever vault the survey is about, where they were never listed: another source's
    /// vault may have its name from one of them.
    async fn learn_vaults(&self, survey: &Survey) -> Result<(), ResolveFailure> {
        if self.asking.directory.knows_vaults() {
            return Ok(());
        }
        let deadline = self.clock.monotonic().saturating_add(self.options.learn_timeout);
        let sharing = Sharing { age_max: self.options.share_window, not_before: Duration::ZERO };
        let ask = self.asking.ask(&survey.request().agent, Key::Vaults, sharing);
        self.within(deadline, ask).await.map(drop)
    }

    /// The end of something, or a failure where that takes too long.
    async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, ResolveFailure>>,
    ) -> Result<T, ResolveFailure> {
        let late = || ResolveFailure {
            error: ResolveError::Unavailable,
            detail: Some("the source did not answer in time".into()),
        };
        if self.clock.monotonic() >= deadline {
            return Err(late());
        }
        match select(pin!(work), self.clock.sleep_until(deadline)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => Err(late()),
        }
    }
}

#[async_trait]
impl Directory for Source {
    fn locate(&self, reference: &SecretReference) -> Located {
        self.asking.directory.locate(reference, self.clock.monotonic())
    }

    async fn learn(&self, surveys: &[&Survey]) -> Vec<Result<(), ResolveFailure>> {
        let deadline = self.clock.monotonic().saturating_add(self.options.learn_timeout);
        join_all(surveys.iter().map(|survey| self.learn_one(survey, deadline))).await
    }

    fn inventory(&self) -> Inventory {
        let mut inventory = self.asking.directory.inventory(self.clock.monotonic());
        let name = &self.options.name;
        let failing = match self.figures().state {
            SourceState::Ready => None,
            SourceState::Failing { error } | SourceState::Paused { error, remaining: _ } => {
                Some(error.to_string())
            }
            SourceState::Spent { retry_after: _ } => Some("its budget is spent".to_owned()),
        };
        // A source that fails is no gap as long as all is known freshly.
        let failing = failing.map(|failing| format!("; {failing}")).unwrap_or_default();
        for gap in &mut inventory.gaps {
            *gap = format!("source `{name}`: {gap}{failing}");
        }
        inventory
    }
}

#[async_trait]
impl Resolver for Source {
    async fn resolve(&self, grants: &[&Grant]) -> Vec<Result<Resolved, ResolveFailure>> {
        let deadline = self.clock.monotonic().saturating_add(self.options.resolve_timeout);
        let mut answers: Vec<_> = grants.iter().map(|grant| reading::without_field(grant)).collect();
        let mut by_item: HashMap<_, Vec<_>> = HashMap::new();
        for (place, grant) in grants.iter().enumerate() {
            if let Some(target) = grant.request().target.field() {
                let item = (Arc::clone(&target.vault.id), Arc::clone(&target.item.id));
                by_item.entry(item).or_default().push((place, target, &grant.request().agent));
            }
        }
        let reads: Vec<_> =
            by_item.into_iter().map(|(item, wanted)| self.read_item(item, wanted, deadline)).collect();
        let mut reads = stream::iter(reads).buffer_unordered(self.options.concurrency_max);
        while let Some(read) = reads.next().await {
            for (place, answer) in read {
                if let Some(slot) = answers.get_mut(place) {
                    *slot = answer;
                }
            }
        }
        answers
    }
}

const VALUE_CACHE_MAX: Duration = Duration::from_mins(1);

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
