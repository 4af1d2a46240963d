//! Going through the leaves from left to right, and comparing them with all that is known of them.

use super::checkpoints::{Checkpoints, Known};
use super::finding::{Finding, FindingKind, Findings};
use super::{Proven, Verdict};
use crate::tree::{BLOCK, Frontier, HEAD_BYTES, Hash, Head};

/// What is stored of the tree, and how to look at what is not at hand.
pub(crate) trait Stored {
    /// The hash of a whole block.
    fn hash(&mut self, block: u64) -> rusqlite::Result<Option<Hash>>;
    /// The heads of its leaves, as far as they are known; also those after the last whole block.
    fn heads(&mut self, block: u64) -> rusqlite::Result<Vec<u8>>;
    /// The leaf of a record, wherever it is.
    fn leaf(&mut self, index: u64) -> rusqlite::Result<Option<Hash>>;
    /// Where a head is known to be.
    fn find(&mut self, head: Head) -> rusqlite::Result<Option<u64>>;
    /// Whether there must be a row for a block, because a later one or a checkpoint is there.
    fn expects(&self, block: u64) -> bool;
}

/// What stands in a record's place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A record, and this is its leaf.
    Leaf(Hash),
    /// Something that no broker writes.
    Unreadable,
    /// Nothing.
    Empty,
}

impl Place {
    fn leaf(self) -> Option<Hash> {
        match self {
            Self::Leaf(leaf) => Some(leaf),
            Self::Unreadable | Self::Empty => None,
        }
    }
}

/// How far it has come.
pub(crate) struct Walk<'a, S> {
    pub(crate) stored: S,
    checkpoints: Checkpoints<'a>,
    pub(crate) findings: Findings,
    /// The blocks before this one, as the records make them. A block that is known to be changed counts as it was.
    rows: Option<Frontier>,
    /// The same, as the tree's tables have them.
    tables: Option<Frontier>,
    /// The leaves of this block; `None` from the first on that is not known.
    rest: Option<Frontier>,
    /// Leaves so far.
    size: u64,
    /// What the last good checkpoint covers.
    good: u64,
    proven: Option<Proven>,
    checkpoint_count: u64,
    passed_over: u64,
    /// Something was found that no table names, or the numbers have moved: later checkpoints say nothing new.
    lost: bool,
    shifted: bool,
    /// What the heads after the last whole block say, until a checkpoint tells whether they or the records are right.
    held: Vec<Finding>,
}

impl<'a, S: Stored> Walk<'a, S> {
    pub(crate) fn new(stored: S, checkpoints: Checkpoints<'a>) -> Self {
        let (rows, tables, rest) =
            (Some(Frontier::default()), Some(Frontier::default()), Some(Frontier::default()));
        Self {
            stored,
            checkpoints,
            findings: Findings::default(),
            rows,
            tables,
            rest,
            size: 0,
            good: 0,
            proven: None,
            checkpoint_count: 0,
            passed_over: 0,
            lost: false,
            shifted: false,
            held: Vec::new(),
        }
    }

    /// Takes a block whose records are gone.
    pub(crate) fn pass(&mut self, block: u64) -> rusqlite::Result<()> {
        let hash = self.stored.hash(block)?;
        let inside = (block + 1) * BLOCK - 1;
        while self.checkpoints.next(inside, &mut self.findings)?.is_some() {
            self.passed_over += 1;
        }
        if hash.is_none() {
            self.miss(block);
        }
        for tree in [&mut self.rows, &mut self.tables] {
            *tree = tree.take().zip(hash).map(|(tree, hash)| with_block(tree, hash));
        }
        self.size = (block + 1) * BLOCK;
        self.compare()
    }

    /// Takes a block of leaves, or what there is of it.
    pub(crate) fn block(&mut self, block: u64, places: &[Place]) -> rusqlite::Result<()> {
        let begin = block * BLOCK;
        let leaves: Vec<_> = places.iter().map(|place| place.leaf()).collect();
        let (computed, stored) = (whole(&leaves), self.stored.hash(block)?);
        let (fault, found) = match self.shifted {
            true => (Some(0), Vec::new()),
            false => self.look_for_faults(block, &leaves, (computed, stored))?,
        };
        if !self.shifted {
            self.complain_of_places(begin, places);
        }
        found.into_iter().for_each(|finding| self.findings.add(finding));
        for (place, leaf) in leaves.iter().enumerate() {
            self.rest = self.rest.take().zip(*leaf).map(|(mut rest, leaf)| {
                rest.push(1, leaf);
                rest
            });
            self.size = begin + place as u64 + 1;
            if self.size.is_multiple_of(BLOCK) {
                return self.end_block(computed, stored, fault.is_some());
            }
            match fault.is_some_and(|fault| place >= fault) {
                true => self.pass_over()?,
                false => self.compare()?,
            }
        }
        Ok(())
    }

