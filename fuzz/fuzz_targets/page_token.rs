//! A page token parses or not; where it does, exactly one text stands for it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use valetkey_audit::{Filter, PageToken};

fuzz_target!(|text: &str| {
    let filter = Filter::default();
    if let Ok(token) = PageToken::parse(text, &filter) {
        assert_eq!(token.encode(&filter), text);
    }
});
