//! Guests that mean harm, or have gone mad: each ends itself at most.
//!
//! What a guest may do to the tender differs between the backends. On KVM it is in a machine of its own. In ring 3 it
//! shares the tender's address space and can make system calls, so there the filter stops it.

pub mod code;
mod console;
mod devices;
mod images;
mod memory;
mod registers;
mod system_calls;

use std::path::Path;
use std::process::Command;

use hvt_abi::note::Target;

use crate::support::Scratch;
use crate::support::image::Image;
use crate::support::run::{Outcome, Running, backend, run, tender, tender_on};

fn in_ring_3() -> bool {
    backend() == "ring3"
}

/// Runs `image` with 2 MB of memory and these options to its end.
fn end_of(image: &Image, options: &[&str]) -> Outcome {
    with_command(image, options, run)
}

/// Starts `image` in the same way, and returns when it is about to run.
fn started(image: &Image, options: &[&str]) -> Running {
    with_command(image, options, |command| Running::start(command).until_confined())
}

/// The image's file is there until `start` returns: from its confinement on the tender needs it no more.
fn with_command<T>(image: &Image, options: &[&str], start: impl FnOnce(Command) -> T) -> T {
    let scratch = Scratch::new(&format!("hostile-{}", std::thread::current().name().unwrap_or("")));
    let file = scratch.file("guest.hvt", &image.bytes());
    start(command(&file, options))
}

fn end_of_file(image: &Path, options: &[&str]) -> Outcome {
    run(command(image, options))
}

fn command(image: &Path, options: &[&str]) -> Command {
    let mut command = tender(&["--mem=2"]);
    command.args(options).arg("--").arg(image);
    command
}

fn guest(code: &[u8]) -> Image {
    Image::new(Target::Hvt, code)
}

/// A guest of spt, which runs in this way on every host.
fn spt_guest(code: &[u8]) -> Image {
    Image::new(Target::Spt, code)
}

/// The end of a guest of spt.
fn spt_end_of(image: &Image, options: &[&str]) -> Outcome {
    let scratch = Scratch::new(&format!("hostile-spt-{}", std::thread::current().name().unwrap_or("")));
    let file = scratch.file("guest.spt", &image.bytes());
    let mut command = tender_on("auto", &["--mem=2"]);
    command.args(options).arg("--").arg(file);
    run(command)
}
