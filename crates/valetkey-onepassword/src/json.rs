//! JSON as a tree in wiped memory, and its reading with every fault noted at its place.
//!
//! A tree rather than derived types: those stop at the first fault, and their messages repeat what they
//! did not expect, which may be a secret. What has escapes passes through the parser's scratch buffer on
//! its way here, which is not wiped; nothing else of a value leaves the tree.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use valetkey_core::scrub;
use zeroize::Zeroizing;

/// A fault of a file and where it is. Never repeats a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultFault {
    /// The place, such as `items[3].fields[2].id`; keys are scrubbed.
    pub path: String,
    /// What is wrong with it, as the rest of a sentence.
    pub problem: &'static str,
}

/// Any JSON.
pub(crate) enum Node {
    Null,
    Bool(bool),
    /// A number; `None` where it is no unsigned integer.
    Number(Option<u64>),
    Text(Zeroizing<String>),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// An object whose keys are known and given once.
pub(crate) struct Object(Vec<(String, Node)>);

/// A place in the tree.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

/// The faults found so far. Readers note a fault and go on with something empty, so that one run finds
/// all; nothing that was read may be used before [`Faults::is_empty`] says so.
///
/// The default is for files that people write, where what is not known is a typing error.
#[derive(Default)]
pub(crate) struct Faults {
    found: Vec<VaultFault>,
    is_tolerant: bool,
}

impl Object {
    /// Takes a key's node out; `null` is as good as absent.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        let place = self.0.iter().position(|(known, _)| known == key)?;
        match self.0.swap_remove(place).1 {
            Node::Null => None,
            node => Some(node),
        }
    }
}

impl Path<'_> {
    /// The place of `key` in this one.
    pub(crate) fn key<'a>(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    /// The place of an element of this one.
    pub(crate) fn index(&self, index: usize) -> Path<'_> {
        Path::Index(self, index)
    }
}

impl Faults {
    /// For what a server says: newer ones than this code may say more, and people name things as they like.
    /// A path of its faults never repeats a key that is not known.
    pub(crate) fn tolerant() -> Self {
        Self { found: Vec::new(), is_tolerant: true }
    }

    pub(crate) fn is_tolerant(&self) -> bool {
        self.is_tolerant
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<VaultFault> {
        self.found
    }

    /// Notes a fault; those over the bound are dropped.
    pub(crate) fn note(&mut self, path: Path<'_>, problem: &'static str) {
        if self.found.len() < FAULTS_MAX {
            self.found.push(VaultFault { path: path.to_string(), problem });
        }
    }

    /// An object that has no keys but `known`, each once; of a server's, other keys are dropped.
    pub(crate) fn object(&mut self, node: Option<Node>, path: Path<'_>, known: &[&str]) -> Object {
        let mut entries = self.entries(node, path);
        if self.is_tolerant {
            entries.retain(|(key, _)| known.contains(&key.as_str()));
        }
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            self.note(path.key(key), "is no known key");
        }
        self.each_once(entries, path)
    }

    /// An object that may have any keys, each once: for what others write, and may add to.
    pub(crate) fn open_object(&mut self, node: Option<Node>, path: Path<'_>) -> Object {
        let entries = self.entries(node, path);
        self.each_once(entries, path)
    }

