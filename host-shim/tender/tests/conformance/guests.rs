//! The cases of upstream's tests/tests.bats for hvt, one test each: same options, same expectations. Those for spt are in
//! [`crate::spt_guests`].

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::support::ping::Flood;
use crate::support::run::{Outcome, Running, backend, run, tender};
use crate::support::{Scratch, netns, solo5};

/// tests.bats' `hvt_run`: 2 MB of memory, `options`, then the guest and its arguments.
fn hvt(options: &[&str], guest: &str, arguments: &[&str]) -> Outcome {
    Running::start(command(options, guest, arguments)).outcome()
}

fn command(options: &[&str], guest: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = tender(&["--mem=2"]);
    command.args(options).arg("--").arg(solo5::guest(guest, "hvt")).args(arguments);
    command
}

/// tests.bats' `setup_block`, with the size it wants: zeros of `blocks` times 4 KiB.
pub fn zeros(scratch: &Scratch, name: &str, blocks: u64) -> String {
    let path = scratch.path().join(name);
    File::create(&path)
        .and_then(|file| file.set_len(blocks * 4096))
        .expect("the target directory is writable");
    path.to_str().expect("the target directory's path is UTF-8").to_owned()
}

#[test]
fn hello_prints_its_command_line() {
    hvt(&[], "hello", &["Hello_Solo5"]).expect_success().expect_says("Command line is: 'Hello_Solo5'");
}

#[test]
fn hello_gets_its_arguments_joined_by_blanks() {
    let outcome = hvt(&[], "hello", &["--ipv4=10.0.0.2/24", "two words", ""]);
    assert_eq!(outcome.code(), Some(0), "{outcome}");
    outcome.expect_says("Command line is: '--ipv4=10.0.0.2/24 two words '");
}

#[test]
fn quiet_silences_the_bindings() {
    hvt(&[], "quiet", &["--solo5:quiet"]).expect_success().expect_silent_about("Solo5:");
}

#[test]
fn without_quiet_the_bindings_tell_the_memory_map() {
    hvt(&[], "quiet", &[]).expect_success().expect_says("Solo5: Memory map: 2 MB addressable:");
}

#[test]
fn globals() {
    hvt(&[], "globals", &[]).expect_success();
}

#[test]
fn exception_reaches_the_guests_own_handler() {
    // The guest writes to 16 GB, far outside of its memory.
    hvt(&[], "exception", &[])
        .expect_abort()
        .expect_says("Solo5: trap: type=#PF ec=0x2")
        .expect_says("cr2=0x400000000");
}

#[test]
fn zeropage_is_not_mapped() {
    hvt(&[], "zeropage", &[]).expect_abort().expect_says("cr2=0x8");
}

#[test]
fn xnow_code_is_not_writable() {
    hvt(&[], "xnow", &[]).expect_refusal().expect_says("host/guest translation fault");
}

#[test]
fn wnox_data_is_not_executable() {
    let outcome = hvt(&[], "wnox", &[]);
    // Upstream expects the tender's error, of OpenBSD only: its tender cannot prevent it on KVM. Ours does so with the
    // guest's own page tables, hence it is the guest's own exception there.
    match backend().as_str() {
        "kvm" => outcome.expect_abort().expect_says("Solo5: trap: type=#PF ec=0x11"),
        _ => outcome.expect_refusal().expect_says("host/guest translation fault"),
    };
}

#[test]
fn notls_there_is_no_thread_local_storage_by_itself() {
    hvt(&[], "notls", &[]).expect_abort();
}

#[test]
fn tls_the_guest_may_set_its_fs_base() {
    hvt(&[], "tls", &[]).expect_success();
}

#[test]
fn ssp_a_smashed_stack_aborts() {
    hvt(&[], "ssp", &[]).expect_abort().expect_says("Stack corruption detected");
}

#[test]
fn fpu() {
    hvt(&[], "fpu", &[]).expect_success();
}

