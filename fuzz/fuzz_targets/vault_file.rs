//! A vault file loads or not; the same readers take what servers answer. Its faults are one line.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use valetkey_core::testing::FakeClock;
use valetkey_onepassword::VaultFile;

fuzz_target!(|json: &[u8]| {
    if let Err(error) = VaultFile::from_json(json.to_vec(), Arc::new(FakeClock::default())) {
        assert!(!error.to_string().chars().any(char::is_control));
    }
});
