//! A handle parses or not; where it does, exactly one text stands for it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use valetkey_core::Handle;

fuzz_target!(|text: &str| {
    if let Ok(handle) = Handle::parse(text) {
        assert_eq!(*handle.expose_secret(), text);
        assert!(text.starts_with(&handle.id().to_string()));
    }
});
