//! The files of a policy directory, read into memory within bounds.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::fault::{Fault, Source};

/// What was read. A file that could not be read is absent, and is a fault.
pub(crate) struct Files {
    pub(crate) schema: Option<Source>,
    /// By name.
    pub(crate) policies: Vec<Source>,
    pub(crate) entities: Option<Source>,
    pub(crate) faults: Vec<Fault>,
}

impl Files {
    pub(crate) fn read(directory: &Path) -> Self {
        let mut faults = Vec::new();
        let names = list(directory, POLICY_SUFFIX, &mut faults);
        let mut read = |name: &str| read_file(directory, name).map_err(|fault| faults.push(fault)).ok();
        let policies = names.iter().filter_map(|name| read(name)).collect();
        let (schema, entities) = (read(SCHEMA), read(ENTITIES));
        Self { schema, policies, entities, faults }
    }

    pub(crate) fn from_texts(schema: &str, policies: &[(&str, &str)], entities: &str) -> Self {
        let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
        let mut policies: Vec<Source> = policies.iter().map(|(name, text)| source(name, text)).collect();
        policies.sort_by(|one, two| one.name.cmp(&two.name));
        Self {
            schema: Some(source(SCHEMA, schema)),
            policies,
            entities: Some(source(ENTITIES, entities)),
            faults: Vec::new(),
        }
    }

    /// All of them as one text: before each its name and how many bytes it has, so that no two sets have the same text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for source in self.policies.iter().chain(&self.schema).chain(&self.entities) {
            let name = source.name.rsplit(['/', '\\']).next().unwrap_or(&source.name);
            text.push_str(&format!("==== {name:?} {}\n{}\n", source.text.len(), source.text));
        }
        text
    }
}

/// The revision of a set, of which this is the text: 16 hexadecimal digits.
#[must_use]
pub fn revision_of(text: &[u8]) -> String {
    digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The beginning of the SHA-256 of a set's text: its revision.
pub(crate) fn digest(text: &[u8]) -> [u8; 8] {
    let mut digest = [0; 8];
    digest.iter_mut().zip(Sha256::digest(text)).for_each(|(place, byte)| *place = byte);
    digest
}

/// The names of a directory's files with an ending, sorted.
pub(crate) fn list(directory: &Path, suffix: &str, faults: &mut Vec<Fault>) -> Vec<String> {
    let source = Source { name: directory.display().to_string(), text: String::new() };
    let unreadable = |error| source.fault(format!("the directory cannot be read: {error}"));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            faults.push(unreadable(error));
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry.map(|entry| entry.file_name().into_string()) {
            Ok(Ok(name)) if name.ends_with(suffix) => names.push(name),
            Ok(Ok(_)) => {}
            // It may be one of them: what cannot be told apart is not passed over.
            Ok(Err(name)) => {
                let name = name.to_string_lossy().escape_debug().to_string();
                faults.push(source.fault(format!("`{name}` is no UTF-8 file name")));
            }
            Err(error) => faults.push(unreadable(error)),
        }
        if names.len() > FILES_MAX {
            faults.push(source.fault(format!("more than {FILES_MAX} files `*{suffix}`")));
            return Vec::new();
        }
    }
    names.sort();
    names
}

/// Reads one file.
pub(crate) fn read_file(directory: &Path, name: &str) -> Result<Source, Fault> {
    let path = directory.join(name);
    let source = Source { name: path.display().to_string(), text: String::new() };
    let mut bytes = Vec::new();
    let read = open(&path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    match (read, String::from_utf8(bytes)) {
        (Err(error), _) => Err(source.fault(format!("the file cannot be read: {error}"))),
        (Ok(length), _) if length as u64 > FILE_MAX => {
            Err(source.fault(format!("the file is over {} MiB", FILE_MAX >> 20)))
        }
        (Ok(_), Err(error)) => Err(source.fault(format!("the file is no UTF-8 text: {error}"))),
        (Ok(_), Ok(text)) => Ok(Source { text, ..source }),
    }
}

/// Opens a regular file only. A pipe is not even opened: that waits until somebody writes, and a loader
/// that waits keeps the old policies for as long as that takes.
fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

pub(crate) const SCHEMA: &str = "schema.cedarschema";
pub(crate) const ENTITIES: &str = "entities.json";
const POLICY_SUFFIX: &str = ".cedar";
const FILE_MAX: u64 = 4 << 20;
const FILES_MAX: usize = 1_000;
