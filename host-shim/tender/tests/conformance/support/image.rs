//! Images made in the test itself: a few instructions, and all that a Solo5 executable has around them.

use hvt_abi::elf::HEADER_BYTES;
use hvt_abi::manifest::{DeviceKind, KIND_RESERVED_FIRST, MFT_VERSION, NAME_SIZE};
use hvt_abi::note::{ABI1_TYPE, MFT1_TYPE, SOLO5_NAME, Target};

/// Where the code lies in guest memory, and its first instruction.
pub const TEXT: u64 = 0x10_0000;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const READ: u32 = 4;
const READ_EXECUTE: u32 = 5;
/// The file: headers, then notes, then the code, each in pages of its own.
const NOTES_AT: usize = HEADER_BYTES;
const CODE_AT: usize = NOTES_AT + 4 * HEADER_BYTES;

/// An image in the making.
pub struct Image {
    target: Target,
    code: Vec<u8>,
    devices: Vec<(String, DeviceKind)>,
}

impl Image {
    /// An image for `target` that executes `code` and declares no devices.
    pub fn new(target: Target, code: &[u8]) -> Image {
        Image { target, code: code.to_vec(), devices: Vec::new() }
    }

    /// Declares a device.
    pub fn device(mut self, name: &str, kind: DeviceKind) -> Image {
        self.devices.push((name.to_owned(), kind));
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let openbsd = [&words(&[8, 4, 1])[..], b"OpenBSD\0", &words(&[0])].concat();
        let abi = solo5_note(ABI1_TYPE, &words(&[self.target.raw(), 2, 0, 0]));
        let notes = [openbsd, abi, solo5_note(MFT1_TYPE, &self.manifest())];

        let mut headers = elf_header(1 + notes.len());
        headers.extend(program_header(PT_LOAD, READ_EXECUTE, CODE_AT, self.code.len(), TEXT));
        let mut content = Vec::new();
        for note in notes {
            headers.extend(program_header(PT_NOTE, READ, NOTES_AT + content.len(), note.len(), 0));
            content.extend(note);
        }
        let mut file = headers;
        file.resize(NOTES_AT, 0);
        file.extend(content);
        file.resize(CODE_AT, 0);
        file.extend(&self.code);
        let section = executable_section(self.code.len());
        let sections_at = file.len() as u64;
        file.extend(section);
        // e_shoff and e_shnum.
        file[40..48].copy_from_slice(&sections_at.to_le_bytes());
        file[60] = 1;
        file
    }

    fn manifest(&self) -> Vec<u8> {
        let first = (String::new(), KIND_RESERVED_FIRST);
        let devices = self.devices.iter().map(|(name, kind)| (name.clone(), *kind as u32));
        let entries: Vec<_> = std::iter::once(first).chain(devices).collect();
        let count = u32::try_from(entries.len()).expect("a few");
        // The first word aligns the manifest as its C structure.
        let mut bytes = words(&[0, MFT_VERSION, count]);
        for (name, kind) in entries {
            let mut field = name.into_bytes();
            field.resize(NAME_SIZE, 0);
            bytes.extend(field);
            bytes.extend(words(&[kind]));
            bytes.extend([0; 32]);
        }
        bytes
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn solo5_note(kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let len = u32::try_from(descriptor.len()).expect("a small note");
    [&words(&[6, len, kind])[..], &SOLO5_NAME, descriptor].concat()
}

/// Elf64_Ehdr of an executable for x86_64.
fn elf_header(program_headers: usize) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    header.extend(TEXT.to_le_bytes());
    header.extend(64_u64.to_le_bytes());
    header.extend([0; 12]);
    let count = u8::try_from(program_headers).expect("a few");
    header.extend([64, 0, 56, 0, count, 0, 64, 0, 0, 0, 0, 0]);
    header
}

fn program_header(kind: u32, flags: u32, at: usize, len: usize, address: u64) -> Vec<u8> {
    let len = len as u64;
    let numbers = [at as u64, address, address, len, len, if kind == PT_LOAD { 4096 } else { 4 }];
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    words(&[kind, flags]).into_iter().chain(numbers).collect()
}

/// Elf64_Shdr of the code: where ring 3 looks for hypercalls to patch.
fn executable_section(len: usize) -> Vec<u8> {
    const ALLOCATED_AND_EXECUTABLE: u64 = 2 | 4;
    let numbers = [ALLOCATED_AND_EXECUTABLE, TEXT, CODE_AT as u64, len as u64, 0, 16, 0];
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    words(&[0, 1]).into_iter().chain(numbers).collect()
}
