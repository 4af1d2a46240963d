//! From an item that was read to the values that grants are for.

use std::sync::Arc;
use std::time::Duration;

use valetkey_core::{
    AgentId, Facet, FieldTarget, Grant, Provenance, ResolveError, ResolveFailure, Resolved, SecretValue,
    Target,
};

use super::Source;
use super::flights::{Answer, ItemRead, Key, Sharing};
use crate::catalogue::{aim, has_facet};
use crate::item::{FieldKind, FieldOutline, ItemOutline, ItemValues};

/// A target, the place of its answer and who asks.
pub(super) type Wanted<'a> = (usize, &'a FieldTarget, &'a AgentId);
type Answers = Vec<(usize, Result<Resolved, ResolveFailure>)>;

impl Source {
    /// Reads an item once for all that is wanted of it.
    pub(super) async fn read_item(
        &self,
        (vault, item): (Arc<str>, Arc<str>),
        mut wanted: Vec<Wanted<'_>>,
        deadline: Duration,
    ) -> Answers {
        if !self.asking.directory.serves(&vault) {
            let none = |(place, ..): Wanted<'_>| (place, Err(ResolveError::VaultNotFound.into()));
            return wanted.into_iter().map(none).collect();
        }
        let mut answers = Answers::new();
        let asked = self.clock.monotonic();
        // An answer that came before may be older than what the grant was decided on; then a fresh one decides.
        for not_before in [Duration::ZERO, asked] {
            let Some((_, _, agent)) = wanted.first() else { break };
            let sharing = Sharing { age_max: self.age_max(&wanted), not_before };
            let key = Key::Item(Arc::clone(&vault), Arc::clone(&item));
            let answer = self.within(deadline, self.asking.ask(agent, key, sharing)).await;
            let read = match answer.as_deref() {
                Ok(Answer::Item(read)) => read,
                Ok(Answer::Listed | Answer::File(_)) => break,
                Err(failure) => {
                    let failed = |(place, ..): Wanted<'_>| (place, Err(failure.clone()));
                    answers.extend(wanted.into_iter().map(failed));
                    return answers;
                }
            };
            let mut again = Vec::new();
            for want in wanted {
                let (place, target, agent) = want;
                let answer = self.give(read, target, agent, deadline).await;
                let may_be_old = read.started < asked && not_before < asked;
                match answer {
                    Err(failure) if may_be_old && is_about_the_item(&failure.error) => again.push(want),
                    answer => answers.push((place, answer)),
                }
            }
            wanted = again;
        }
        let left = wanted.into_iter().map(|(place, ..)| (place, Err(ResolveError::Unavailable.into())));
        answers.extend(left);
        answers
    }

    /// One value of an item that was read.
    async fn give(
        &self,
        read: &ItemRead,
        target: &FieldTarget,
        agent: &AgentId,
        deadline: Duration,
    ) -> Result<Resolved, ResolveFailure> {
        let field = self.check(read, target)?;
        let value = match read.values.open(&field.id) {
            Some(value) => value,
            None if field.kind == FieldKind::File && is_label_of_another(&read.outline, field) => {
                return Err(ResolveError::TooManyMatchingFields.into());
            }
            None if field.kind == FieldKind::File => self.read_file(target, agent, deadline).await?,
            None => return Err(ResolveError::FieldNotFound.into()),
        };
        let values = ItemValues { version: read.version, by_field: [(Arc::clone(&field.id), value)].into() };
        let value = values.give(field, target.facet, self.clock.now())?;
        let ItemRead { version, read_time, .. } = read;
        let source = Arc::clone(&self.asking.name);
        Ok(Resolved {
            value,
            provenance: Provenance { source, item_version: *version, read_time: *read_time },
        })
    }

    /// The field of a target, where it still means what was decided on.
    fn check<'a>(&self, read: &'a ItemRead, target: &FieldTarget) -> Result<&'a FieldOutline, ResolveError> {
        let ItemRead { outline, .. } = read;
        let (vault, item) = self.asking.directory.named(&target.vault.id, &target.item.id)?;
        // A list of items that came after this read knows another title: what was read may be of what the item
        // was then.
        if outline.title.to_lowercase() != *item.name {
            return Err(ResolveError::Changed);
        }
        let field = outline.field(&target.field_id).ok_or(ResolveError::FieldNotFound)?;
        let now = aim(&vault, &item, outline, field, target.facet);
        match has_facet(field.kind, target.facet) && is_covered(&now, target) {
            true => Ok(field),
            false => Err(ResolveError::Changed),
        }
    }

    async fn read_file(
        &self,
        target: &FieldTarget,
        agent: &AgentId,
        deadline: Duration,
    ) -> Result<SecretValue, ResolveFailure> {
        let FieldTarget { vault, item, field_id, .. } = target;
        let key = Key::File(Arc::clone(&vault.id), Arc::clone(&item.id), Arc::clone(field_id));
        let age_max = self.options.share_window.max(self.options.value_cache.unwrap_or_default());
        let sharing = Sharing { age_max, not_before: Duration::ZERO };
        match &*self.within(deadline, self.asking.ask(agent, key, sharing)).await? {
            Answer::File(file) => file.open(field_id).ok_or_else(|| ResolveError::Unavailable.into()),
            Answer::Listed | Answer::Item(_) => Err(ResolveError::Unavailable.into()),
        }
    }

    /// How long ago the read may have been that serves all of these.
    fn age_max(&self, wanted: &[Wanted<'_>]) -> Duration {
        let is_lasting = |(_, target, _): &Wanted<'_>| match target.facet {
            Facet::Value | Facet::OpensshKey => true,
            Facet::Otp | Facet::Seed => false,
        };
        let cache = self.options.value_cache.filter(|_| wanted.iter().all(is_lasting));
        self.options.share_window.max(cache.unwrap_or_default())
    }
}

/// Whether something else in the item has a file's id as its label. `op` asks for a file by a reference, which
/// means labels too: it could give the other's value.
fn is_label_of_another(item: &ItemOutline, file: &FieldOutline) -> bool {
    item.fields.iter().any(|other| other.id != file.id && other.label.eq_ignore_ascii_case(&file.id))
}

/// The answer to a grant whose target is no field; for the others, what is to be put in its place.
pub(super) fn without_field(grant: &Grant) -> Result<Resolved, ResolveFailure> {
    match &*grant.request().target {
        Target::Field(_) => Err(ResolveError::Unavailable.into()),
        Target::Unresolved { error, .. } => Err(error.clone().into()),
        Target::Unknown { failure, .. } => Err(failure.clone()),
    }
}

/// Whether a decision on `granted` holds for `now`. A name that stands for one thing alone permits more than
/// one that does not, so it must not have become one that does not.
fn is_covered(now: &FieldTarget, granted: &FieldTarget) -> bool {
    let vault_is_unique = now.vault.name_is_unique;
    let item_is_unique = now.item.name_is_unique;
    let mut as_strict = now.clone();
    as_strict.vault.name_is_unique = vault_is_unique && granted.vault.name_is_unique;
    as_strict.item.name_is_unique = item_is_unique && granted.item.name_is_unique;
    as_strict == *granted
}

/// The errors that another read of the item may not have.
fn is_about_the_item(error: &ResolveError) -> bool {
    matches!(
        error,
        ResolveError::Changed
            | ResolveError::FieldNotFound
            | ResolveError::ItemNotFound
            | ResolveError::ItemNotActive
            | ResolveError::VaultNotFound
    )
}
