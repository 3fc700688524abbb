//! Small Solo5 images, whole but for code.

use petrel_wire::Digest;
use sha2::Digest as _;

pub const HVT: u32 = 1;
pub const SPT: u32 = 2;
pub const BLOCK: u32 = 1;
pub const NET: u32 = 2;

/// What an image is made of.
#[derive(Clone)]
pub struct Recipe<'a> {
    pub target: u32,
    pub version: u32,
    pub devices: &'a [(&'a str, u32)],
    /// The first address after its segment.
    pub end: u64,
    /// Where in the file the notes are.
    pub notes_at: usize,
    /// Bytes after all others, so that images differ.
    pub padding: usize,
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        Self { target: HVT, version: 2, devices: &[], end: 0x20_0000, notes_at: 512, padding: 0 }
    }
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

pub fn build(recipe: &Recipe<'_>) -> Vec<u8> {
    let abi = note(0x3149_4241, &[recipe.target, recipe.version, 0, 0].map(u32::to_le_bytes).concat());
    let manifest = note(0x3154_464d, &manifest(recipe.devices));
    let (abi_at, manifest_at) = (recipe.notes_at as u64, (recipe.notes_at + abi.len()) as u64);
    let base = 0x10_0000u64;
    let headers = [
        program_header(4, 4, abi_at, 0, abi.len() as u64, abi.len() as u64, 4),
        program_header(4, 4, manifest_at, 0, manifest.len() as u64, manifest.len() as u64, 8),
        program_header(1, 5, 0, base, 64, recipe.end - base, 4096),
    ];
    let mut file = elf_header(base, headers.len() as u16);
    file.extend(headers.concat());
    assert!(file.len() <= recipe.notes_at);
    file.resize(recipe.notes_at, 0);
    file.extend(abi);
    file.extend(manifest);
    file.extend((0..recipe.padding).map(|i| (i % 251) as u8));
    file
}

fn elf_header(entry: u64, headers: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([2u16, 62].map(u16::to_le_bytes).concat());
    header.extend(1u32.to_le_bytes());
    header.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    header.extend(0u32.to_le_bytes());
    header.extend([64u16, 56, headers, 0, 0, 0].map(u16::to_le_bytes).concat());
    header
}

fn program_header(
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    bytes: u64,
    memory: u64,
    align: u64,
) -> Vec<u8> {
    let mut header = [kind, flags].map(u32::to_le_bytes).concat();
    header.extend([offset, address, address, bytes, memory, align].map(u64::to_le_bytes).concat());
    header
}

fn note(kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut note = [6, descriptor.len() as u32, kind].map(u32::to_le_bytes).concat();
    note.extend(b"Solo5\0\0\0");
    note.extend(descriptor);
    note
}

fn manifest(devices: &[(&str, u32)]) -> Vec<u8> {
    let mut manifest = vec![0; 4]; // aligns what follows
    manifest.extend([1, devices.len() as u32 + 1].map(u32::to_le_bytes).concat());
    manifest.extend(entry("", 1 << 30));
    devices.iter().for_each(|(name, kind)| manifest.extend(entry(name, *kind)));
    manifest
}

fn entry(name: &str, kind: u32) -> Vec<u8> {
    let mut entry = name.as_bytes().to_vec();
    entry.resize(68, 0);
    entry.extend(kind.to_le_bytes());
    entry.resize(104, 0);
    entry
}
