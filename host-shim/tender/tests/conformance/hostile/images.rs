//! Images with changes in all that describes them: headers, notes, tables.
//!
//! The same in each run. `make fuzz` goes on from here with what it finds interesting.

use std::fs;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;

use hvt_abi::manifest::DeviceKind;

use super::{end_of_file, guest};
use crate::support::{Scratch, solo5};

/// How many to load, and how many to run as well.
const LOADED: usize = 20_000;
const RUN: usize = 300;

const MEMORY: u64 = 2 << 20;

/// Xorshift: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("48 bits") % end
    }

    /// A copy of `image` with one to four numbers replaced, where `described` says that there are any of meaning.
    fn changed(&mut self, image: &[u8], described: &[std::ops::Range<usize>]) -> Vec<u8> {
        const NUMBERS: [u64; 14] = [
            0,
            1,
            2,
            7,
            0xff,
            0xfff,
            0x1000,
            0xf_f000,
            0x10_0000,
            0x20_0000,
            0xffff_ffff,
            1 << 32,
            1 << 63,
            u64::MAX,
        ];
        let mut changed = image.to_vec();
        for _ in 0..=self.below(4) {
            let range = &described[self.below(described.len())];
            let at = range.start + self.below(range.len());
            let mut number = NUMBERS[self.below(NUMBERS.len())];
            if self.below(2) == 0 {
                // Near what is there.
                let mut bytes = [0; 8];
                let there = &image[at..image.len().min(at + 8)];
                bytes[..there.len()].copy_from_slice(there);
                number = u64::from_le_bytes(bytes) ^ (1 << self.below(64));
            }
            let width = 1 << self.below(4);
            for (to, from) in changed[at..].iter_mut().zip(number.to_le_bytes()).take(width) {
                *to = from;
            }
        }
        if self.below(16) == 0 {
            changed.truncate(self.below(image.len()));
        }
        changed
    }
}

/// An image of which each byte of code stops the CPU: wherever it starts, it ends.
fn stops() -> Vec<u8> {
    guest(&[0xf4; 4096]).device("storage", DeviceKind::Block).device("service", DeviceKind::Net).bytes()
}

/// Its headers, notes and section table.
fn description(image: &[u8]) -> [std::ops::Range<usize>; 3] {
    [0..64 + 4 * 56, 4096..4096 + 24 + 36 + 20 + 12 + 3 * 104, image.len() - 64..image.len()]
}

#[test]
fn given_images_with_changes_when_loaded_then_they_are_taken_or_refused() {
    let ours = stops();
    let upstreams = fs::read(solo5::guest("hello", "hvt")).expect("readable");
    let sections = usize::try_from(u64::from_le_bytes(upstreams[40..48].try_into().expect("eight bytes")));
    let sections = sections.expect("a small file");
    let described = [0..64 + 6 * 56, 0x5000..0x50c4, sections..upstreams.len()];
    let mut random = Random(7);
    let mut taken = 0;
    let mut file = memory_file();
    for number in 0..LOADED {
        let bytes = match number % 2 {
            0 => random.changed(&ours, &description(&ours)),
            _ => random.changed(&upstreams, &described),
        };
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&bytes)).expect("a file");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        taken += usize::from(petrel_tender::load(path.as_ref(), MEMORY).is_ok());
    }
    assert!((LOADED / 20..LOADED * 19 / 20).contains(&taken), "{taken} of {LOADED} were taken");
}

/// A file in memory.
fn memory_file() -> fs::File {
    rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).expect("Linux has them").into()
}

#[test]
fn given_images_with_changes_when_run_then_they_end_with_a_message() {
    let image = stops();
    let mut random = Random(8);
    let scratch = Scratch::new("changed-images");
    let disk = scratch.file("disk.img", &[0; 4096]);
    let option = format!("--block:storage={}", disk.display());
    for number in 0..RUN {
        let bytes = random.changed(&image, &description(&image));
        let file = scratch.file(&format!("{number}.hvt"), &bytes);
        let outcome = end_of_file(&file, &[&option]);
        outcome.expect_refusal();
        assert!(outcome.output.contains("petrel-tender: "), "{outcome}");
    }
}
