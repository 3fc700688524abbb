//! Reading an image, and putting it into guest memory.

use std::ffi::OsStr;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use hvt_abi::GuestAddr;
use hvt_abi::elf::{
    Devices, ElfError, FileRange, HEADER_BYTES, Header, Layout, NOTES_BYTES_MAX, Notes, Permissions,
};
use hvt_abi::note::Target;
use rustix::mm::MprotectFlags;

use crate::memory::{GuestMemory, usize_from};

/// An image whose headers and notes are checked.
#[derive(Debug)]
pub struct Image {
    path: String,
    file: File,
    header: Header,
    /// What it is made for: hvt or spt.
    pub target: Target,
    /// The devices it declares.
    pub devices: Devices,
    /// Where its segments go.
    pub layout: Layout,
}

impl Image {
    /// Opens and checks the image at `path`.
    pub fn open(path: &OsStr) -> Result<Self, String> {
        let name = path.to_string_lossy().into_owned();
        let file = File::open(path).map_err(|error| format!("{name}: Could not open: {error}"))?;
        let failed = |error: std::io::Error| format!("{name}: Could not read: {error}");
        let len = file.metadata().map_err(failed)?.len();
        let mut first = [0; HEADER_BYTES];
        let count = read_up_to(&file, &mut first).map_err(failed)?;
        let invalid = |error| describe(&name, error);
        let header = Header::parse(first.get(..count).unwrap_or(&[]), len).map_err(invalid)?;
        let mut notes = [0; usize_from(NOTES_BYTES_MAX)];
        let range = header.notes_range();
        let notes = notes.get_mut(..usize_from(range.len)).unwrap_or_default();
        file.read_exact_at(notes, range.offset).map_err(failed)?;
        let Notes { abi, devices } = Notes::parse(&header, notes).map_err(invalid)?;
        abi.require_hvt_or_spt().map_err(invalid)?;
        let layout = header.layout().map_err(invalid)?;
        Ok(Self { path: name, file, header, target: abi.target, devices, layout })
    }

    /// Copies the segments to their places. Memory is still all zero and all writable.
    pub fn load(&self, memory: &mut GuestMemory) -> Result<(), String> {
        if self.layout.end() >= memory.size() {
            return Err(format!(
                "{}: invalid executable: it ends at 0x{:x}, guest memory at 0x{:x}: give it more memory (--mem)",
                self.path,
                self.layout.end(),
                memory.size()
            ));
        }
        for segment in self.layout.segments() {
            let FileRange { offset, len } = segment.file;
            let to = memory.bytes_mut(GuestAddr::new(segment.load_at), len);
            let to = to.map_err(|_| format!("{}: invalid executable: segment out of memory", self.path))?;
            self.file
                .read_exact_at(to, offset)
                .map_err(|error| format!("{}: Could not read: {error}", self.path))?;
        }
        Ok(())
    }

    /// The addresses of machine code.
    pub fn code(&self) -> Vec<Range<u64>> {
        let range = self.header.section_table().unwrap_or_default();
        let mut table = vec![0; usize_from(range.len)];
        match self.file.read_exact_at(&mut table, range.offset) {
            Ok(()) => hvt_abi::elf::code(&table, &self.layout).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Gives the segments their permissions. Where the guest runs in our own address space (`executes_here`), that
    /// includes the one to execute; otherwise the host only ever reads its code.
    pub fn protect(&self, memory: &mut GuestMemory, executes_here: bool) -> Result<(), String> {
        for segment in self.layout.segments() {
            let Permissions { read, write, execute } = segment.permissions;
            let mut host = MprotectFlags::empty();
            host.set(MprotectFlags::READ, read || execute);
            host.set(MprotectFlags::WRITE, write);
            host.set(MprotectFlags::EXEC, execute && executes_here);
            memory
                .protect(segment.start..segment.end, segment.permissions, host)
                .map_err(|error| format!("{}: {error}", self.path))?;
        }
        Ok(())
    }
}

/// Reads from the start of a file until `buffer` is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Upstream's words, where it has some for the case.
fn describe(path: &str, error: ElfError) -> String {
    match error {
        ElfError::NoAbiNote => format!("{path}: No Solo5 ABI information found in executable"),
        ElfError::NoManifest => format!("{path}: No Solo5 manifest found in executable"),
        ElfError::BadManifest(fault) => format!("{path}: Solo5 manifest is invalid: {fault}"),
        ElfError::WrongTarget(target) => {
            format!(
                "{path}: Executable is not for the solo5-hvt target, nor for solo5-spt (it is for {})",
                target.name()
            )
        }
        ElfError::WrongAbiVersion(version) => {
            format!("{path}: Executable requests unsupported ABI version {version}")
        }
        other => format!("{path}: invalid or unsupported executable: {other}"),
    }
}
