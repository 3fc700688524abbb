//! Floods of the console.

use std::io::{self, Read};
use std::process::Stdio;

use rustix::process::Signal;

use super::code::guest;
use super::{end_of, guest, started, with_command};
use crate::support::run::Running;

/// What the guest `floods` prints.
const FLOOD: usize = 16_384 * 4096;

#[test]
fn given_a_flood_when_somebody_reads_it_then_nothing_of_it_is_lost() {
    let outcome = end_of(&guest(guest!(floods)), &[]);
    assert_eq!(outcome.code(), Some(0));
    assert_eq!(outcome.output.len(), FLOOD);
}

#[test]
fn given_a_flood_when_nobody_reads_it_then_the_tender_waits_and_can_be_ended() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let running = flooding(writer.into());
    // The pipe is full when nothing is left to be written without waiting.
    until_full(&reader);
    running.signal(Signal::TERM);
    running.outcome().expect_refusal().expect_says("Exiting on signal 15");
}

#[test]
fn given_a_flood_when_its_reader_goes_away_then_the_guest_goes_on() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let running = flooding(writer.into());
    reader.read_exact(&mut [0; 0x10000]).expect("the guest prints");
    drop(reader);
    running.signal(Signal::TERM);
    running.outcome().expect_refusal().expect_says("Exiting on signal 15");
}

#[test]
fn given_a_console_that_does_not_block_when_it_is_flooded_then_nothing_is_lost() {
    // A pipe's other end may have been made so by whoever reads it.
    let (mut reader, writer) = io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe can do that");
    let running = with_command(&guest(guest!(floods)), &[], |command| {
        Running::start_with_stdout(command, writer.into()).until_confined()
    });
    let mut text = Vec::new();
    reader.read_to_end(&mut text).expect("readable");
    assert_eq!(text.len(), FLOOD);
    assert_eq!(running.outcome().code(), Some(0));
}

#[test]
fn given_a_flood_when_it_goes_on_then_the_tender_does_not_grow() {
    let running = started(&guest(guest!(floods_forever)), &[]);
    let status = std::fs::read_to_string(running.proc("status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 16 * 1024, "{kib} KiB for a guest with 2 MiB");
    running.signal(Signal::KILL);
    running.outcome();
}

/// The guest that never stops printing, on this standard output.
fn flooding(stdout: Stdio) -> Running {
    with_command(&guest(guest!(floods_forever)), &[], |command| {
        Running::start_with_stdout(command, stdout).until_confined()
    })
}

/// Waits until a pipe holds what fits into it.
fn until_full(reader: &io::PipeReader) {
    let capacity = rustix::pipe::fcntl_getpipe_size(reader).expect("a pipe") as u64;
    while rustix::io::ioctl_fionread(reader).expect("a pipe") < capacity {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
