//! Policy files, changed as an editor that means well changes them.

use anyhow::{Context, Result};

use crate::TestBroker;

impl TestBroker {
    /// Puts a policy file in place, whole at once: the broker watches, and must not find half of it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn put_policies(&self, name: &str, text: &str) -> Result<()> {
        let whole = self.dir.path().join(name);
        std::fs::write(&whole, text)?;
        Ok(std::fs::rename(whole, self.dir.path().join("policies").join(name))?)
    }

    /// Replaces every `from` in a policy file by `to`.
    ///
    /// # Errors
    /// Where there is no `from` in it.
    pub fn edit_policies(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let text = std::fs::read_to_string(self.dir.path().join("policies").join(name))?;
        let edited = text.replace(from, to);
        (text != edited).then_some(()).with_context(|| format!("`{from}` is not in {name}"))?;
        self.put_policies(name, &edited)
    }
}
