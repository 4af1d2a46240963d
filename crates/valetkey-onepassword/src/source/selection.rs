//! Which vaults a source serves: those that its configuration names, and no other that it can see.

use std::collections::HashSet;
use std::sync::Arc;

use crate::item::{Vault, is_id};
use crate::names::Names;

/// The vaults that the configuration names, by id or, in any case, by name.
pub(super) struct Selection {
    ids: HashSet<Arc<str>>,
    /// In lower case.
    names: HashSet<Arc<str>>,
}

impl Selection {
    /// What has the form of an id is one.
    pub(super) fn new(words: &[Arc<str>]) -> Self {
        let (ids, names): (Vec<_>, Vec<_>) = words.iter().cloned().partition(|word| is_id(word));
        let names = names.iter().map(|name| name.to_lowercase().into());
        Self { ids: ids.into_iter().collect(), names: names.collect() }
    }

    pub(super) fn has(&self, vault: &Vault) -> bool {
        self.ids.contains(&vault.id) || self.names.contains(vault.name.to_lowercase().as_str())
    }

    /// Whether the word of a reference can mean a vault that is served, whatever vaults there are: an id may
    /// be that of a vault that is known by its name so far, and the other way about.
    pub(super) fn may_mean(&self, word: &str) -> bool {
        self.says(word) || !(if is_id(word) { self.names.is_empty() } else { self.ids.is_empty() })
    }

    /// Whether there may be a vault for `word` beside these: one that the configuration names is missing.
    pub(super) fn lacks(&self, word: &str, vaults: &Names) -> bool {
        let is_missing = |id: &Arc<str>| !vaults.has(id);
        let is_unborne = |name: &Arc<str>| !vaults.has_namesake(name, "");
        self.says(word) || self.ids.iter().any(is_missing) || self.names.iter().any(is_unborne)
    }

    fn says(&self, word: &str) -> bool {
        self.ids.contains(word) || self.names.contains(word.to_ascii_lowercase().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvv";
    const OTHER: &str = "wwwwwwwwwwwwwwwwwwwwwwwwww";

    fn selection(words: &[&str]) -> Selection {
        Selection::new(&words.iter().map(|word| Arc::from(*word)).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_served() {
        let check = |words: &[&str], id: &str, name: &str, served: bool| {
            let vault = Vault { id: id.into(), name: name.into() };
            assert_eq!(selection(words).has(&vault), served, "{words:?} {id} {name}");
        };
        check(&["Main"], ID, "MAIN", true);
        check(&["Main"], ID, "main ", false);
        check(&["Ärger"], ID, "ÄRGER", true);
        check(&[ID], ID, "x", true);
        check(&[ID], OTHER, ID, false);
        check(&[&ID.to_uppercase()], ID, "x", false);
        check(&[], ID, "x", false);
    }

    #[test]
    fn what_a_word_can_mean() {
        let check = |words: &[&str], word: &str, may: bool| {
            assert_eq!(selection(words).may_mean(word), may, "{words:?} {word}");
        };
        check(&["Main"], "mAIN", true);
        check(&["Main"], "other", false);
        check(&["Main"], ID, true);
        check(&[ID], ID, true);
        check(&[ID], OTHER, false);
        check(&[ID], "other", true);
        check(&["Main", ID], "other", true);
        check(&[], ID, false);
        check(&[], "main", false);
    }
}
