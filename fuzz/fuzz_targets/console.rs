//! See `fuzz/fuzzed/src/console.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_fuzzed::feed("console", bytes));
