//! What upstream's v0.12 knows beyond v0.7, whose guests the other cases have.

use std::fs;

use hvt_abi::manifest::DeviceKind;
use hvt_abi::note::Target;

use crate::guests::zeros;
use crate::hostile::code::guest;
use crate::support::image::Image;
use crate::support::run::{Outcome, run, tender};
use crate::support::{Scratch, netns, solo5};

fn blk(options: &[&str], bytes: usize) -> (Outcome, Vec<u8>) {
    let scratch =
        Scratch::new(&format!("options-{}", options.join("").replace(|c: char| !c.is_alphanumeric(), "-")));
    let disk = scratch.file("storage.img", &vec![0; bytes]);
    let mut command = tender(&["--mem=2"]);
    command.arg(format!("--block:storage={}", disk.display())).args(options);
    command.arg("--").arg(solo5::guest("blk", "hvt"));
    (run(command), fs::read(disk).expect("readable"))
}

#[test]
fn memory_can_be_4096_mb() {
    let mut command = tender(&["--mem=4096", "--"]);
    command.arg(solo5::guest("quiet", "hvt"));
    run(command).expect_success().expect_says("Solo5: Memory map: 4096 MB addressable:");
}

#[test]
fn odd_memory_is_adjusted() {
    let mut command = tender(&["--mem=5", "--"]);
    command.arg(solo5::guest("quiet", "hvt"));
    let outcome = run(command);
    outcome.expect_success().expect_says("adjusting memory to 4194304 bytes").expect_says("4 MB addressable");
}

#[test]
fn blk_with_sectors_of_4096_bytes() {
    let (outcome, content) = blk(&["--block-sector-size:storage=4096"], 1024 * 4096);
    outcome.expect_success();
    // The guest writes each tenth sector, and the last.
    for sector in [0, 10, 20] {
        assert!(content[sector * 4096..].starts_with(b"0123456789"), "sector {sector}");
    }
    assert!(content[4096..10 * 4096].iter().all(|byte| *byte == 0), "no other");
}

#[test]
fn blk_misaligned() {
    let (outcome, _) = blk(&["--block-sector-size:storage=4096"], 3 * 2048);
    outcome.expect_refusal().expect_says("Backing storage size must be block aligned");
}

#[test]
fn blk_odd() {
    let (outcome, _) = blk(&["--block-sector-size:storage=521"], 3 * 521);
    outcome.expect_refusal().expect_says("Block size must be a multiple of 2");
}

#[test]
fn blk_too_small() {
    let (outcome, _) = blk(&["--block-sector-size:storage=256"], 256);
    outcome.expect_refusal().expect_says("Block size must be a multiple of 2 greater than or equal 512");
    let (outcome, _) = blk(&["--block-sector-size:storage=4096"], 0);
    outcome.expect_refusal().expect_says("Backing storage must be at least 1 block (4096 bytes) in size");
}

#[test]
fn options_of_a_device_may_come_before_it() {
    let scratch = Scratch::new("before");
    let disk = zeros(&scratch, "storage.img", 16);
    let mut command = tender(&["--mem=2", "--block-sector-size:storage=4096"]);
    command.arg(format!("--block:storage={disk}")).arg("--").arg(solo5::guest("blk", "hvt"));
    run(command).expect_success();
}

#[test]
fn net_mtu_is_the_taps() {
    let _ = netns::inside("options::net_mtu_is_the_taps", || {
        netns::tap("tap102", "10.2.0.1/24");
        for mtu in [9000_u16, 1500, 1280] {
            netns::ip(&["link", "set", "dev", "tap102", "mtu", &mtu.to_string()]);
            let scratch = Scratch::new("mtu");
            let image = Image::new(Target::Hvt, guest!(prints_its_mtu)).device("service0", DeviceKind::Net);
            let file = scratch.file("mtu.hvt", &image.bytes());
            let mut command = tender(&["--mem=2", "--net:service0=tap102", "--"]);
            command.arg(file);
            let output = command.output().expect("it starts");
            assert_eq!(output.stdout, mtu.to_le_bytes());
        }
    });
}

