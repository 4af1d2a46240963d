use super::*;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{InclusionProof, RootHash};
use data_encoding::HEXLOWER;
use proptest::prelude::*;
use std::convert::Infallible;

/// The eight leaves that Certificate Transparency's own tests are made of, and the roots over the first of them.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
/// Leaf, size and path, from the same tests.
const PATHS: [(u64, u64, &[&str]); 3] = [
    (
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
];

fn hash(hex: &str) -> Hash {
    Hash(HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap())
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|n| Hash::leaf([&n.to_be_bytes(), b"leaf"])).collect()
}

/// The definition, word for word.
fn naive(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::empty(),
        [leaf] => *leaf,
        _ => {
            let mut middle = 1;
            while middle * 2 < leaves.len() {
                middle *= 2;
            }
            Hash::node(naive(&leaves[..middle]), naive(&leaves[middle..]))
        }
    }
}

fn of(leaves: &[Hash]) -> impl FnMut(Range<u64>) -> Result<Hash, Infallible> + '_ {
    |range| Ok(naive(&leaves[range.start as usize..range.end as usize]))
}

#[test]
fn roots_and_paths_are_those_of_certificate_transparency() {
    let leaves: Vec<_> =
        LEAVES.iter().map(|hex| Hash::leaf([&HEXLOWER.decode(hex.as_bytes()).unwrap(), &[]])).collect();
    let mut tree = Tree::default();
    assert_eq!(tree.root(), hash(ROOTS[0]));
    for (leaf, root) in leaves.iter().zip(&ROOTS[1..]) {
        assert_eq!(tree.push(*leaf), None);
        assert_eq!(tree.root(), hash(root));
    }
    for (index, size, path) in PATHS {
        let path: Vec<_> = path.iter().map(|hex| hash(hex)).collect();
        assert_eq!(inclusion(index, size, of(&leaves)), Ok(path.clone()));
        let root = root_of_inclusion(leaves[index as usize], index, size, &path);
        assert_eq!(root, Some(hash(ROOTS[size as usize])));
    }
}

/// A tree grows by leaves; blocks are told once, and make up the same tree.
#[test]
fn blocks_and_leaves_make_the_same_tree() {
    let leaves = leaves(3 * BLOCK + 2);
    let (mut tree, mut blocks) = (Tree::default(), Frontier::default());
    for (place, leaf) in (1..).zip(&leaves) {
        if let Some(block) = tree.push(*leaf) {
            assert_eq!((block.number + 1) * BLOCK, place);
            let of_block = &leaves[(place - BLOCK) as usize..place as usize];
            assert_eq!((block.hash, block.heads.len()), (naive(of_block), HEAD_BYTES * BLOCK as usize));
            blocks.push(BLOCK, block.hash);
        }
        assert_eq!(tree.size(), place);
        if place % 61 == 0 || place % BLOCK < 3 {
            assert_eq!(tree.root(), naive(&leaves[..place as usize]), "{place}");
        }
    }
    assert_eq!((blocks.size(), tree.heads().len()), (3 * BLOCK, 2 * HEAD_BYTES));
    let mut again = Tree::of_blocks(blocks);
    leaves[3 * BLOCK as usize..].iter().for_each(|leaf| drop(again.push(*leaf)));
    assert_eq!(again.root(), tree.root());
}

#[test]
fn every_leaf_of_every_small_tree_is_proven_and_nothing_else() {
    let leaves = leaves(67);
    for size in (1..=34).chain([63, 64, 65, 67]) {
        let root = naive(&leaves[..size as usize]);
        for index in 0..size {
            let leaf = leaves[index as usize];
            let mut proof = inclusion(index, size, of(&leaves)).unwrap();
            assert_eq!(root_of_inclusion(leaf, index, size, &proof), Some(root));
            assert_ne!(
                root_of_inclusion(leaves[66], index, size, &proof),
                Some(root).filter(|_| index != 66)
            );
            if let Some(other) = (0..size).find(|other| *other != index) {
                assert_ne!(root_of_inclusion(leaf, other, size, &proof), Some(root), "{index} as {other}");
            }
            proof.push(leaf);
            assert_eq!(root_of_inclusion(leaf, index, size, &proof), None);
        }
        assert_eq!(root_of_inclusion(root, size, size, &[]), None);
    }
}

proptest! {
    /// Somebody else's implementation agrees, in roots and in proofs.
    #[test]
    fn ct_merkle_agrees(size in 1_u64..700, place in any::<prop::sample::Index>()) {
        let index = place.index(size as usize);
        let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut ours = Tree::default();
        let mut hashes = Vec::new();
        for n in 0..size {
            theirs.push(n.to_be_bytes().to_vec());
            hashes.push(Hash::leaf([&n.to_be_bytes(), &[]]));
            ours.push(hashes[n as usize]);
        }
        prop_assert_eq!(theirs.root().as_bytes().to_vec(), ours.root().0.to_vec());
        let proof = inclusion(index as u64, size, of(&hashes)).unwrap();
        let bytes: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
        let proof_of_theirs = theirs.prove_inclusion(index);
        prop_assert_eq!(proof_of_theirs.as_bytes(), bytes.as_slice());
        let root = RootHash::<Sha256>::new(ours.root().0.into(), size);
        let proof = InclusionProof::try_from_bytes(bytes).unwrap();
        prop_assert!(root.verify_inclusion(&theirs.get(index).unwrap(), index as u64, &proof).is_ok());
    }

    /// The leaves of a range between the subtrees around it make up the tree.
    #[test]
    fn a_range_and_what_is_around_it_make_the_tree(size in 1_u64..700, ends in any::<[prop::sample::Index; 2]>()) {
        let [one, other] = ends.map(|end| end.index(size as usize) as u64);
        let range = one.min(other)..one.max(other) + 1;
        let leaves = leaves(size);
        let around = around(&range, size);
        prop_assert!(around.len() < 24);
        let mut frontier = Frontier::default();
        let mut push = |part: Range<u64>| frontier.push(part.end - part.start, naive(&leaves[part.start as usize..part.end as usize]));
        around.iter().filter(|part| part.end <= range.start).cloned().for_each(&mut push);
        range.clone().map(|index| index..index + 1).for_each(&mut push);
        around.iter().filter(|part| part.start >= range.end).cloned().for_each(&mut push);
        prop_assert_eq!(frontier.size(), size);
        prop_assert_eq!(frontier.root(), naive(&leaves));
    }
}
