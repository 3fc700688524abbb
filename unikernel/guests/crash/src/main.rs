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
    options: &[
        Opt { long: "after", short: None, value: "SECONDS", help: "How long to wait; 1 when absent." },
        Opt {
            long: "lines",
            short: None,
            value: "N",
            help: "How many lines to print before; 1 when absent.",
        },
    ],
};

fn run() -> Result<Infallible, Usage> {
    let options = COMMAND.parse()?;
    let after_s: u32 = options.value("after")?.unwrap_or(1);
    let lines: u32 = options.value("lines")?.unwrap_or(1);
    for line in 1..=lines {
        println!("going to crash in {after_s} s (line {line:>7} of {lines})");
    }
    let deadline_ns = clock::monotonic_ns() + u64::from(after_s) * 1_000_000_000;
    while clock::monotonic_ns() < deadline_ns {
        yield_until(deadline_ns);
    }
    panic!("crashed after {after_s} s, as asked to");
}
