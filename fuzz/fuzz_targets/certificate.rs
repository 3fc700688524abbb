//! See `fuzz/fuzzed/src/certificate.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_fuzzed::feed("certificate", bytes));