    fn entries(&mut self, node: Option<Node>, path: Path<'_>) -> Vec<(String, Node)> {
        match node {
            Some(Node::Object(entries)) => entries,
            Some(_) => {
                self.note(path, "must be an object");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn each_once(&mut self, entries: Vec<(String, Node)>, path: Path<'_>) -> Object {
        let mut seen = HashSet::new();
        for (key, _) in entries.iter().filter(|(key, _)| !seen.insert(key.as_str())) {
            self.note(path.key(key), "is given twice");
        }
        Object(entries)
    }

    /// A list of at most `max` elements; empty where it is absent.
    pub(crate) fn list(&mut self, node: Option<Node>, path: Path<'_>, max: usize) -> Vec<Node> {
        match node {
            None => Vec::new(),
            Some(Node::List(nodes)) if nodes.len() <= max => nodes,
            Some(Node::List(_)) => {
                self.note(path, "has too many elements");
                Vec::new()
            }
            Some(_) => {
                self.note(path, "must be a list");
                Vec::new()
            }
        }
    }

    /// Reads each element of a server's list. One that cannot be read is left out, so that it does not take
    /// the others with it; where none can, the list is none.
    pub(crate) fn each<T>(
        &mut self,
        nodes: Vec<Node>,
        path: Path<'_>,
        mut read: impl FnMut(&mut Self, Node, Path<'_>) -> T,
    ) -> Vec<(usize, T)> {
        let (mut entries, mut first) = (Vec::with_capacity(nodes.len()), None);
        for (index, node) in nodes.into_iter().enumerate() {
            let mut faults = Self::tolerant();
            let entry = read(&mut faults, node, path.index(index));
            match faults.found.pop() {
                None => entries.push((index, entry)),
                Some(fault) => {
                    tracing::debug!(%fault, "an entry of a list cannot be read, and is left out");
                    first = first.or(Some(fault));
                }
            }
        }
        if entries.is_empty() {
            self.found.extend(first);
        }
        entries
    }

    /// A text of at most `bytes_max`, or nothing.
    pub(crate) fn text(
        &mut self,
        node: Option<Node>,
        path: Path<'_>,
        bytes_max: usize,
    ) -> Option<Zeroizing<String>> {
        let problem = match node? {
            Node::Text(text) if text.len() <= bytes_max => return Some(text),
            Node::Text(_) => "is too long",
            _ => "must be a text",
        };
        self.note(path, problem);
        None
    }

    /// An unsigned integer, or nothing.
    pub(crate) fn number(&mut self, node: Option<Node>, path: Path<'_>) -> Option<u64> {
        if let Node::Number(Some(number)) = node? {
            return Some(number);
        }
        self.note(path, "must be an unsigned integer");
        None
    }

    /// A truth value; false where it is absent.
    pub(crate) fn flag(&mut self, node: Option<Node>, path: Path<'_>) -> bool {
        match node {
            None => false,
            Some(Node::Bool(flag)) => flag,
            Some(_) => {
                self.note(path, "must be `true` or `false`");
                false
            }
        }
    }
}

impl fmt::Display for VaultFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        write!(f, "`{path}` {problem}")
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(&scrub(key, KEY_SHOWN_MAX)),
            Path::Key(above, key) => write!(f, "{above}.{}", scrub(key, KEY_SHOWN_MAX)),
            Path::Index(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

/// Reads what a server or a program says. The failure is the rest of a sentence, and has only the place: the
/// parser's own message may repeat what it found there.
///
/// The number of values is bounded too: in the tree the shortest ones take twenty times their length.
pub(crate) fn answer(json: &[u8]) -> Result<Node, String> {
    let left = Cell::new(NODES_MAX);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let node = NodeVisitor { left: &left }.deserialize(&mut deserializer);
    let node = node.and_then(|node| deserializer.end().map(|()| node));
    node.map_err(|error| match left.get() {
        0 => format!("is JSON of more than {NODES_MAX} values"),
        _ => format!("is no JSON: see line {}, column {}", error.line(), error.column()),
    })
}

/// For what is bounded otherwise.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NodeVisitor { left: &Cell::new(usize::MAX) }.deserialize(deserializer)
    }
}

/// How many values there may still be.
#[derive(Clone, Copy)]
struct NodeVisitor<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for NodeVisitor<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        if left == 0 {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(Some(number)))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Number(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number(None))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(Zeroizing::new(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = elements.next_element_seed(self)? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(key) = entries.next_key()? {
            nodes.push((key, entries.next_value_seed(self)?));
        }
        Ok(Node::Object(nodes))
    }
}

/// More than anybody reads at once.
const FAULTS_MAX: usize = 100;
const KEY_SHOWN_MAX: usize = 64;
/// Ten thousand items, as many as are read, have some thirty each in a list.
const NODES_MAX: usize = 500_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str, read: impl Fn(&mut Faults, Node)) -> Vec<String> {
        let mut faults = Faults::default();
        read(&mut faults, serde_json::from_str(json).unwrap());
        faults.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_has_its_place() {
        let found =
            faults(r#"{"a":[{"b":1,"c":"x","b":2}],"d\u001b":null,"e":-1,"f":"long"}"#, |faults, node| {
                let mut object = faults.object(Some(node), Path::Root, &["a", "e", "f"]);
                let above = Path::Root.key("a");
                for (index, node) in faults.list(object.take("a"), above, 1).into_iter().enumerate() {
                    let mut inner = faults.object(Some(node), above.index(index), &["b"]);
                    assert!(faults.text(inner.take("b"), above.index(index).key("b"), 9).is_none());
                }
                faults.number(object.take("e"), Path::Root.key("e"));
                faults.text(object.take("f"), Path::Root.key("f"), 3);
            });
        let expected = [
            "`d\\u{1b}` is no known key",
            "`a[0].c` is no known key",
            "`a[0].b` is given twice",
            "`a[0].b` must be a text",
            "`e` must be an unsigned integer",
            "`f` is too long",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn of_a_server_unknown_keys_are_dropped_and_known_ones_still_given_once() {
        let mut faults = Faults::tolerant();
        let node = serde_json::from_str(r#"{"canary":1,"canary":2,"b":1,"b":2}"#).unwrap();
        let mut object = faults.object(Some(node), Path::Root, &["a", "b"]);
        assert!(object.take("canary").is_none() && object.take("a").is_none());
        let found: Vec<_> = faults.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["`b` is given twice"]);
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let check = |count: usize, expected: Option<&str>| {
            for json in
                [format!("[{}0]", "0,".repeat(count - 1)), format!("[{}{{}}]", "{},".repeat(count - 1))]
            {
                assert_eq!(answer(json.as_bytes()).err().as_deref(), expected, "{count}");
            }
        };
        check(NODES_MAX - 2, None);
        check(NODES_MAX, Some("is JSON of more than 500000 values"));
        let place = answer(b"[0,\n 0").err();
        assert_eq!(place.as_deref(), Some("is no JSON: see line 2, column 2"));
        assert!(answer(b"0 0").is_err());
    }

    #[test]
    fn the_number_of_faults_is_bounded() {
        let json = format!("{{{}}}", (0..500).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(","));
        let found = faults(&json, |faults, node| drop(faults.object(Some(node), Path::Root, &[])));
        assert_eq!(found.len(), FAULTS_MAX);
    }
}
