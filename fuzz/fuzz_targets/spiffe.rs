//! A SPIFFE id parses or not; where it does, it is in its one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use valetkey_core::{SpiffeId, SpiffePattern};

fuzz_target!(|text: &str| {
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert!(text.strip_prefix("spiffe://").is_some_and(|rest| rest.starts_with(id.trust_domain())));
    }
    let _ = SpiffePattern::parse(text);
});
