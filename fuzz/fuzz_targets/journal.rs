//! See `fuzz/fuzzed/src/journal.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_fuzzed::feed("journal", bytes));
