//! The cases of upstream's tests/tests.bats for spt, one test each: same options, same expectations.
//!
//! Such a guest makes its system calls itself, and its exceptions are signals: that is spt's way to end.

use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::guests::{assert_answered, zeros};
use crate::support::ping::Flood;
use crate::support::run::{Outcome, Running, run, tender_on};
use crate::support::{Scratch, netns, solo5};

/// tests.bats' `spt_run`: 2 MB of memory, `options`, then the guest and its arguments.
fn spt(options: &[&str], guest: &str, arguments: &[&str]) -> Outcome {
    run(command(options, guest, arguments))
}

fn command(options: &[&str], guest: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = tender_on("auto", &["--mem=2"]);
    command.args(options).arg("--").arg(solo5::guest(guest, "spt")).args(arguments);
    command
}

/// tests.bats' `expect_segfault`.
#[track_caller]
fn expect_segfault(outcome: &Outcome) {
    assert_eq!(outcome.status.signal(), Some(Signal::SEGV.as_raw()), "{outcome}");
}

#[test]
fn hello_prints_its_command_line() {
    spt(&[], "hello", &["Hello_Solo5"]).expect_success().expect_says("Command line is: 'Hello_Solo5'");
}

#[test]
fn quiet_silences_the_bindings() {
    spt(&[], "quiet", &["--solo5:quiet"]).expect_success().expect_silent_about("Solo5:");
}

#[test]
fn without_quiet_the_bindings_tell_the_memory_map() {
    spt(&[], "quiet", &[]).expect_success().expect_says("Solo5: Memory map: 2 MB addressable:");
}

#[test]
fn memory_is_as_much_as_asked_for() {
    let mut command = tender_on("auto", &["--mem=5", "--"]);
    command.arg(solo5::guest("quiet", "spt"));
    run(command).expect_success().expect_says("Solo5: Memory map: 5 MB addressable:");
}

#[test]
fn globals() {
    spt(&[], "globals", &[]).expect_success();
}

#[test]
fn exception_ends_it() {
    expect_segfault(&spt(&[], "exception", &[]));
}

#[test]
fn zeropage_is_not_mapped() {
    expect_segfault(&spt(&[], "zeropage", &[]));
}

#[test]
fn xnow_code_is_not_writable() {
    expect_segfault(&spt(&[], "xnow", &[]));
}

#[test]
fn wnox_data_is_not_executable() {
    expect_segfault(&spt(&[], "wnox", &[]));
}

#[test]
fn notls_there_is_no_thread_local_storage_by_itself() {
    expect_segfault(&spt(&[], "notls", &[]));
}

#[test]
fn tls_the_guest_may_set_its_fs_base() {
    spt(&[], "tls", &[]).expect_success();
}

#[test]
fn ssp_a_smashed_stack_aborts() {
    spt(&[], "ssp", &[]).expect_abort();
}

#[test]
fn fpu() {
    spt(&[], "fpu", &[]).expect_success();
}

#[test]
fn time_passes_and_sleeps_are_of_the_asked_length() {
    let outcome = spt(&[], "time", &[]);
    // As with hvt: on a busy machine a guest may wake late.
    if outcome.output.contains("slept too much") {
        outcome.expect_silent_about("slept too little").expect_silent_about("time is not passing");
        return;
    }
    outcome.expect_success();
}

#[test]
fn seccomp_a_system_call_of_its_own_ends_it() {
    spt(&[], "seccomp", &[]).expect_filtered();
}

#[test]
fn blk() {
    let scratch = Scratch::new("spt-blk");
    let storage = zeros(&scratch, "storage.img", 1024);
    spt(&[&format!("--block:storage={storage}")], "blk", &[]).expect_success();
    let written = std::fs::read(&storage).expect("readable");
    assert_eq!(&written[..10], b"0123456789", "the guest's writes are in the file");
    assert_eq!(written.len(), 1024 * 4096, "the file kept its size");
}

#[test]
fn blk_with_sectors_of_4096_bytes() {
    let scratch = Scratch::new("spt-blk-4096");
    let storage = zeros(&scratch, "storage.img", 1024);
    let options = [&format!("--block:storage={storage}"), "--block-sector-size:storage=4096"];
    spt(&options, "blk", &[]).expect_success();
}

#[test]
fn net() {
    netns::inside("spt_guests::net", || {
        netns::tap("tap100", "10.0.0.1/24");
        let flood = Flood::start(Ipv4Addr::new(10, 0, 0, 2), 100_000);
        let outcome = spt(&["--net:service0=tap100"], "net", &["limit"]);
        outcome.expect_success().expect_says("Limit reached, exiting");
        assert_answered(flood, 100_000);
    });
}

#[test]
fn net_2if() {
    netns::inside("spt_guests::net_2if", || {
        netns::tap("tap100", "10.0.0.1/24");
        netns::tap("tap101", "10.1.0.1/24");
        let first = Flood::start(Ipv4Addr::new(10, 0, 0, 2), 50_000);
        let second = Flood::start(Ipv4Addr::new(10, 1, 0, 2), 50_000);
        let options = ["--net:service0=tap100", "--net:service1=tap101"];
        spt(&options, "net_2if", &["limit"]).expect_success();
        assert_answered(first, 50_000);
        assert_answered(second, 50_000);
    });
}

#[test]
fn mft_maxdevices() {
    let scratch = Scratch::new("spt-maxdevices");
    let devices: Vec<_> = (0..63)
        .map(|number| {
            let path = zeros(&scratch, &format!("storage{number}.img"), 1);
            format!("--block:storage{number}={path}")
        })
        .collect();
    let options: Vec<_> = devices.iter().map(String::as_str).collect();
    spt(&options, "mft_maxdevices", &[]).expect_success();
}

#[test]
fn a_wish_to_end_ends_it() {
    netns::inside("spt_guests::a_wish_to_end_ends_it", || {
        netns::tap("tap100", "10.0.0.1/24");
        let running = Running::start(command(&["--net:service0=tap100"], "net", &[])).until_confined();
        running.signal(Signal::TERM);
        let outcome = running.outcome();
        assert_eq!(outcome.status.signal(), Some(Signal::TERM.as_raw()), "{outcome}");
    });
}

#[test]
fn kvm_is_not_for_it() {
    let mut command = tender_on("kvm", &["--mem=2", "--"]);
    command.arg(solo5::guest("hello", "spt"));
    run(command).expect_refusal().expect_says("spt").expect_says("kvm");
}
