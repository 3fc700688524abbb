//! `petrel-tender`: see the library of the same package.
#![no_main]

use std::ffi::{c_char, c_int};

/// Where the C library starts a program. Rust's own start, which would come in between, reads files and installs handlers
/// for the sake of its threads' stacks: a fifth of all the time that it takes to start a guest.
// SAFETY: this is the symbol's meaning and type.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    petrel_tender::main(std::env::args_os(), |_| ())
}
