//! Reaching beyond devices, by hypercalls.

use hvt_abi::manifest::DeviceKind;

use super::code::{Code, SCRATCH, guest};
use super::{end_of, guest};
use crate::support::{Scratch, netns};

const BLOCK: usize = 512;
const BLOCKS: usize = 8;

const BLOCK_WRITE: u16 = 4;
const BLOCK_READ: u16 = 5;

#[test]
fn given_a_disk_when_a_guest_asks_for_what_is_beyond_it_then_it_is_told_no_and_the_file_stays() {
    let size = (BLOCKS * BLOCK) as u64;
    let beyond = [
        (size, 512),
        (size - 511, 512),
        (size - 512, 1024),
        (0, size + 512),
        (u64::MAX, 512),
        (u64::MAX - 511, 512),
        (1 << 63, 512),
        (0, 1 << 63),
        (512, u64::MAX),
        // Not in blocks.
        (0, 1),
        (0, 511),
        (0, 513),
    ];
    let data = u64::from(SCRATCH + 0x1000);
    for number in [BLOCK_WRITE, BLOCK_READ] {
        for (offset, len) in beyond {
            // Its status is the hypercall's answer: 2 is EINVAL.
            let call = [1, offset, data, len, 0];
            let scratch = Scratch::new(&format!("beyond-{number}-{offset:x}-{len:x}"));
            let disk = scratch.file("disk.img", &[b'.'; BLOCKS * BLOCK]);
            let code = Code::default().store(SCRATCH, &call).hypercall(number, SCRATCH);
            let image = guest(&code.halt_with(SCRATCH + 32)).device("storage", DeviceKind::Block);
            let outcome = end_of(&image, &[&format!("--block:storage={}", disk.display())]);
            assert_eq!(outcome.code(), Some(2), "offset {offset:#x}, length {len:#x}: {outcome}");
            let content = std::fs::read(&disk).expect("readable");
            assert!(content == [b'.'; BLOCKS * BLOCK], "the file changed");
        }
    }
}

#[test]
fn given_handles_that_are_no_such_device_when_a_guest_uses_them_then_it_is_told_no() {
    let scratch = Scratch::new("handles");
    let disk = scratch.file("disk.img", &[b'.'; BLOCK]);
    let option = format!("--block:storage={}", disk.display());
    let data = u64::from(SCRATCH + 0x1000);
    // 4 to 7: block write and read, net write and read. Handle 1 is the disk.
    for (number, answer_at) in [(4, 32), (5, 32), (6, 24), (7, 24)] {
        for handle in [0, 2, 63, 64, 65, 1 << 32 | 1, u64::MAX] {
            let call = if number < 6 { [handle, 0, data, 512, 0] } else { [handle, data, 512, 0, 0] };
            let code = Code::default().store(SCRATCH, &call).hypercall(number, SCRATCH);
            let image = guest(&code.halt_with(SCRATCH + answer_at)).device("storage", DeviceKind::Block);
            let outcome = end_of(&image, &[&option]);
            assert_eq!(outcome.code(), Some(2), "hypercall {number}, handle {handle:#x}: {outcome}");
        }
    }
    assert!(std::fs::read(&disk).expect("readable") == [b'.'; BLOCK], "the file changed");
}

#[test]
fn given_a_million_hypercalls_with_random_arguments_when_a_guest_makes_them_then_it_gets_to_its_end() {
    netns::inside(
        "hostile::devices::given_a_million_hypercalls_with_random_arguments_when_a_guest_makes_them_then_it_gets_to_its_end",
        || {
            netns::tap("tap100", "10.0.0.1/24");
            let scratch = Scratch::new("anything");
            let disk = scratch.file("disk.img", &[b'.'; 4096]);
            let image = guest(guest!(asks_for_anything))
                .device("storage", DeviceKind::Block)
                .device("service", DeviceKind::Net);
            let block = format!("--block:storage={}", disk.display());
            let outcome = end_of(&image, &[&block, "--net:service=tap100"]);
            assert_eq!(outcome.code(), Some(0), "{outcome}");
            let content = std::fs::read(&disk).expect("readable");
            assert_eq!(content.len(), 4096, "the file kept its size");
            assert!(content != [b'.'; 4096], "some of what the guest asked for made sense");
        },
    );
}