#[test]
fn time_passes_and_sleeps_are_of_the_asked_length() {
    let outcome = hvt(&[], "time", &[]);
    // A machine that is busy with other tests may wake the guest late, which upstream's guest counts as an
    // error. Too early, never passing or a wrong wall clock are ours in any case.
    if outcome.output.contains("slept too much") {
        outcome.expect_silent_about("slept too little").expect_silent_about("time is not passing");
        return;
    }
    outcome.expect_success();
}

#[test]
fn blk() {
    let scratch = Scratch::new("blk");
    let storage = zeros(&scratch, "storage.img", 1024);
    hvt(&[&format!("--block:storage={storage}")], "blk", &[]).expect_success();
    let written = std::fs::read(&storage).expect("readable");
    assert_eq!(&written[..10], b"0123456789", "the guest's writes are in the file");
    assert_eq!(written.len(), 1024 * 4096, "the file kept its size");
}

#[test]
fn blk_on_an_inherited_descriptor() {
    let scratch = Scratch::new("blk-fd");
    let storage = zeros(&scratch, "storage.img", 1024);
    let file = File::options().read(true).write(true).open(&storage).expect("readable and writable");
    let mut command = command(&["--block:storage=@0"], "blk", &[]);
    command.stdin(file);
    run(command).expect_success();
    assert!(std::fs::read(&storage).expect("readable").starts_with(b"0123456789"));
}

#[test]
fn net() {
    netns::inside("guests::net", || {
        netns::tap("tap100", "10.0.0.1/24");
        let flood = Flood::start(Ipv4Addr::new(10, 0, 0, 2), 100_000);
        let outcome = hvt(&["--net:service0=tap100"], "net", &["limit"]);
        outcome.expect_success().expect_says("Limit reached, exiting");
        assert_answered(flood, 100_000);
    });
}

#[test]
fn net_with_a_given_mac() {
    netns::inside("guests::net_with_a_given_mac", || {
        netns::tap("tap100", "10.0.0.1/24");
        let flood = Flood::start(Ipv4Addr::new(10, 0, 0, 2), 100_000);
        let options = ["--net:service0=tap100", "--net-mac:service0=02:00:00:00:a1:b2"];
        hvt(&options, "net", &["limit"]).expect_success().expect_says("with MAC: 02000000a1b2");
        assert_answered(flood, 100_000);
    });
}

#[test]
fn net_2if() {
    netns::inside("guests::net_2if", || {
        netns::tap("tap100", "10.0.0.1/24");
        netns::tap("tap101", "10.1.0.1/24");
        let first = Flood::start(Ipv4Addr::new(10, 0, 0, 2), 50_000);
        let second = Flood::start(Ipv4Addr::new(10, 1, 0, 2), 50_000);
        let options = ["--net:service0=tap100", "--net:service1=tap101"];
        hvt(&options, "net_2if", &["limit"]).expect_success();
        assert_answered(first, 50_000);
        assert_answered(second, 50_000);
    });
}

/// The guest counts requests, the flood answers: a few may be lost on the way back or sent twice.
#[track_caller]
pub fn assert_answered(flood: Flood, expected: u64) {
    let answers = flood.stop();
    assert!(answers >= expected * 9 / 10, "{answers} answers of {expected} came back");
}

#[test]
fn mft_maxdevices() {
    let scratch = Scratch::new("maxdevices");
    let devices: Vec<_> = (0..63)
        .map(|number| {
            let path = zeros(&scratch, &format!("storage{number}.img"), 1);
            format!("--block:storage{number}={path}")
        })
        .collect();
    let options: Vec<_> = devices.iter().map(String::as_str).collect();
    hvt(&options, "mft_maxdevices", &[]).expect_success();
}

#[test]
fn a_guest_is_no_program_of_this_host() {
    // tests.bats' "noexec host": the interpreter that the ELF names does not exist.
    let image = solo5::guest("hello", "hvt");
    let error = std::process::Command::new(Path::new(&image)).output().expect_err("nothing to run it");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
