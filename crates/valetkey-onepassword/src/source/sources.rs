//! Many sources, many vaults, as one.
//!
//! A vault is the business of the sources that serve it; a reference to one that none serves costs
//! nothing. A name that two sources have a vault of means neither; ids tell them apart. Where the same
//! vault is served twice, the source that the configuration names first serves it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use valetkey_core::{
    Clock, Directory, Gap, Grant, Inventory, KnownItem, Located, Named, ResolveError, ResolveFailure,
    Resolved, Resolver, SecretReference, Survey, Target,
};

use super::reading::without_field;
use super::{Source, SourceFigures};
use crate::VaultFile;

/// One of many sources.
pub enum Member {
    /// One that asks a service.
    Remote(Source),
    /// The embedded vault, all of it.
    Embedded(VaultFile),
}

/// All sources of a broker.
pub struct Sources {
    members: Vec<Member>,
    clock: Arc<dyn Clock>,
    /// Until then nobody asks again whether another source has a vault of a name: it has just failed to say.
    patience: Mutex<Duration>,
}

impl Sources {
    /// These, in the order of the configuration.
    #[must_use]
    pub fn new(members: Vec<Member>, clock: Arc<dyn Clock>) -> Self {
        Self { members, clock, patience: Mutex::default() }
    }

    /// How each is, and what it has done. The embedded vault has nothing to say.
    #[must_use]
    pub fn figures(&self) -> Vec<SourceFigures> {
        let remote = self.members.iter().filter_map(|member| match member {
            Member::Remote(source) => Some(source.figures()),
            Member::Embedded(_) => None,
        });
        remote.collect()
    }

    /// The one member whose vault the reference means, with what it says; or nobody, with what all say together.
    fn choose(&self, reference: &SecretReference) -> (Option<usize>, Located) {
        let mut gap = None;
        let mut hits: Vec<(usize, Located)> = Vec::new();
        let mut several = false;
        for (place, member) in self.members.iter().enumerate() {
            let located = member.port().locate(reference);
            several |= located.target.error() == Some(&ResolveError::TooManyVaults);
            match located.target.vault() {
                None => gap = gap.or(located.gap),
                Some(vault) => {
                    let is_known =
                        hits.iter().any(|(_, hit)| hit.target.vault().map(|it| &it.id) == Some(&vault.id));
                    if !is_known {
                        hits.push((place, located));
                    }
                }
            }
        }
        // An id beats a name.
        let is_by_id =
            |hit: &(usize, Located)| hit.1.target.vault().is_some_and(|it| *it.id == *reference.vault());
        if let Some(at) = hits.iter().position(is_by_id) {
            let (place, located) = hits.swap_remove(at);
            return (Some(place), located);
        }
        match hits.pop() {
            Some((place, located)) if hits.is_empty() && !several => (Some(place), located),
            None if !several => (None, unresolved(ResolveError::VaultNotFound, gap)),
            Some(_) | None => (None, unresolved(ResolveError::TooManyVaults, gap)),
        }
    }

    /// What a reference means, seen from all sources: a vault's name that another source has, or may have, a
    /// vault of stands for no vault alone.
    fn look(&self, reference: &SecretReference) -> Located {
        let (place, mut located) = self.choose(reference);
        if let (Some(place), Some(vault)) = (place, vault_mut(&mut located.target)) {
            let others = self.members.iter().enumerate().filter(|(other, _)| *other != place);
            let bearing: Vec<_> = others.map(|(_, member)| member.bears(&vault.name, &vault.id)).collect();
            vault.name_is_unique &= bearing.iter().all(|bears| *bears == Some(false));
            // As long as somebody may still find that out, the vault is not known: policies that go by its name
            // must not be refused before, for then nobody would ask.
            if bearing.contains(&None) && self.clock.monotonic() >= self.patience() {
                return unresolved(ResolveError::VaultNotFound, Some(Gap::Vaults));
            }
        }
        located
    }