#[test]
fn buggyelf() {
    // As in upstream's image: the manifest's note says that it has one byte.
    let mut bytes = Image::new(Target::Hvt, &[0xf4]).bytes();
    let name = bytes.windows(4).position(|window| window == b"MFT1").expect("it has a manifest");
    bytes[name - 4..name].copy_from_slice(&[1, 0, 0, 0]);
    let scratch = Scratch::new("buggyelf");
    let mut command = tender(&["--"]);
    command.arg(scratch.file("buggyelf.hvt", &bytes));
    run(command).expect_refusal().expect_says("note does not fall within valid size");
}

/// Runs a guest with a folder for its core file; what it said, and the file's name and content if there is one.
fn dumped(code: &[u8]) -> (Outcome, Option<(String, Vec<u8>)>) {
    let scratch = Scratch::new("dumpcore");
    let image = scratch.file("guest.hvt", &Image::new(Target::Hvt, code).bytes());
    let folder = scratch.path().join("cores");
    fs::create_dir_all(&folder).expect("writable");
    let mut command = tender(&["--mem=2"]);
    command.arg(format!("--dumpcore={}", folder.display())).arg("--").arg(image);
    let outcome = run(command);
    let core = fs::read_dir(&folder).expect("readable").next().map(|entry| {
        let entry = entry.expect("readable");
        (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("readable"))
    });
    (outcome, core)
}

/// Elf64_Phdr and struct elf_prstatus, in words.
fn word(core: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(core[at..at + 8].try_into().expect("eight bytes"))
}

const MEMORY_HEADER: usize = 64 + 56;
const REGISTERS: usize = 64 + 2 * 56 + 20 + 112;
const RBX: usize = REGISTERS + 5 * 8;
const RIP: usize = REGISTERS + 16 * 8;

#[test]
fn dumpcore_of_a_guest_that_aborts() {
    let (outcome, core) = dumped(guest!(aborts));
    assert_eq!(outcome.code(), Some(255), "{outcome}");
    let (name, core) = core.unwrap_or_else(|| panic!("no core file: {outcome}"));
    outcome.expect_says(&name);
    let pid = name.strip_prefix("core.solo5-hvt.").expect("upstream's name");
    assert!(pid.parse::<u32>().is_ok(), "{name}");
    assert!(core.starts_with(b"\x7fELF\x02\x01\x01\xff"), "an ELF file, standalone");
    let memory_at = usize::try_from(word(&core, MEMORY_HEADER + 8)).expect("a small file");
    assert_eq!(word(&core, MEMORY_HEADER + 32), 2 << 20);
    assert_eq!(core.len(), memory_at + (2 << 20));
    assert_eq!(word(&core, memory_at + 0x18_1000), 0x1122_3344_5566_7788, "memory");
    assert_eq!(&core[memory_at + 0x10_0000..][..guest!(aborts).len()], guest!(aborts), "code as it was");
    assert_eq!(word(&core, RBX), 0x1122_3344_5566_7788, "a register");
    assert!((0x10_0000..0x10_1000).contains(&word(&core, RIP)), "where it stood");
}

#[test]
fn dumpcore_of_a_trap_has_the_traps_registers() {
    let (outcome, core) = dumped(guest!(aborts_from_a_trap));
    assert_eq!(outcome.code(), Some(255), "{outcome}");
    let (_, core) = core.expect("a core file");
    let told: Vec<_> = (16..21).map(|number| word(&core, REGISTERS + 8 * number)).collect();
    assert_eq!(told, [0x12_3456, 8, 0x202, 0x1f_f000, 16]);
}

#[test]
fn dumpcore_leaves_nothing_of_other_ends() {
    for code in [guest!(keeps_sse), guest!(faults)] {
        let (outcome, core) = dumped(code);
        assert!(core.is_none(), "{outcome}");
    }
}

#[test]
fn dumpcore_into_what_is_no_folder_is_refused() {
    let scratch = Scratch::new("no-folder");
    let file = scratch.file("file", b"");
    for folder in [file, scratch.path().join("none")] {
        let mut command = tender(&["--mem=2"]);
        command.arg(format!("--dumpcore={}", folder.display())).arg("--").arg(solo5::guest("hello", "hvt"));
        run(command).expect_refusal().expect_says("dumpcore: cannot open dir");
    }
}
