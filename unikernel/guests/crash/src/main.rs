//! Panics after a while: something for a supervisor to deal with.

#![cfg_attr(target_os = "solo5", no_std, no_main)]
#![forbid(unsafe_code)]

use core::convert::Infallible;
use solo5::args::{Command, Opt, Usage};
use solo5::{clock, println, yield_until};

solo5::manifest! {}
solo5::main!(run);

static COMMAND: Command = Command {
    name: "crash",
    about: "Prints a line, and panics after a while.",
    options: &[Opt {
        long: "after",
        short: None,
        value: "SECONDS",
        help: "How long to wait; 1 when absent.",
    }],
};

fn run() -> Result<Infallible, Usage> {
    let after_s: u32 = COMMAND.parse()?.value("after")?.unwrap_or(1);
    let deadline_ns = clock::monotonic_ns() + u64::from(after_s) * 1_000_000_000;
    println!("going to crash in {after_s} s");
    while clock::monotonic_ns() < deadline_ns {
        yield_until(deadline_ns);
    }
    panic!("crashed after {after_s} s, as asked to");
}