    /// A member's vault, whose name stands for it alone only where no other member has, or may have, one of that
    /// name.
    fn seen_from_all(&self, place: usize, vault: Named) -> Named {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != place);
        let is_alone =
            others.map(|(_, member)| member.bears(&vault.name, &vault.id)).all(|it| it == Some(false));
        Named { name_is_unique: vault.name_is_unique && is_alone, ..vault }
    }

    /// The sources that have not said yet whether they have a vault of the name of the one that is meant.
    fn silent(&self, reference: &SecretReference) -> impl Iterator<Item = &Source> {
        let (place, located) = self.choose(reference);
        let vault = place.and_then(|_| located.target.vault().cloned());
        self.members.iter().filter_map(move |member| match (member, &vault) {
            (Member::Remote(source), Some(vault)) => {
                member.bears(&vault.name, &vault.id).is_none().then_some(source)
            }
            (Member::Remote(_) | Member::Embedded(_), _) => None,
        })
    }

    fn patience(&self) -> Duration {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serving(&self, target: &Target) -> Option<usize> {
        let vault = target.vault()?;
        self.members.iter().position(|member| member.serves(&vault.id))
    }

    /// Asks all that may have the vault. When one of them has it, the others have a moment more to say whether
    /// they have one of that name; one that is down delays nobody for longer, and one that is slow is known when
    /// its answer comes.
    async fn learn_vaults(&self, survey: &Survey) -> Result<(), ResolveFailure> {
        let reference = &survey.request().reference;
        let surveys = [survey];
        let mut asked: FuturesUnordered<_> =
            self.members.iter().map(|member| member.port().learn(&surveys)).collect();
        let (mut failure, mut deadline) = (None, None);
        loop {
            let answers = match deadline {
                None => asked.next().await,
                Some(deadline) => match select(asked.next(), self.clock.sleep_until(deadline)).await {
                    Either::Left((answers, _)) => answers,
                    Either::Right(((), _)) => None,
                },
            };
            let Some(answers) = answers else { break };
            failure = failure.or(answers.into_iter().find_map(Result::err));
            if deadline.is_none() && self.choose(reference).0.is_some() {
                deadline = Some(self.clock.monotonic().saturating_add(GRACE));
                let silent = self.silent(reference);
                asked.extend(silent.map(|source| source.learn_vaults(survey).map(|_| Vec::new()).boxed()));
            }
        }
        if self.silent(reference).next().is_some() {
            let patience = self.clock.monotonic().saturating_add(PATIENCE);
            *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = patience;
        }
        match (self.choose(reference), failure) {
            ((None, Located { gap: Some(_), .. }), Some(failure)) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Asks the one that serves the vault of the survey.
    async fn learn_one(&self, survey: &Survey) -> Result<(), ResolveFailure> {
        if survey.gap() == Gap::Vaults {
            return self.learn_vaults(survey).await;
        }
        let place = self.serving(&survey.request().target);
        let Some(member) = place.and_then(|place| self.members.get(place)) else { return Ok(()) };
        member.port().learn(&[survey]).await.pop().unwrap_or(Ok(()))
    }
}

#[async_trait]
impl Directory for Sources {
    fn locate(&self, reference: &SecretReference) -> Located {
        self.look(reference)
    }

    async fn learn(&self, surveys: &[&Survey]) -> Vec<Result<(), ResolveFailure>> {
        join_all(surveys.iter().map(|survey| self.learn_one(survey))).await
    }

    /// Each vault by the source that serves it.
    fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::default();
        let mut served: HashMap<Arc<str>, (usize, Named)> = HashMap::new();
        for (place, member) in self.members.iter().enumerate() {
            let Inventory { items, gaps } = member.port().inventory();
            inventory.gaps.extend(gaps);
            for KnownItem { vault, item } in items {
                let entry = served.entry(Arc::clone(&vault.id));
                let (by, vault) = entry.or_insert_with(|| (place, self.seen_from_all(place, vault)));
                if *by == place {
                    inventory.items.push(KnownItem { vault: vault.clone(), item });
                }
            }
        }
        if inventory.items.len() > INVENTORY_MAX {
            inventory.items.truncate(INVENTORY_MAX);
            inventory.gaps.push(format!("more than {INVENTORY_MAX} items are known"));
        }
        inventory
    }
}

#[async_trait]
impl Resolver for Sources {
    async fn resolve(&self, grants: &[&Grant]) -> Vec<Result<Resolved, ResolveFailure>> {
        let mut answers: Vec<_> = grants.iter().map(|grant| without_field(grant)).collect();
        let reads = self.members.iter().enumerate().map(|(place, member)| async move {
            let of_it = |(_, grant): &(usize, &&Grant)| {
                let target = &grant.request().target;
                target.field().is_some() && self.serving(target) == Some(place)
            };
            let (places, grants): (Vec<_>, Vec<&Grant>) =
                grants.iter().enumerate().filter(of_it).map(|(at, grant)| (at, *grant)).unzip();
            let answers = match grants.is_empty() {
                true => Vec::new(),
                false => member.port().resolve(&grants).await,
            };
            places.into_iter().zip(answers)
        });
        for (place, answer) in join_all(reads).await.into_iter().flatten() {
            if let Some(slot) = answers.get_mut(place) {
                *slot = answer;
            }
        }
        answers
    }
}

/// A source: both ports.
trait Port: Directory + Resolver {}
impl<T: Directory + Resolver> Port for T {}

impl Member {
    fn port(&self) -> &dyn Port {
        match self {
            Self::Remote(source) => source,
            Self::Embedded(file) => file,
        }
    }

    fn serves(&self, vault_id: &str) -> bool {
        match self {
            Self::Remote(source) => source.asking.directory.serves(vault_id),
            Self::Embedded(file) => file.vaults().has(vault_id),
        }
    }

    /// Whether another vault than the one with this id bears the name; `None` where that is not known.
    fn bears(&self, name: &str, besides: &str) -> Option<bool> {
        match self {
            Self::Remote(source) => source.asking.directory.bears(name, besides),
            Self::Embedded(file) => Some(file.vaults().has_namesake(name, besides)),
        }
    }
}

fn unresolved(error: ResolveError, gap: Option<Gap>) -> Located {
    Located { target: Target::Unresolved { vault: None, item: None, error }, gap }
}

fn vault_mut(target: &mut Target) -> Option<&mut Named> {
    match target {
        Target::Field(field) => Some(&mut field.vault),
        Target::Unresolved { vault, .. } | Target::Unknown { vault, .. } => vault.as_mut(),
    }
}

/// How long the others have when one has the vault.
const GRACE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
const INVENTORY_MAX: usize = 200_000;
