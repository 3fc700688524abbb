//! Bad input: status 1, a sentence that names what was wrong, and nothing left behind.

use std::fs;
use std::path::Path;

use hvt_abi::note::Target;

use crate::support::image::Image;
use crate::support::run::{Outcome, run, tender};
use crate::support::{Scratch, netns, solo5};

/// Runs the tender with `options` on `image`, in an empty folder that must be empty afterwards. (That no process is
/// left, `run` checks for every test.)
fn refused(options: &[&str], image: &Path) -> Outcome {
    let scratch = Scratch::new(&format!("refused-{}", std::thread::current().name().unwrap_or("")));
    let mut command = tender(options);
    command.arg("--").arg(image).current_dir(scratch.path());
    let outcome = run(command);
    outcome.expect_refusal().expect_silent_about("Solo5:");
    assert_eq!(scratch.listing(), Vec::<String>::new());
    outcome
}

/// An image made of `bytes`, refused with a message that has the image's path in it.
fn image_refused(name: &str, bytes: &[u8]) -> Outcome {
    let scratch = Scratch::new(&format!("image-{name}"));
    let image = scratch.file(name, bytes);
    let outcome = refused(&[], &image);
    outcome.expect_says(name);
    outcome
}

/// Upstream's hello guest with its program headers changed.
fn hello_with(change: impl Fn(&mut ProgramHeader)) -> Vec<u8> {
    /// Elf64_Ehdr: e_phoff at 32, e_phnum at 56; an Elf64_Phdr has 56 bytes.
    const PHDR_SIZE: usize = 56;
    let mut bytes = fs::read(solo5::guest("hello", "hvt")).expect("readable");
    let table = usize::try_from(u64_at(&bytes, 32)).expect("a small file");
    for index in 0..usize::from(bytes[56]) {
        change(&mut ProgramHeader(&mut bytes[table + index * PHDR_SIZE..][..PHDR_SIZE]));
    }
    bytes
}

struct ProgramHeader<'a>(&'a mut [u8]);

