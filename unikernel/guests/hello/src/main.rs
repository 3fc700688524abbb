//! Prints a greeting and its arguments: the smallest guest.

#![cfg_attr(target_os = "solo5", no_std, no_main)]
#![forbid(unsafe_code)]

use solo5::args::{self, Usage};
use solo5::println;

solo5::manifest! {}
solo5::main!(run);

fn run() -> Result<(), Usage> {
    let arguments = args::list()?;
    if arguments.iter().any(|argument| argument == "--help") {
        return Err(Usage::Help(
            "hello - Prints a greeting and its arguments.\n\nUsage: hello [ARGUMENT]...".into(),
        ));
    }
    println!("Hello from a Solo5 unikernel in Rust");
    for argument in arguments {
        println!("argument: {argument}");
    }
    Ok(())
}
