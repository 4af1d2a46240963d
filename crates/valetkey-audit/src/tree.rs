//! The Merkle tree of RFC 6962 over the records' leaves: roots, inclusion proofs, proofs of ranges.
//!
//! Arithmetic alone: where leaves and blocks come from is `blocks.rs`. Nothing here holds more than one hash for each
//! level of the tree, and the heads of one block.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// The hash of a leaf, of a subtree, or of the whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Of a leaf, by what it is made of.
    pub(crate) fn leaf(parts: [&[u8]; 2]) -> Self {
        let [first, second] = parts;
        Self(Sha256::new().chain_update([0]).chain_update(first).chain_update(second).finalize().into())
    }

    /// Of two subtrees.
    fn node(left: Self, right: Self) -> Self {
        Self(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
    }

    /// Of the tree without leaves.
    fn empty() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// What is kept of a leaf's hash to name it.
    pub(crate) fn head(&self) -> Head {
        let [a, b, c, d, e, f, g, ..] = self.0;
        [a, b, c, d, e, f, g]
    }
}

/// The first bytes of a leaf's hash.
pub(crate) type Head = [u8; HEAD_BYTES];

/// The right edge of a tree: its whole subtrees, from left to right, each with how many leaves it has.
#[derive(Clone, Default)]
pub(crate) struct Frontier(Vec<(u64, Hash)>);

impl Frontier {
    /// Adds a subtree of `leaves` leaves at the right. It must be one that RFC 6962 has there: a power of two that
    /// divides what is at its left, or all the rest of the tree.
    pub(crate) fn push(&mut self, leaves: u64, hash: Hash) {
        let (mut leaves, mut hash) = (leaves, hash);
        while leaves.is_power_of_two()
            && let Some((before, left)) = self.0.pop_if(|(before, _)| *before == leaves)
        {
            (leaves, hash) = (leaves + before, Hash::node(left, hash));
        }
        self.0.push((leaves, hash));
    }

    /// How many leaves there are.
    pub(crate) fn size(&self) -> u64 {
        self.0.iter().map(|(leaves, _)| leaves).sum()
    }

    /// The root.
    pub(crate) fn root(&self) -> Hash {
        self.root_with(&Self::default())
    }

    /// The root with more at the right.
    pub(crate) fn root_with(&self, more: &Self) -> Hash {
        let subtrees = self.0.iter().chain(&more.0).rev().map(|(_, hash)| *hash);
        subtrees.reduce(|right, left| Hash::node(left, right)).unwrap_or_else(Hash::empty)
    }
}

/// A tree that grows by leaves and tells of each block that becomes whole.
#[derive(Clone, Default)]
pub(crate) struct Tree {
    /// The whole blocks.
    blocks: Frontier,
    /// The leaves after them.
    rest: Frontier,
    /// Their heads.
    heads: Vec<u8>,
}

/// 256 leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its number, from 0.
    pub(crate) number: u64,
    /// The heads of its leaves, one after the other.
    pub(crate) heads: Vec<u8>,
    /// Its root.
    pub(crate) hash: Hash,
}

impl Tree {
    /// A tree that has whole blocks so far.
    pub(crate) fn of_blocks(blocks: Frontier) -> Self {
        Self { blocks, ..Self::default() }
    }

    /// Adds a leaf; the block that it completes.
    pub(crate) fn push(&mut self, leaf: Hash) -> Option<Block> {
        self.rest.push(1, leaf);
        self.heads.extend(leaf.head());
        if self.rest.size() < BLOCK {
            return None;
        }
        let number = self.blocks.size() / BLOCK;
        let hash = std::mem::take(&mut self.rest).root();
        self.blocks.push(BLOCK, hash);
        Some(Block { number, heads: std::mem::take(&mut self.heads), hash })
    }

    /// How many leaves there are.
    pub(crate) fn size(&self) -> u64 {
        self.blocks.size() + self.rest.size()
    }

    /// The root.
    pub(crate) fn root(&self) -> Hash {
        self.blocks.root_with(&self.rest)
    }

    /// The heads of the leaves after the last whole block.
    pub(crate) fn heads(&self) -> &[u8] {
        &self.heads
    }
}

/// The inclusion proof of the leaf at `index` in a tree of `size` leaves, from the leaf's sibling up, as in RFC 6962,
/// section 2.1.1. `subtree` gives the hash of a range of leaves. `index` must be before `size`.
pub(crate) fn inclusion<E>(
    index: u64,
    size: u64,
    mut subtree: impl FnMut(Range<u64>) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (_, siblings) = way_down(index, size);
    siblings.into_iter().rev().map(|(_, sibling)| subtree(sibling)).collect()
}

/// The root that an inclusion proof leads to; `None` where it has not the length that it must have.
pub(crate) fn root_of_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    let (_, siblings) = (index < size).then(|| way_down(index, size))?;
    if siblings.len() != proof.len() {
        return None;
    }
    let steps = siblings.iter().rev().zip(proof);
    Some(steps.fold(leaf, |hash, ((side, _), sibling)| match side {
        Side::Left => Hash::node(*sibling, hash),
        Side::Right => Hash::node(hash, *sibling),
    }))
}

/// Where a sibling is.
enum Side {
    Left,
    Right,
}

/// The leaf's own place, and the siblings on the way down to it.
fn way_down(index: u64, size: u64) -> (Range<u64>, Vec<(Side, Range<u64>)>) {
    let (mut span, mut siblings) = (0..size, Vec::new());
    while span.end - span.start > 1 {
        let (left, right) = split(&span);
        let (inside, side, sibling) = match index < right.start {
            true => (left, Side::Right, right),
            false => (right, Side::Left, left),
        };
        siblings.push((side, sibling));
        span = inside;
    }
    (span, siblings)
}

/// The subtrees that, with the leaves of `range` in their place, make up a tree of `size` leaves; from left to right.
pub(crate) fn around(range: &Range<u64>, size: u64) -> Vec<Range<u64>> {
    let mut subtrees = Vec::new();
    collect_around(0..size, range, &mut subtrees);
    subtrees
}

fn collect_around(span: Range<u64>, range: &Range<u64>, subtrees: &mut Vec<Range<u64>>) {
    if span.end <= range.start || span.start >= range.end {
        subtrees.push(span);
    } else if span.start < range.start || span.end > range.end {
        let (left, right) = split(&span);
        collect_around(left, range, subtrees);
        collect_around(right, range, subtrees);
    }
}

/// A span of at least two leaves, where RFC 6962 splits it: at the largest power of two that is smaller.
fn split(span: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let leaves = span.end - span.start;
    let middle = span.start + leaves.next_power_of_two() / 2;
    (span.start..middle, middle..span.end)
}

/// Leaves in a block.
pub(crate) const BLOCK: u64 = 256;
/// Bytes of a head.
pub(crate) const HEAD_BYTES: usize = 7;

#[cfg(test)]
mod tests;
