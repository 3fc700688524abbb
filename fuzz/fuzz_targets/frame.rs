//! See `fuzz/fuzzed/src/frame.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_fuzzed::feed("frame", bytes));
