//! What `valetkey doctor` says of the sources of a configuration. The checks are beside each source; this gives
//! them what the configuration says.

use std::ffi::OsString;

use valetkey_onepassword::Check;

use crate::clock::SystemClock;
use crate::config::{SourceConfig, SourceKind};
use crate::sources;

/// Looks at one source; asks it the least that proves it works. `environment` is a look-up of variables.
pub async fn source_checks(
    source: &SourceConfig,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Vec<Check> {
    match &source.kind {
        SourceKind::File { file: _, open_to_others: _ } => vec![vault_file(source)],
        kind @ (SourceKind::Sdk { .. } | SourceKind::Connect { .. } | SourceKind::Op { .. }) => {
            let _ = environment;
            vec![Check::fail("source", kind.summary(), "this version cannot use it yet")]
        }
    }
}

fn vault_file(source: &SourceConfig) -> Check {
    let opened = sources::open(std::slice::from_ref(source), std::sync::Arc::new(SystemClock::default()));
    let found = opened.map(|_| source.kind.summary());
    Check::of("vault file", found, "mend it; docs/vault-file.md says what stands in it")
}
