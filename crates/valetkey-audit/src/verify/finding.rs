//! What can be wrong with a log, and the words for it.

use std::fmt::Display;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The records concerned, from the first to the last; absent where none in particular are.
    pub records: Option<(u64, u64)>,
    /// All of it, as one sentence.
    pub text: String,
}

/// Kinds of findings. More may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// A record is not what it was.
    Changed,
    /// Records are not there.
    Missing,
    /// A record was taken out, and the later ones were numbered anew.
    Removed,
    /// A record was put in.
    Inserted,
    /// A record stands in another's place.
    Moved,
    /// An outcome has no record.
    Orphan,
    /// Somewhere among these records something was changed, and what would name it too.
    Between,
    /// Tables of the tree were changed.
    Tree,
    /// A checkpoint is not to be believed.
    Checkpoint,
    /// There were more records.
    RolledBack,
    /// Tables or triggers are not those of valetkey.
    Schema,
    /// The file is damaged.
    Damaged,
    /// Records are gone, and the log does not say why.
    Retired,
}

impl FindingKind {
    /// Whether the records after it have other numbers.
    pub(crate) fn shifts(self) -> bool {
        matches!(self, Self::Removed | Self::Inserted)
    }

    /// Its name for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Moved => "moved",
            Self::Orphan => "orphan",
            Self::Between => "between",
            Self::Tree => "tree",
            Self::Checkpoint => "checkpoint",
            Self::RolledBack => "rolled_back",
            Self::Schema => "schema",
            Self::Damaged => "damaged",
            Self::Retired => "retired",
        }
    }
}

impl Finding {
    /// About one record.
    pub(crate) fn record(kind: FindingKind, record: u64, what: impl Display) -> Self {
        Self { kind, records: Some((record, record)), text: format!("record {record} {what}") }
    }

    /// About some records, `first` to `last`.
    pub(crate) fn records(kind: FindingKind, (first, last): (u64, u64), what: impl Display) -> Self {
        let text = match first == last {
            true => format!("record {first} {what}"),
            false => format!("records {first} to {last} {what}"),
        };
        Self { kind, records: Some((first, last)), text }
    }

    /// About records between two checkpoints, of which no more can be said.
    pub(crate) fn between((first, last): (u64, u64), why: impl Display) -> Self {
        let what = if first == last { "is not the one that was" } else { "are not those that were" };
        Self::records(FindingKind::Between, (first, last), format!("{what} signed: {why}"))
    }

    /// Whether the first record concerned is one of the first `size`.
    pub(crate) fn begins_within(&self, size: u64) -> bool {
        self.records.is_some_and(|(first, _)| first <= size)
    }

    fn is_missing_up_to(&self, record: u64) -> bool {
        self.kind == FindingKind::Missing && self.records.is_some_and(|(_, last)| last == record)
    }

    /// About no record in particular.
    pub(crate) fn general(kind: FindingKind, text: impl Into<String>) -> Self {
        Self { kind, records: None, text: text.into() }
    }
}

/// Findings, up to a bound.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) list: Vec<Finding>,
    pub(crate) more: bool,
}

impl Findings {
    /// Adds records that are not there; together with those before them, where these are not there either.
    pub(crate) fn add_missing(&mut self, first: u64, last: u64) {
        let before = self.list.pop_if(|before| before.is_missing_up_to(first - 1));
        let first = before.and_then(|before| before.records).map_or(first, |(first, _)| first);
        let what = if first == last { "is missing" } else { "are missing" };
        self.add(Finding::records(FindingKind::Missing, (first, last), what));
    }

    /// Whether there is no place for more.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= FINDINGS_MAX
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        if self.is_full() {
            self.more = true;
        } else {
            self.list.push(finding);
        }
    }
}

const FINDINGS_MAX: usize = 20;
