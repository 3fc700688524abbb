//! A guest in ring 3 can make system calls. On KVM the instruction is an exception, and nothing handles it.

use hvt_abi::manifest::DeviceKind;

use super::code::{Code, SCRATCH};
use super::{end_of, guest, in_ring_3, spt_end_of, spt_guest};
use crate::support::run::Outcome;
use crate::support::{Scratch, image::Image};

/// Numbers up to here exist on no kernel yet.
const NUMBERS: std::ops::Range<u64> = 0..512;
/// Bit that makes a number one of the x32 interface's.
const X32: u64 = 1 << 30;

/// What the tender needs to make for a guest without devices, with any arguments: going back from a signal handler, and
/// ending.
const ALWAYS_ALLOWED: [i64; 2] = [libc::SYS_rt_sigreturn, libc::SYS_exit_group];

/// `uretprobe` and `uprobe`: newer kernels let them by without asking any filter, as only their own trampolines can make
/// them. Anybody else gets an error or a signal.
const UNFILTERED: [u64; 2] = [335, 336];

fn call(number: u64, arguments: [u64; 6]) -> Image {
    guest(&Code::default().system_call(number, arguments).halt(0))
}

#[track_caller]
fn expect_stopped(outcome: &Outcome) {
    if in_ring_3() {
        outcome.expect_filtered();
    } else {
        outcome.expect_refusal();
    }
}

#[test]
fn given_any_system_call_when_a_guest_makes_it_with_zeros_then_the_filter_ends_it() {
    let allowed = |number: &u64| ALWAYS_ALLOWED.contains(&number.cast_signed());
    let numbers = NUMBERS.filter(|number| !allowed(number));
    // Zero is CLOCK_REALTIME, which the tender may ask for, and a poll for nothing.
    let harmless = [libc::SYS_clock_gettime, libc::SYS_ppoll];
    for number in numbers.filter(|number| !harmless.contains(&number.cast_signed())) {
        let outcome = end_of(&call(number, [0; 6]), &[]);
        // The guest goes on to its normal end, or has an exception, on kernels that do so.
        if !(UNFILTERED.contains(&number) && matches!(outcome.code(), Some(0 | 1))) {
            expect_stopped(&outcome);
        }
    }
}

#[test]
fn given_system_calls_of_other_interfaces_when_a_guest_makes_them_then_the_filter_ends_it() {
    // x32's write to the console, and its exit.
    for number in [1, 231] {
        expect_stopped(&end_of(&call(number | X32, [1, SCRATCH.into(), 1, 0, 0, 0]), &[]));
    }
    // int $0x80 with i386's exit, 1, in eax.
    let code = Code::default().raw(&[0xb8, 1, 0, 0, 0, 0xcd, 0x80]).halt(0);
    let outcome = end_of(&guest(&code), &[]);
    // A kernel without i386 support raises an exception instead.
    assert_ne!(outcome.code(), Some(0), "{outcome}");
}

