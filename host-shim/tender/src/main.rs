//! `petrel-tender`: see the library of the same package.

use std::process::ExitCode;

fn main() -> ExitCode {
    petrel_tender::main(std::env::args_os(), |_| ())
}
