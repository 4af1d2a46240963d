//! A search for secrets where none may be: whole, in part, in capitals, or in another form.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use data_encoding::{BASE64, HEXLOWER};
use tonic::Status;

/// Secrets, and the places where they were found.
pub struct Hunt {
    /// Every run of so many bytes of a secret, in lower case, and whose it is.
    short: HashMap<[u8; SHORT], String>,
    /// The same of its bytes as numbers, as a derived `Debug` prints them.
    long: HashMap<[u8; LONG], String>,
    /// Whether any run has such a [`sieve`]: nearly all of a text has none, and is passed over at once.
    likely: Vec<bool>,
    found: Vec<String>,
    searched: usize,
}

impl Default for Hunt {
    fn default() -> Self {
        let likely = vec![false; usize::from(u16::MAX) + 1];
        Self { short: HashMap::new(), long: HashMap::new(), likely, found: Vec::new(), searched: 0 }
    }
}

impl Hunt {
    /// Hunts for a secret from now on.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        let mut forms = vec![secret.to_ascii_lowercase(), HEXLOWER.encode(secret).into_bytes()];
        // Base64 has three forms, by where the secret begins in what was encoded.
        for skip in 0..3 {
            let whole = secret.get(skip..).unwrap_or_default();
            let whole = whole.get(..whole.len() / 3 * 3).unwrap_or_default();
            forms.push(BASE64.encode(whole).to_ascii_lowercase().into_bytes());
        }
        for run in forms.iter().flat_map(|form| form.array_windows::<SHORT>()) {
            self.expect(*run);
            self.short.insert(*run, name.to_owned());
        }
        let numbers = format!("{secret:?}");
        for run in numbers.as_bytes().array_windows::<LONG>() {
            self.expect(*run);
            self.long.insert(*run, name.to_owned());
        }
    }

    /// Hunts for what is secret in a handle or a token.
    pub fn add_bearer(&mut self, name: &str, bearer: &str) {
        if let Some((_, secret)) = bearer.rsplit_once('_') {
            self.add(name, secret.as_bytes());
        }
    }

    /// Searches a place.
    pub fn search(&mut self, place: &str, text: impl AsRef<[u8]>) {
        let text = text.as_ref().to_ascii_lowercase();
        let likely = |run: &[u8]| self.likely.get(sieve(run)) == Some(&true);
        let found = (0..text.len()).map(|at| text.get(at..).unwrap_or_default()).filter(|rest| likely(rest));
        let mut found = found.filter_map(|rest| {
            let short = rest.first_chunk().and_then(|run| self.short.get(run));
            short.or_else(|| rest.first_chunk().and_then(|run| self.long.get(run)))
        });
        if let Some(name) = found.next() {
            self.found.push(format!("{name} in {place}"));
        }
        self.searched += 1;
    }

    /// Searches all that a status carries.
    pub fn search_status(&mut self, what: &str, status: &Status) {
        self.search(&format!("the status of {what}"), format!("{status:?} {status} {:?}", status.metadata()));
        self.search(&format!("the details of the status of {what}"), status.details());
    }

    /// Searches the bytes of every file below a directory, but those named.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn search_files(&mut self, directory: &Path, but: &[&str]) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                self.search_files(&path, but)?;
            } else if !but.iter().any(|name| path.ends_with(name)) {
                self.search(&path.display().to_string(), fs::read(&path)?);
            }
        }
        Ok(())
    }

    fn expect<const LENGTH: usize>(&mut self, run: [u8; LENGTH]) {
        if let Some(likely) = self.likely.get_mut(sieve(&run)) {
            *likely = true;
        }
    }

    /// Where secrets were found, and in how many places they were looked for.
    #[must_use]
    pub fn found(&self) -> (&[String], usize) {
        (&self.found, self.searched)
    }
}

/// Some bits of the beginning of a run.
fn sieve(run: &[u8]) -> usize {
    match run {
        [one, two, three, four, ..] => {
            let mixed = u32::from_le_bytes([*one, *two, *three, *four]).wrapping_mul(0x9e37_79b1);
            (mixed >> 16) as usize
        }
        _ => 0,
    }
}

/// 60 bits of a handle; no run of this length is there by chance.
const SHORT: usize = 12;
/// At least six numbers.
const LONG: usize = 30;