#[test]
fn given_a_fork_bomb_when_it_goes_off_then_no_process_is_left() {
    // That none is, `run` checks for each outcome.
    const CLONE_VM_THREAD: u64 = 0x10f00;
    let bombs = [
        (libc::SYS_fork, [0; 6]),
        (libc::SYS_vfork, [0; 6]),
        (libc::SYS_clone, [CLONE_VM_THREAD, (SCRATCH + 0x1000).into(), 0, 0, 0, 0]),
        (libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
        (libc::SYS_clone3, [SCRATCH.into(), 88, 0, 0, 0, 0]),
    ];
    for (number, arguments) in bombs {
        let bomb = Code::default()
            .system_call(number.cast_unsigned(), arguments)
            // jmp to the start: again and again.
            .raw(&[0xe9])
            .raw(&(-73_i32).to_le_bytes())
            .halt(0);
        expect_stopped(&end_of(&guest(&bomb), &[]));
    }
}

/// A block device of eight blocks at descriptor 3 or above, between two files that have the same size.
struct Disk {
    scratch: Scratch,
    option: String,
}

const DISK: usize = 8 * 512;

impl Disk {
    fn new(test: &str) -> Disk {
        let scratch = Scratch::new(test);
        let file = scratch.file("disk.img", &[b'.'; DISK]);
        Disk { option: format!("--block:storage={}", file.display()), scratch }
    }

    #[track_caller]
    fn expect_untouched(&self) {
        let content = std::fs::read(self.scratch.path().join("disk.img")).expect("readable");
        assert!(content == [b'.'; DISK], "the disk's size or content changed");
    }

    /// The end of a guest with this disk that makes a system call on its descriptor.
    fn end_of(&self, number: i64, arguments: impl Fn(u64) -> [u64; 6]) -> Outcome {
        // The image is opened first, and the disk is the next.
        let descriptor = 4;
        let image = call(number.cast_unsigned(), arguments(descriptor)).device("storage", DeviceKind::Block);
        end_of(&image, &[&self.option])
    }
}

#[test]
fn given_a_disk_when_a_guest_transfers_a_block_by_itself_then_that_is_allowed_and_shows_its_descriptor() {
    if in_ring_3() {
        let disk = Disk::new("allowed-transfer");
        for offset in [0, 512, DISK as u64 - 512] {
            let outcome = disk.end_of(libc::SYS_pread64, |fd| [fd, SCRATCH.into(), 512, offset, 0, 0]);
            assert_eq!(outcome.code(), Some(0), "{outcome}");
        }
        disk.expect_untouched();
    }
}

#[test]
fn given_a_disk_when_a_guest_transfers_anything_but_one_of_its_blocks_then_the_filter_ends_it() {
    let disk = Disk::new("denied-transfers");
    let last = DISK as u64 - 512;
    let others: [(u64, u64, u64); 9] = [
        // Beyond the end, where a write would make the file grow.
        (0, 512, last + 1),
        (0, 512, DISK as u64),
        (0, 512, 1 << 40),
        (0, 512, u64::MAX),
        // Any length but a block's.
        (0, 0, 0),
        (0, 511, 0),
        (0, 513, 0),
        (0, 1 << 32 | 512, 0),
        // The same descriptor to the kernel, another number to the filter.
        (1 << 32, 512, 0),
    ];
    for number in [libc::SYS_pread64, libc::SYS_pwrite64] {
        for (high, len, offset) in others {
            expect_stopped(&disk.end_of(number, |fd| [fd | high, SCRATCH.into(), len, offset, 0, 0]));
        }
    }
    // Calls that would move data as well.
    for number in
        [libc::SYS_read, libc::SYS_write, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_sendfile]
    {
        expect_stopped(&disk.end_of(number, |fd| [fd, SCRATCH.into(), 512, 0, 0, 0]));
    }
    disk.expect_untouched();
}

#[test]
fn given_a_disk_that_is_read_only_when_a_guest_writes_by_itself_then_the_filter_ends_it() {
    let disk = Disk::new("read-only");
    let path = disk.scratch.path().join("disk.img");
    let image = call(libc::SYS_pwrite64.cast_unsigned(), [0, SCRATCH.into(), 512, 0, 0, 0]);
    let image = image.device("storage", DeviceKind::Block);
    let file = disk.scratch.file("guest.hvt", &image.bytes());
    let mut command = crate::support::run::tender(&["--mem=2", "--block:storage=@0", "--"]);
    command.arg(file).stdin(std::fs::File::open(path).expect("readable"));
    expect_stopped(&crate::support::run::run(command));
    disk.expect_untouched();
}

#[test]
fn given_calls_that_the_tender_makes_when_a_guest_makes_them_with_other_arguments_then_the_filter_ends_it() {
    let scratch = u64::from(SCRATCH);
    let others = [
        // Only standard output and error are written to.
        (libc::SYS_write, [0, scratch, 1, 0, 0, 0]),
        (libc::SYS_write, [3, scratch, 1, 0, 0, 0]),
        (libc::SYS_write, [1 << 32 | 1, scratch, 1, 0, 0, 0]),
        (libc::SYS_read, [0, scratch, 1, 0, 0, 0]),
        // Only the wall clock.
        (libc::SYS_clock_gettime, [1, scratch, 0, 0, 0, 0]),
        (libc::SYS_clock_gettime, [1 << 32, scratch, 0, 0, 0, 0]),
        // No more devices than there are, and no change of the signals that end the tender.
        (libc::SYS_ppoll, [scratch, 2, 0, 0, 0, 0]),
        (libc::SYS_ppoll, [scratch, 1, 0, scratch, 8, 0]),
        (libc::SYS_ioctl, [1, 0x5401, scratch, 0, 0, 0]),
    ];
    for (number, arguments) in others {
        expect_stopped(&end_of(&call(number.cast_unsigned(), arguments), &[]));
    }
}

#[test]
fn given_a_made_up_signal_frame_when_a_guest_returns_from_it_then_only_it_ends() {
    // Its stack is at the end of memory, where the kernel finds zeros or nothing.
    let outcome = end_of(&call(libc::SYS_rt_sigreturn.cast_unsigned(), [0; 6]), &[]);
    assert_ne!(outcome.code(), Some(0), "{outcome}");
}

/// A guest of spt has a right to make system calls: these, with arguments as its bindings have them.
#[test]
fn given_a_guest_of_spt_when_it_makes_any_other_system_call_then_the_filter_ends_it() {
    let scratch = u64::from(SCRATCH);
    let ends = |number: u64, arguments| {
        let code = Code::default().system_call(number, arguments).system_call(231, [0; 6]).halt(0);
        spt_end_of(&spt_guest(&code), &[])
    };
    let allowed = [
        (libc::SYS_clock_gettime, [0, scratch, 0, 0, 0, 0]),
        (libc::SYS_clock_gettime, [1, scratch, 0, 0, 0, 0]),
        (libc::SYS_arch_prctl, [0x1002, scratch, 0, 0, 0, 0]),
        (libc::SYS_write, [1, scratch, 1, 0, 0, 0]),
    ];
    for (number, arguments) in allowed {
        let outcome = ends(number.cast_unsigned(), arguments);
        assert_eq!(outcome.code(), Some(0), "{outcome}");
    }
    for number in NUMBERS.filter(|number| !UNFILTERED.contains(number)) {
        if ![libc::SYS_clock_gettime, libc::SYS_exit_group].contains(&number.cast_signed()) {
            ends(number, [0; 6]).expect_filtered();
        }
    }
    // Descriptors 3 and 4 are the wait set and the timer.
    let others = [
        (libc::SYS_write, [2, scratch, 1, 0, 0, 0]),
        (libc::SYS_clock_gettime, [7, scratch, 0, 0, 0, 0]),
        (libc::SYS_arch_prctl, [0x1001, scratch, 0, 0, 0, 0]),
        (libc::SYS_epoll_pwait, [3, scratch, 2, u64::MAX, 0, 0]),
        (libc::SYS_epoll_pwait, [3, scratch, 1, 0, 0, 0]),
        (libc::SYS_epoll_pwait, [3, scratch, 1, u64::MAX, scratch, 8]),
        (libc::SYS_timerfd_settime, [4, 0, scratch, 0, 0, 0]),
        (libc::SYS_timerfd_settime, [4, 1, scratch, scratch, 0, 0]),
    ];
    for (number, arguments) in others {
        ends(number.cast_unsigned(), arguments).expect_filtered();
    }
}

#[test]
fn given_a_disk_when_a_guest_of_spt_writes_beyond_it_then_the_filter_ends_it() {
    let disk = Disk::new("spt-beyond");
    let last = DISK as u64 - 512;
    // Descriptor 3 is the image, so the disk is 4.
    let end = |len, offset| {
        let code = Code::default()
            .system_call(libc::SYS_pwrite64.cast_unsigned(), [4, SCRATCH.into(), len, offset, 0, 0])
            .system_call(231, [0; 6])
            .halt(0);
        spt_end_of(&spt_guest(&code).device("storage", DeviceKind::Block), &[&disk.option])
    };
    for (len, offset) in [(512, last + 1), (512, DISK as u64), (512, u64::MAX), (1024, 0), (0, 0)] {
        end(len, offset).expect_filtered();
    }
    disk.expect_untouched();
    assert_eq!(end(512, last).code(), Some(0));
}
