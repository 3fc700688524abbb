//! See `fuzz/fuzzed/src/manifest.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_fuzzed::feed("manifest", bytes));
