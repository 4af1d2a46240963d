//! Sets of the records of one chunk, and how they are kept.
//!
//! ```text
//! offsets: 0, then each offset in two bytes, ascending     where there are few
//!          1, then a bit for each record of the chunk      where there are many
//! marks:   256 ends in two bytes, by the first byte of the mark; then the other two bytes of each mark and its offset
//! ```
//!
//! All numbers are little endian. What does not read so is damaged, and says so.

/// A set of offsets within a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set of a chunk of this size.
    pub(super) fn none(size: u64) -> Self {
        Self(vec![0; words(size)])
    }

    /// All of the first `size` offsets.
    pub(super) fn all(size: u64) -> Self {
        let mut all = Self(vec![u64::MAX; words(size)]);
        all.keep_below(size);
        all
    }

    pub(super) fn insert(&mut self, offset: u16) {
        if let Some(word) = self.0.get_mut(usize::from(offset) / 64) {
            *word |= 1 << (offset % 64);
        }
    }

    pub(super) fn and(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    pub(super) fn and_not(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Takes out the offsets from `end` on.
    pub(super) fn keep_below(&mut self, end: u64) {
        for (word, start) in self.0.iter_mut().zip((0u64..).step_by(64)) {
            match end.saturating_sub(start) {
                0 => *word = 0,
                left @ 1..64 => *word &= (1 << left) - 1,
                _ => {}
            }
        }
    }

    /// Takes out the offsets before `start`.
    pub(super) fn keep_from(&mut self, start: u64) {
        let mut before = Self(vec![u64::MAX; self.0.len()]);
        before.keep_below(start);
        self.and_not(&before);
    }

    /// Its offsets, ascending.
    pub(super) fn offsets(&self) -> Vec<u16> {
        let mut offsets = Vec::with_capacity(self.count());
        for (word, start) in self.0.iter().zip((0u16..).step_by(64)) {
            let mut left = *word;
            while left != 0 {
                offsets.push(start.saturating_add(u16::try_from(left.trailing_zeros()).unwrap_or_default()));
                left &= left - 1;
            }
        }
        offsets
    }

    /// Adds what [`encode`] made. `None` where it made nothing like that.
    pub(super) fn add_encoded(&mut self, bytes: &[u8]) -> Option<()> {
        match bytes.split_first()? {
            (0, list) => {
                let (pairs, rest) = list.as_chunks::<2>();
                pairs.iter().for_each(|pair| self.insert(u16::from_le_bytes(*pair)));
                rest.is_empty().then_some(())
            }
            (1, bitmap) => {
                let (words, rest) = bitmap.as_chunks::<8>();
                if words.len() != self.0.len() || !rest.is_empty() {
                    return None;
                }
                let words = words.iter().map(|word| u64::from_le_bytes(*word));
                self.0.iter_mut().zip(words).for_each(|(word, other)| *word |= other);
                Some(())
            }
            _ => None,
        }
    }
}

/// Offsets, ascending, in the shorter of the two forms.
pub(super) fn encode(offsets: &[u16], size: u64) -> Vec<u8> {
    if offsets.len() * 2 < words(size) * 8 {
        return std::iter::once(0).chain(offsets.iter().flat_map(|offset| offset.to_le_bytes())).collect();
    }
    let mut bits = Bits::none(size);
    offsets.iter().for_each(|offset| bits.insert(*offset));
    std::iter::once(1).chain(bits.0.iter().flat_map(|word| word.to_le_bytes())).collect()
}

/// Marks of 24 bits with their offsets.
pub(super) fn encode_marks(mut marks: Vec<(u32, u16)>) -> Vec<u8> {
    marks.sort_unstable();
    let first = |mark: u32| (mark >> 16) as u8;
    let mut bytes = Vec::with_capacity(ENDS_BYTES + marks.len() * ENTRY_BYTES);
    let mut end = 0u16;
    for bucket in 0..=u8::MAX {
        let rest = marks.get(usize::from(end)..).unwrap_or_default();
        let inside = rest.iter().take_while(|(mark, _)| first(*mark) == bucket).count();
        end = end.saturating_add(u16::try_from(inside).unwrap_or(u16::MAX));
        bytes.extend(end.to_le_bytes());
    }
    for (mark, offset) in marks {
        bytes.extend((mark as u16).to_le_bytes());
        bytes.extend(offset.to_le_bytes());
    }
    bytes
}

/// Where the ends are from which [`bucket`] is told: place and length.
pub(super) fn ends_of(mark: u32) -> (usize, usize) {
    let bucket = usize::try_from(mark >> 16).unwrap_or_default() & 0xFF;
    // With the end of the bucket before, except for the first, which begins at 0.
    if bucket == 0 { (0, 2) } else { ((bucket - 1) * 2, 4) }
}

/// Where the entries are among which a mark's are: place and length.
pub(super) fn bucket(ends: &[u8]) -> Option<(usize, usize)> {
    let (pairs, _) = ends.as_chunks::<2>();
    let (start, end) = match pairs {
        [end] => (0, u16::from_le_bytes(*end)),
        [start, end] => (u16::from_le_bytes(*start), u16::from_le_bytes(*end)),
        _ => return None,
    };
    let count = usize::from(end.checked_sub(start)?);
    Some((ENDS_BYTES + usize::from(start) * ENTRY_BYTES, count * ENTRY_BYTES))
}

/// Adds the offsets of a mark from its bucket.
pub(super) fn add_marked(bits: &mut Bits, bucket: &[u8], mark: u32) {
    let (entries, _) = bucket.as_chunks::<ENTRY_BYTES>();
    for [a, b, c, d] in entries {
        if u16::from_le_bytes([*a, *b]) == mark as u16 {
            bits.insert(u16::from_le_bytes([*c, *d]));
        }
    }
}

fn words(size: u64) -> usize {
    usize::try_from(size.div_ceil(64)).unwrap_or_default()
}

const ENDS_BYTES: usize = 512;
const ENTRY_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(offsets: &BTreeSet<u16>) -> Bits {
        let mut bits = Bits::none(SIZE);
        offsets.iter().for_each(|offset| bits.insert(*offset));
        bits
    }

    fn offsets() -> impl Strategy<Value = BTreeSet<u16>> {
        prop_oneof![
            proptest::collection::btree_set(0..SIZE as u16, 0..20),
            proptest::collection::btree_set(0..SIZE as u16, 0..200),
        ]
    }

    const SIZE: u64 = 200;

    proptest! {
        #[test]
        fn sets_are_sets(one in offsets(), other in offsets(), end in 0u64..260) {
            let check = |bits: Bits, expected: Vec<u16>| {
                assert_eq!(bits.offsets(), expected);
                assert_eq!((bits.count(), bits.is_empty()), (expected.len(), expected.is_empty()));
            };
            let with = |change: &dyn Fn(&mut Bits)| { let mut bits = set(&one); change(&mut bits); bits };
            check(with(&|_| {}), one.iter().copied().collect());
            check(with(&|bits| bits.and(&set(&other))), one.intersection(&other).copied().collect());
            check(with(&|bits| bits.and_not(&set(&other))), one.difference(&other).copied().collect());
            let below = |offset: &&u16| u64::from(**offset) < end;
            check(with(&|bits| bits.keep_below(end)), one.iter().filter(below).copied().collect());
            check(with(&|bits| bits.keep_from(end)), one.iter().filter(|it| !below(it)).copied().collect());
            let list: Vec<u16> = other.iter().copied().collect();
            check(with(&|bits| bits.add_encoded(&encode(&list, SIZE)).unwrap()), one.union(&other).copied().collect());
            assert_eq!(Bits::all(SIZE).count() as u64, SIZE);
        }

        #[test]
        fn marks_are_found(marks in proptest::collection::vec((0u32..1 << 24, 0u16..200), 0..300), other in 0u32..1 << 24) {
            let bytes = encode_marks(marks.clone());
            for mark in marks.iter().map(|(mark, _)| *mark).chain([other, 0, (1 << 24) - 1]) {
                let (place, length) = ends_of(mark);
                let (start, length) = bucket(&bytes[place..place + length]).unwrap();
                let mut bits = Bits::none(SIZE);
                add_marked(&mut bits, &bytes[start..start + length], mark);
                let expected: BTreeSet<u16> = marks.iter().filter(|(it, _)| *it == mark).map(|(_, at)| *at).collect();
                assert_eq!(bits.offsets(), expected.into_iter().collect::<Vec<_>>());
            }
        }

        #[test]
        fn nothing_that_is_read_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), mark in any::<u32>()) {
            let mut bits = Bits::none(SIZE);
            let _ = bits.add_encoded(&bytes);
            let _ = (bucket(&bytes), ends_of(mark));
            add_marked(&mut bits, &bytes, mark);
        }
    }
}