    /// Compares a block with what is stored of it. Its first leaf that is known not to be what it was, and what
    /// happened to its records.
    fn look_for_faults(
        &mut self,
        block: u64,
        leaves: &[Option<Hash>],
        (computed, stored): (Option<Hash>, Option<Hash>),
    ) -> rusqlite::Result<(Option<usize>, Vec<Finding>)> {
        let begin = block * BLOCK;
        let heads = self.stored.heads(block)?;
        let found = self.compare_heads(begin, leaves, &heads)?;
        if stored.is_none() && self.stored.expects(block) {
            self.miss(block);
        }
        let unknown = leaves.iter().position(Option::is_none);
        if computed.is_some() && computed == stored {
            // The records are right.
            if !found.is_empty() || heads.len() < leaves.len() * HEAD_BYTES {
                self.blame_heads(begin, leaves.len());
            }
            return Ok((unknown, Vec::new()));
        }
        let first = found.first().map(|(place, _)| *place);
        let shifts = |(_, finding): &(usize, Finding)| finding.kind.shifts();
        if stored.is_none() && leaves.len() as u64 != BLOCK {
            self.shifted |= found.iter().any(shifts) && unknown.is_some();
            self.held.extend(found.into_iter().map(|(_, finding)| finding));
            return Ok((unknown, Vec::new()));
        }
        if stored.is_some() && computed.is_some() && found.is_empty() {
            let what = "do not have the hash of their block: one of them was changed, or the hash";
            self.findings.add(Finding::records(FindingKind::Tree, (begin + 1, begin + BLOCK), what));
        }
        self.shifted |= found.iter().any(shifts);
        let found = found.into_iter().map(|(_, finding)| finding).collect();
        Ok((first.into_iter().chain(unknown).min(), found))
    }

    /// Says which records are not there, or are none.
    fn complain_of_places(&mut self, begin: u64, places: &[Place]) {
        for (record, place) in (begin + 1..).zip(places) {
            match place {
                Place::Leaf(_) => {}
                Place::Empty => self.findings.add_missing(record, record),
                Place::Unreadable => {
                    let what = "was changed: it cannot be read as a record";
                    self.findings.add(Finding::record(FindingKind::Changed, record, what));
                }
            }
        }
    }

    /// Moves on to the next block.
    fn end_block(
        &mut self,
        computed: Option<Hash>,
        stored: Option<Hash>,
        is_named: bool,
    ) -> rusqlite::Result<()> {
        let row = if is_named { stored } else { computed };
        self.rows = self.rows.take().zip(row).map(|(tree, hash)| with_block(tree, hash));
        self.tables = self.tables.take().zip(stored.or(computed)).map(|(tree, hash)| with_block(tree, hash));
        self.rest = Some(Frontier::default());
        self.compare()
    }

    /// Goes to a block far away: what is before it is not known.
    pub(crate) fn jump(&mut self) {
        (self.rows, self.tables, self.lost) = (None, None, true);
    }

    /// Ends the walk over the records `first` to `last`.
    pub(crate) fn end(mut self, first: u64, last: u64, known: u64) -> rusqlite::Result<Verdict> {
        self.held.drain(..).for_each(|finding| self.findings.add(finding));
        let mut covered: Option<Known> = None;
        while let Some(next) = self.checkpoints.next(u64::MAX, &mut self.findings)? {
            if next.size > known.max(last) {
                covered = Some(next);
            }
        }
        if let Some(Known { size, time, place, root: _ }) = covered {
            let of = time.map(|time| format!(" of {time}")).unwrap_or_default();
            let text = format!(
                "the log was rolled back: the checkpoint{of} in `{}` covers {size} records, and there are {last}",
                place.display()
            );
            let finding = Finding {
                records: Some((last + 1, size)),
                ..Finding::general(FindingKind::RolledBack, text)
            };
            self.findings.add(finding);
        }
        // Those of no record in particular come last.
        self.findings.list.sort_by_key(|finding| finding.records.map_or(u64::MAX, |(first, _)| first));
        let Self { findings: Findings { list, more }, proven, checkpoint_count, passed_over, .. } = self;
        Ok(Verdict {
            first,
            last,
            proven,
            checkpoints: checkpoint_count,
            checkpoints_passed_over: passed_over,
            beyond: None,
            findings: list,
            more,
        })
    }

    /// Compares the leaves so far with the checkpoints over them.
    fn compare(&mut self) -> rusqlite::Result<()> {
        while let Some(known) = self.checkpoints.next(self.size, &mut self.findings)? {
            self.compare_with(known);
        }
        Ok(())
    }

