//! The smallest Solo5 images.

use hvt_abi::manifest::{Entry, KIND_RESERVED_FIRST, MFT_VERSION, NAME_SIZE};
use hvt_abi::note::{ABI1_TYPE, MFT1_TYPE};

pub const NET: u32 = 2;
pub const BLOCK: u32 = 1;
const HVT: u32 = 1;

const PAGE: u64 = 4096;
const ENTRY: u64 = 0x10_0000;
const HEADERS: u64 = 3;
const NOTES_AT: u64 = 64 + HEADERS * 56;

/// An image for hvt that declares these devices and could be loaded, padded to at least `bytes`.
pub fn image(devices: &[(&str, u32)], bytes: usize) -> Vec<u8> {
    image_for(HVT, devices, bytes)
}

/// The same for any target.
pub fn image_for(target: u32, devices: &[(&str, u32)], bytes: usize) -> Vec<u8> {
    let abi = note(ABI1_TYPE, &[target, 2, 0, 0].map(u32::to_le_bytes).concat());
    let manifest = note(MFT1_TYPE, &manifest(devices));
    let manifest_at = NOTES_AT + abi.len() as u64;
    let mut file = elf_header();
    file.extend(program_header(4, 4, NOTES_AT, 0, abi.len() as u64, 4));
    file.extend(program_header(4, 4, manifest_at, 0, manifest.len() as u64, 8));
    file.extend(program_header(1, 5, 2 * PAGE, ENTRY, PAGE, PAGE));
    file.extend(abi);
    file.extend(manifest);
    file.resize(bytes.max(3 * 4096), 0xf4);
    file
}

fn elf_header() -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([2u16, 62].map(u16::to_le_bytes).concat());
    header.extend(1u32.to_le_bytes());
    header.extend([ENTRY, 64, 0].map(u64::to_le_bytes).concat());
    header.extend(0u32.to_le_bytes());
    header.extend([64u16, 56, 3, 0, 0, 0].map(u16::to_le_bytes).concat());
    header
}

fn program_header(kind: u32, flags: u32, offset: u64, address: u64, bytes: u64, align: u64) -> Vec<u8> {
    let words = [kind, flags].map(u32::to_le_bytes).concat();
    [words, [offset, address, address, bytes, bytes, align].map(u64::to_le_bytes).concat()].concat()
}

fn note(kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let length = u32::try_from(descriptor.len()).unwrap();
    let header = [6, length, kind].map(u32::to_le_bytes).concat();
    [&header[..], b"Solo5\0\0\0", descriptor].concat()
}

fn manifest(devices: &[(&str, u32)]) -> Vec<u8> {
    let count = u32::try_from(devices.len() + 1).unwrap();
    // The descriptor starts with four bytes that align the C structure.
    let mut bytes = [0, MFT_VERSION, count].map(u32::to_le_bytes).concat();
    for (name, kind) in [("", KIND_RESERVED_FIRST)].iter().chain(devices) {
        let mut entry = name.as_bytes().to_vec();
        entry.resize(NAME_SIZE, 0);
        entry.extend(kind.to_le_bytes());
        entry.resize(size_of::<Entry>(), 0);
        bytes.extend(entry);
    }
    bytes
}