impl ProgramHeader<'_> {
    fn is_load(&self) -> bool {
        self.0[0] == 1
    }
    fn is_note(&self) -> bool {
        self.0[0] == 4
    }
    fn set_flags(&mut self, flags: u8) {
        self.0[4] = flags;
    }
    fn forget(&mut self) {
        self.0[0] = 0;
    }
    fn set_vaddr(&mut self, address: u64) {
        self.0[16..24].copy_from_slice(&address.to_le_bytes());
    }
    fn vaddr(&self) -> u64 {
        u64_at(self.0, 16)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[test]
fn given_a_text_file_when_run_then_it_is_no_elf() {
    image_refused("text.hvt", b"#!/bin/sh\necho no unikernel\n").expect_says("ELF");
}

#[test]
fn given_an_empty_file_when_run_then_it_is_no_elf() {
    image_refused("empty.hvt", b"");
}

#[test]
fn given_a_missing_file_when_run_then_its_name_is_in_the_error() {
    refused(&[], Path::new("/nonexistent/missing.hvt"))
        .expect_says("/nonexistent/missing.hvt")
        .expect_says("No such file");
}

#[test]
fn given_a_folder_when_run_then_it_is_refused() {
    refused(&[], Path::new("/"));
}

#[test]
fn given_an_ordinary_program_of_the_host_when_run_then_it_is_refused() {
    refused(&[], &std::env::current_exe().expect("/proc is mounted"));
}

#[test]
fn given_a_guest_cut_in_the_middle_when_run_then_it_is_refused() {
    let whole = fs::read(solo5::guest("hello", "hvt")).expect("readable");
    for len in [40, 64, 100, 4096, 0x3000] {
        image_refused(&format!("cut-{len}.hvt"), &whole[..len]);
    }
}

#[test]
fn given_a_guest_for_another_target_when_run_then_the_target_is_named() {
    let image = Image::new(Target::Virtio, &[0xf4]).bytes();
    image_refused("virtio.hvt", &image)
        .expect_says("(it is for virtio)")
        .expect_says("hvt")
        .expect_says("spt");
}

#[test]
fn given_a_guest_without_notes_when_run_then_it_is_refused() {
    let bytes = hello_with(|header| {
        if header.is_note() {
            header.forget();
        }
    });
    image_refused("no-notes.hvt", &bytes);
}

#[test]
fn given_a_segment_writable_and_executable_when_run_then_it_is_refused() {
    let bytes = hello_with(|header| {
        if header.is_load() {
            header.set_flags(7);
        }
    });
    image_refused("wx.hvt", &bytes);
}

#[test]
fn given_a_segment_below_the_guests_base_when_run_then_it_is_refused() {
    let bytes = hello_with(|header| {
        if header.is_load() && header.vaddr() == 0x10_0000 {
            header.set_vaddr(0x1000);
        }
    });
    image_refused("low.hvt", &bytes);
}

#[test]
fn given_segments_that_wrap_around_when_run_then_it_is_refused() {
    let bytes = hello_with(|header| {
        if header.is_load() {
            header.set_vaddr(u64::MAX - 0xfff);
        }
    });
    image_refused("wrap.hvt", &bytes);
}

#[test]
fn given_no_image_when_run_then_usage_is_shown() {
    let outcome = run(tender(&["--mem=2"]));
    outcome.expect_refusal().expect_says("usage");
}

#[test]
fn given_an_unknown_option_when_run_then_it_is_named() {
    refused(&["--no-such-option"], &solo5::guest("hello", "hvt")).expect_says("--no-such-option");
}

#[test]
fn given_a_device_that_is_not_attached_when_run_then_it_is_named() {
    refused(&["--mem=2"], &solo5::guest("blk", "hvt")).expect_says("storage").expect_says("not attached");
    refused(&["--mem=2"], &solo5::guest("net", "hvt")).expect_says("service0").expect_says("not attached");
}

#[test]
fn given_a_device_that_the_guest_does_not_have_when_run_then_it_is_named() {
    let scratch = Scratch::new("unknown-device");
    let disk = scratch.file("disk.img", &[0; 4096]);
    let option = format!("--block:nosuch={}", disk.display());
    refused(&[&option], &solo5::guest("hello", "hvt")).expect_says("nosuch").expect_says("not declared");
}

#[test]
fn given_a_device_of_the_other_kind_when_run_then_it_is_refused() {
    let scratch = Scratch::new("other-kind");
    let disk = scratch.file("disk.img", &[0; 4096]);
    let option = format!("--block:service0={}", disk.display());
    refused(&[&option], &solo5::guest("net", "hvt")).expect_says("service0");
}

#[test]
fn given_a_device_attached_twice_when_run_then_it_is_refused() {
    let scratch = Scratch::new("twice");
    let disk = scratch.file("disk.img", &[0; 4096]);
    let option = format!("--block:storage={}", disk.display());
    refused(&[&option, &option], &solo5::guest("blk", "hvt")).expect_says("storage");
}

#[test]
fn given_no_memory_when_run_then_it_is_refused() {
    for bad in ["0", "", "-1", "2x", "many", "18446744073709551616"] {
        let option = format!("--mem={bad}");
        refused(&[&option], &solo5::guest("hello", "hvt")).expect_says("mem");
    }
}

#[test]
fn given_more_memory_than_a_guest_can_have_when_run_then_the_limit_is_named() {
    for bad in ["4098", "1000000", "17592186044416", "18446744073709551615"] {
        let option = format!("--mem={bad}");
        refused(&[&option], &solo5::guest("hello", "hvt")).expect_says("mem");
    }
}

#[test]
fn given_a_guest_larger_than_its_memory_when_run_then_it_is_refused() {
    let bytes = hello_with(|header| {
        if header.is_load() && header.vaddr() > 0x10_0000 {
            header.set_vaddr(header.vaddr() + 0x20_0000);
        }
    });
    let scratch = Scratch::new("large");
    let image = scratch.file("large.hvt", &bytes);
    refused(&["--mem=2"], &image).expect_says("memory");
}

#[test]
fn given_a_disk_that_does_not_exist_when_run_then_it_is_not_made() {
    let scratch = Scratch::new("no-disk");
    let disk = scratch.path().join("disk.img");
    let option = format!("--block:storage={}", disk.display());
    refused(&[&option], &solo5::guest("blk", "hvt")).expect_says("disk.img");
    assert!(!disk.exists());
}

#[test]
fn given_a_disk_without_a_single_block_when_run_then_it_is_refused() {
    let scratch = Scratch::new("small-disk");
    let disk = scratch.file("disk.img", &[0; 511]);
    let option = format!("--block:storage={}", disk.display());
    refused(&[&option], &solo5::guest("blk", "hvt")).expect_says("storage: Backing storage");
}

#[test]
fn given_a_descriptor_that_is_not_open_when_run_then_it_is_refused() {
    refused(&["--block:storage=@99"], &solo5::guest("blk", "hvt")).expect_says("99");
    refused(&["--net:service0=@99"], &solo5::guest("net", "hvt")).expect_says("99");
}

#[test]
fn given_a_descriptor_of_the_wrong_kind_when_run_then_it_is_refused() {
    // Standard output is a pipe here, neither a disk nor a tap.
    refused(&["--block:storage=@1"], &solo5::guest("blk", "hvt")).expect_says("storage");
    refused(&["--net:service0=@1"], &solo5::guest("net", "hvt")).expect_says("service0");
}

#[test]
fn given_a_malformed_mac_when_run_then_it_is_refused() {
    for bad in ["02:00:00:00:00", "02:00:00:00:00:00:00", "g2:00:00:00:00:00", "", "020000000000"] {
        let option = format!("--net-mac:service0={bad}");
        refused(&[&option], &solo5::guest("net", "hvt")).expect_says("mac");
    }
}

#[test]
fn given_arguments_longer_than_the_command_line_when_run_then_it_is_refused() {
    let mut command = tender(&["--mem=2", "--"]);
    command.arg(solo5::guest("hello", "hvt")).arg("a".repeat(8192));
    run(command).expect_refusal().expect_says("8191");
}

#[test]
fn given_a_tap_that_does_not_exist_when_run_then_it_is_not_made() {
    netns::inside("refusals::given_a_tap_that_does_not_exist_when_run_then_it_is_not_made", || {
        let before = netns::ip(&["-oneline", "link"]);
        refused(&["--net:service0=tap100"], &solo5::guest("net", "hvt")).expect_says("tap100");
        assert_eq!(netns::ip(&["-oneline", "link"]), before);
    });
}
