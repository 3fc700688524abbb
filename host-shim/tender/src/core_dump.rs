//! `--dumpcore`: registers and memory of a guest that aborts, as a core file for a debugger.
//!
//! All that takes rights is done before the tender is confined: the file is opened, but has no name. What is left for later
//! is to fill it and to give it its name, and that is all that the filter and Landlock allow of files.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use hvt_abi::GuestAddr;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, ftruncate, linkat, open, openat};
use rustix::io::{Errno, pwrite};
use rustix::process::getpid;

use crate::{confine::Rule, confine::arg, memory::GuestMemory, report::warn};

/// The exit status of a guest that aborts.
pub const ABORTED: i32 = 255;

/// A guest's registers in the order of `struct user_regs_struct` (sys/user.h).
pub type Registers = [u64; 27];
/// Where some of them are.
pub const RIP: usize = 16;
pub const CS: usize = 17;
pub const EFLAGS: usize = 18;
pub const RSP: usize = 19;
pub const SS: usize = 20;

/// Where the bindings keep rip, cs, rflags, rsp and ss of a trap, in words from the halt cookie.
const TRAP_FRAME: std::ops::Range<usize> = 2..7;

const EHDR: usize = 64;
const PHDR: usize = 56;
const NOTE: usize = 12 + 8;
/// `struct elf_prstatus` (sys/procfs.h), and where it has the process's number and the registers.
const PRSTATUS: usize = 336;
const PRSTATUS_PID: usize = 32;
const PRSTATUS_REGISTERS: usize = 112;
/// All before the memory.
const HEAD: usize = EHDR + 2 * PHDR + NOTE + PRSTATUS;

/// How much is looked at, and written where it is not all zero, at a time.
const CHUNK: u64 = 64 * 1024;

/// A core file without a name.
#[derive(Debug)]
pub struct CoreDump {
    folder: OwnedFd,
    file: OwnedFd,
    /// How long the file is.
    bytes: u64,
    /// Where the kernel shows the file, the name that it gets, and that name with its folder.
    from: CString,
    name: CString,
    path: String,
}

impl CoreDump {
    /// Makes room for a guest with so much memory.
    pub fn prepare(folder: &str, memory_bytes: u64) -> Result<Self, String> {
        let path = folder.trim_end_matches('/');
        let failed = |what: &str, error: Errno| format!("dumpcore: {what}: {folder}: {error}");
        let folder = open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed("cannot open dir", error))?;
        accessat(&folder, ".", Access::WRITE_OK, AtFlags::empty())
            .map_err(|error| failed("dir not writable", error))?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(&folder, ".", flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("cannot make a file there", error))?;
        let bytes = HEAD as u64 + memory_bytes;
        ftruncate(&file, bytes).map_err(|error| failed("no room", error))?;
        let name = format!("core.solo5-hvt.{}", getpid().as_raw_nonzero());
        let path = format!("{path}/{name}");
        let text = |text: String| CString::new(text).map_err(|error| error.to_string());
        let from = text(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(Self { folder, file, bytes, from, name: text(name)?, path })
    }

    /// Where the file is going to be.
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// What must stay open.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.folder.as_raw_fd(), self.file.as_raw_fd()]
    }

    /// The system calls that it takes.
    pub fn rules(&self) -> [Rule; 2] {
        let rule = |call, when, why| Rule { call, when, why };
        let follow = u64::from(AtFlags::SYMLINK_FOLLOW.bits());
        let link = vec![arg(0).eq(libc::AT_FDCWD), arg(2).eq(self.folder.as_raw_fd()), arg(4).eq(follow)];
        let write = vec![arg(0).eq(self.file.as_raw_fd()), arg(2).le(CHUNK), arg(3).le(self.bytes)];
        [
            rule(libc::SYS_pwrite64, write, "fills the core file"),
            rule(libc::SYS_linkat, link, "names the core file"),
        ]
    }

    /// Writes it, for a guest that aborted with these registers. With a `cookie` that is not null, those of a trap are there.
    pub fn write(&self, memory: &GuestMemory, mut registers: Registers, cookie: GuestAddr) {
        warn(format_args!("dumpcore: dumping guest core to: {}", self.path));
        if let Ok(frame) = memory.read::<[u64; TRAP_FRAME.end]>(cookie) {
            for (register, value) in [RIP, CS, EFLAGS, RSP, SS].into_iter().zip(&frame[TRAP_FRAME]) {
                registers[register] = *value;
            }
        }
        let done = self
            .fill(memory, &registers)
            .and_then(|()| linkat(CWD, &self.from, &self.folder, &self.name, AtFlags::SYMLINK_FOLLOW));
        if let Err(error) = done {
            warn(format_args!("dumpcore: error dumping core: {error}"));
        }
    }

    fn fill(&self, memory: &GuestMemory, registers: &Registers) -> Result<(), Errno> {
        pwrite(&self.file, &head(memory.size(), registers), 0)?;
        let mut at = 0;
        while at < memory.size() {
            let len = CHUNK.min(memory.size() - at);
            // What the guest cannot read is not in its core. The file is all zero already.
            match memory.bytes(GuestAddr::new(at), len) {
                Ok(bytes) if bytes.iter().any(|byte| *byte != 0) => {
                    pwrite(&self.file, bytes, HEAD as u64 + at)?;
                }
                _ => {}
            }
            at += len;
        }
        Ok(())
    }
}

/// An ELF header, program headers for a note and the memory, and the note: an NT_PRSTATUS.
fn head(memory_bytes: u64, registers: &Registers) -> [u8; HEAD] {
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    const NOTE_AT: usize = EHDR + 2 * PHDR;
    const STATUS_AT: usize = NOTE_AT + NOTE;
    let mut head = [0; HEAD];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    // 64-bit, little-endian, standalone; a core file for x86_64.
    put(0, b"\x7fELF\x02\x01\x01\xff");
    put(16, &[4, 0, 62, 0, 1]);
    put(32, &[64]);
    put(52, &[64, 0, 56, 0, 2]);
    let mut segment = |at: usize, kind: u32, offset: usize, len: u64| {
        put(at, &kind.to_le_bytes());
        put(at + 8, &(offset as u64).to_le_bytes());
        put(at + 32, &len.to_le_bytes());
        put(at + 40, &len.to_le_bytes());
    };
    segment(EHDR, PT_NOTE, NOTE_AT, (NOTE + PRSTATUS) as u64);
    segment(EHDR + PHDR, PT_LOAD, HEAD, memory_bytes);
    put(NOTE_AT, &[8]);
    put(NOTE_AT + 4, &PRSTATUS.to_le_bytes()[..4]);
    put(NOTE_AT + 8, &[1]);
    put(NOTE_AT + 12, b"CORE");
    put(STATUS_AT + PRSTATUS_PID, &[1]);
    for (number, register) in registers.iter().enumerate() {
        put(STATUS_AT + PRSTATUS_REGISTERS + 8 * number, &register.to_le_bytes());
    }
    head
}
