//! Hypercalls with any arguments at all.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixDatagram;

use hvt_abi::hypercall::PORT_BASE;
use hvt_abi::manifest::DeviceKind;
use hvt_abi::note::Target;
use rustix::mm::MprotectFlags;

use super::*;
use hvt_abi::boot::{BOOT_INFO_BASE, GUEST_MIN_BASE};
use hvt_abi::elf::Permissions;

#[path = "../../tests/conformance/support/image.rs"]
mod image;

const MEMORY: u64 = 2 << 20;
const TEXT_END: u64 = GUEST_MIN_BASE + 0x1000;
const DISK: u64 = 8 * 512;
const CALLS: u64 = 1_000_000;

/// SplitMix64: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[crate::memory::usize_from(self.below(choices.len() as u64))]
    }

    /// Where an argument block may be: mostly in memory, else around an edge or anywhere.
    fn argument(&mut self) -> u64 {
        match self.below(8) {
            0 => {
                self.one_of(&[0, BOOT_INFO_BASE, GUEST_MIN_BASE, TEXT_END, MEMORY, 1 << 32])
                    .wrapping_add(self.below(64))
                    .wrapping_sub(32)
                    & 0xffff_ffff
            }
            1 => self.below(1 << 32),
            _ => TEXT_END + self.below(MEMORY - TEXT_END - 64),
        }
    }

    /// What may be in it.
    fn word(&mut self) -> u64 {
        match self.below(8) {
            0..=2 => self.one_of(&[0, 1, 2, 3]),
            3 => self.one_of(&[64, 512, 1024, DISK - 512, DISK, DISK + 512, 65_536]),
            4 => self.argument(),
            5 => self.one_of(&[MEMORY, 1 << 32, 1 << 63, u64::MAX]).wrapping_sub(self.below(3)),
            6 => self.next(),
            _ => self.below(2048),
        }
    }
}

/// A guest with a page of code, a disk, a disk that is only to be read, and a net.
struct Bench {
    vm: Vm,
    disk: File,
    read_only: File,
    /// The other end of the net.
    peer: UnixDatagram,
}

impl Bench {
    fn new() -> Self {
        let image = image::Image::new(Target::Hvt, &[0xf4])
            .device("disk", DeviceKind::Block)
            .device("rom", DeviceKind::Block)
            .device("net", DeviceKind::Net);
        let declared = hvt_abi::elf::Image::parse(&image.bytes()).unwrap().devices;
        let mut devices = Attached::new(declared);
        let (disk, read_only) = (disk(), disk());
        let writable = disk.try_clone().unwrap().into_raw_fd();
        devices.attach_block("disk", &format!("@{writable}")).unwrap();
        let readable = File::open(format!("/proc/self/fd/{}", read_only.as_raw_fd())).unwrap();
        devices.attach_block("rom", &format!("@{}", readable.into_raw_fd())).unwrap();
        let (near, peer) = UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        devices.attach_socket("net", near.into());
        devices.complete().unwrap();
        let mut memory = GuestMemory::anywhere(MEMORY).unwrap();
        memory.bytes_mut(GuestAddr::new(GUEST_MIN_BASE), 0x1000).unwrap().fill(0xf4);
        let text = Permissions { read: true, write: false, execute: true };
        memory.protect(GUEST_MIN_BASE..TEXT_END, text, MprotectFlags::READ).unwrap();
        let nowhere: &'static File = Box::leak(Box::new(File::create("/dev/null").unwrap()));
        let console = std::os::fd::AsFd::as_fd(nowhere);
        Self { vm: Vm { memory, devices, console, core: None }, disk, read_only, peer }
    }

    /// There is always a frame to read, so that no poll has to wait, and room to write one.
    fn pump(&self) {
        let mut frame = [0; 128];
        while self.peer.recv(&mut frame).is_ok() {}
        let _ = self.peer.send(&[b'x'; 60]);
    }
}

/// An anonymous file of as many bytes as a disk has.
fn disk() -> File {
    let file = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(file);
    file.write_all(&[b'.'; 8 * 512]).unwrap();
    file
}

/// What the ABI says of memory, told once more.
fn readable(addr: GuestAddr, len: u64) -> bool {
    let addr = addr.raw();
    addr.checked_add(len).is_some_and(|end| addr >= BOOT_INFO_BASE && end <= MEMORY)
}

fn writable(addr: GuestAddr, len: u64) -> bool {
    let apart = addr.raw() >= TEXT_END || (len == 0 && addr.raw() == GUEST_MIN_BASE);
    apart && readable(addr, len)
}

#[test]
fn given_any_arguments_when_hypercalls_are_made_then_only_the_guests_own_is_touched() {
    let mut bench = Bench::new();
    let mut random = Random(1);
    // For each port how often the guest went on, and how often it ended.
    let mut outcomes = [[0_u64; 2]; 10];
    for call in 0..CALLS {
        let number = random.below(10);
        let port = PORT_BASE + u16::try_from(number).unwrap();
        let argument = GuestAddr::new(random.argument());
        let words: [u64; 5] = std::array::from_fn(|_| random.word());
        for (word, at) in words.iter().zip((argument.raw()..).step_by(8)) {
            if writable(GuestAddr::new(at), 8) {
                bench.vm.memory.write(GuestAddr::new(at), *word).unwrap();
            }
        }
        bench.pump();
        let went_on = match bench.vm.hypercall(port, argument) {
            Ok(_) => {
                assert!(readable(argument, 8), "call {call}: {number} at {argument:?}");
                true
            }
            Err(Fault::Access(BadAccess { addr, len })) => {
                assert!(!writable(addr, len), "call {call}: refused {addr:?}, {len}");
                false
            }
            Err(Fault::Port(bad)) => {
                assert!(bad == port && [0, 9].contains(&number), "call {call}: port {bad:#x}");
                false
            }
            Err(fault) => panic!("call {call}: {number} of {words:x?}: {fault}"),
        };
        outcomes[crate::memory::usize_from(number)][usize::from(!went_on)] += 1;
    }
    for (number, [went_on, ended]) in outcomes.into_iter().enumerate() {
        let exists = (1..=8).contains(&number);
        assert!(ended > 100 && exists == (went_on > 100), "hypercall {number}: {went_on}, {ended}");
    }
    let text = bench.vm.memory.bytes(GuestAddr::new(GUEST_MIN_BASE), 0x1000).unwrap();
    assert!(text.iter().all(|byte| *byte == 0xf4), "the code was written to");
    assert_eq!(bench.disk.metadata().unwrap().len(), DISK, "the disk changed its size");
    let mut rom = Vec::new();
    std::io::Seek::rewind(&mut bench.read_only).unwrap();
    bench.read_only.read_to_end(&mut rom).unwrap();
    assert!(rom == [b'.'; 8 * 512], "the disk that is only to be read was written to");
}
