//! A filter of the audit log parses or not; where it does, what it shows of itself means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use valetkey_audit::Filter;

fuzz_target!(|text: &str| {
    if let Ok(filter) = Filter::parse(text) {
        assert_eq!(Filter::parse(filter.as_str()), Ok(filter));
    }
});
