//! A secret reference parses or not; where it does, it prints as it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use valetkey_core::SecretReference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = SecretReference::parse(text) {
        assert_eq!(reference.to_string(), text);
        assert_eq!(SecretReference::parse(&reference.to_string()), Ok(reference));
    }
});