    fn compare_with(&mut self, known: Known) {
        let root = |tree: &Option<Frontier>| Some(tree.as_ref()?.root_with(self.rest.as_ref()?));
        let (rows, tables) = (root(&self.rows), root(&self.tables));
        let Known { size, root, time, place } = known;
        if size < self.size {
            self.passed_over += 1;
        } else if rows == Some(root) {
            if self.release_held(size).count() > 0 {
                let begin = (size - 1) / BLOCK * BLOCK;
                self.blame_heads(begin, usize::try_from(size - begin).unwrap_or_default());
            }
            self.good = size;
            self.checkpoint_count += 1;
            if self.findings.list.iter().all(|finding| finding.records.is_none()) {
                self.proven = Some(Proven { size, time, place });
            }
            self.tables.clone_from(&self.rows);
        } else if tables == Some(root) {
            self.good = size;
            self.rows.clone_from(&self.tables);
        } else if self.holds(size) {
            let held: Vec<_> = self.release_held(size).collect();
            held.into_iter().for_each(|finding| self.findings.add(finding));
            // Whatever else covers them does not match either.
            self.lost = true;
        } else if !self.lost && !self.shifted {
            self.lost = true;
            let good = match self.good {
                0 => "no checkpoint before it is good".to_owned(),
                good => format!("the one over {good} is good"),
            };
            let why = format!("the checkpoint over {size} does not match, {good}");
            self.findings.add(Finding::between((self.good + 1, size), why));
        }
    }

    /// Whether something is held against records up to `size`.
    fn holds(&self, size: u64) -> bool {
        self.held.iter().any(|finding| finding.begins_within(size))
    }

    fn release_held(&mut self, size: u64) -> impl Iterator<Item = Finding> {
        self.held.extract_if(.., move |finding| finding.begins_within(size))
    }

    /// Passes over the checkpoints that what was found already speaks against.
    fn pass_over(&mut self) -> rusqlite::Result<()> {
        while self.checkpoints.next(self.size, &mut self.findings)?.is_some() {}
        Ok(())
    }

    /// The leaves that do not have the heads that are known of them, by their places in the block.
    fn compare_heads(
        &mut self,
        begin: u64,
        leaves: &[Option<Hash>],
        heads: &[u8],
    ) -> rusqlite::Result<Vec<(usize, Finding)>> {
        let mut found = Vec::new();
        let (heads, _) = heads.as_chunks::<HEAD_BYTES>();
        for (place, (leaf, head)) in leaves.iter().zip(heads).enumerate() {
            let Some(leaf) = leaf.filter(|leaf| leaf.head() != *head) else { continue };
            let finding = self.classify(begin + place as u64, leaf, *head)?;
            let shifts = finding.kind.shifts();
            found.push((place, finding));
            if shifts {
                break;
            }
        }
        Ok(found)
    }

    /// What happened to a record that is not what its head says.
    fn classify(&mut self, index: u64, leaf: Hash, head: Head) -> rusqlite::Result<Finding> {
        let record = index + 1;
        let leaves = [Some(leaf.head()), self.leaf_head(index + 1)?, self.leaf_head(index + 2)?];
        let heads = [Some(head), self.head(index + 1)?, self.head(index + 2)?];
        let [leaf_here, leaf_next, leaf_after] = leaves;
        let [head_here, head_next, head_after] = heads;
        if leaf_here == head_next && leaf_next == head_after {
            let what = "was removed, and those after it have its number and the next ones";
            return Ok(Finding::record(FindingKind::Removed, record, what));
        }
        if leaf_next == head_here && leaf_after == head_next {
            let what = "was inserted, and those after it have moved on";
            return Ok(Finding::record(FindingKind::Inserted, record, what));
        }
        // Each search goes through the heads of the whole log: it is worth it for what is told alone.
        let found = if self.findings.is_full() { None } else { self.stored.find(leaf.head())? };
        Ok(match found {
            Some(other) if other != index => {
                let what = format!("was moved: what stands there is record {}'s", other + 1);
                Finding::record(FindingKind::Moved, record, what)
            }
            _ => Finding::record(FindingKind::Changed, record, "was changed"),
        })
    }

    fn leaf_head(&mut self, index: u64) -> rusqlite::Result<Option<Head>> {
        Ok(self.stored.leaf(index)?.map(|leaf| leaf.head()))
    }

    fn head(&mut self, index: u64) -> rusqlite::Result<Option<Head>> {
        let heads = self.stored.heads(index / BLOCK)?;
        let (heads, _) = heads.as_chunks::<HEAD_BYTES>();
        Ok(usize::try_from(index % BLOCK).ok().and_then(|place| heads.get(place)).copied())
    }

    fn blame_heads(&mut self, begin: u64, leaves: usize) {
        let (first, last) = (begin + 1, begin + leaves as u64);
        let text =
            format!("what the tree keeps to name the records {first} to {last} was changed; they are whole");
        self.findings.add(Finding { kind: FindingKind::Tree, records: Some((first, last)), text });
    }

    fn miss(&mut self, block: u64) {
        let what = "have no block in the tree: it was deleted";
        let records = (block * BLOCK + 1, (block + 1) * BLOCK);
        self.findings.add(Finding::records(FindingKind::Tree, records, what));
    }
}

fn with_block(mut tree: Frontier, hash: Hash) -> Frontier {
    tree.push(BLOCK, hash);
    tree
}

/// The hash of a block, where all of its leaves are known.
fn whole(leaves: &[Option<Hash>]) -> Option<Hash> {
    let mut block = Frontier::default();
    for leaf in leaves {
        block.push(1, (*leaf)?);
    }
    (block.size() == BLOCK).then(|| block.root())
}
