//! What the guest finds in memory when it starts: boot information, manifest, command line.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

use hvt_abi::GuestAddr;
use hvt_abi::boot::{BOOT_INFO_BASE, BootInfo, CMDLINE_SIZE};
use hvt_abi::manifest::{Entry, MFT_VERSION, ManifestHeader};
use hvt_abi::spt;

use crate::clock;
use crate::devices::Attached;
use crate::memory::{GuestMemory, Plain};

/// The guest's command line: its arguments with spaces between.
pub fn command_line(arguments: &[OsString]) -> Result<Vec<u8>, String> {
    let words: Vec<&[u8]> = arguments.iter().map(|word| word.as_bytes()).collect();
    let line = words.join(&b' ');
    // A NUL must follow.
    if line.len() < CMDLINE_SIZE {
        Ok(line)
    } else {
        Err(format!("Guest command line too long (max={} characters)", CMDLINE_SIZE - 1))
    }
}

/// What there is to tell a guest.
#[derive(Debug)]
pub struct Told<'a> {
    /// Its devices.
    pub devices: &'a Attached,
    /// Its arguments, as [`command_line`] makes them.
    pub command_line: &'a [u8],
    /// First address after its image.
    pub kernel_end: u64,
    /// Frequency of the time-stamp counter in kHz, where the user knows it.
    pub tsc_khz: Option<u32>,
}

/// Writes all that an hvt guest is told, and returns where its [`BootInfo`] is.
pub fn write_info(memory: &mut GuestMemory, told: &Told) -> Result<GuestAddr, String> {
    let tsc_khz = told.tsc_khz.map_or_else(clock::tsc_khz, Ok)?;
    let mem_size = memory.size();
    let info = |mft, cmdline| BootInfo {
        mem_size,
        kernel_end: told.kernel_end,
        cpu_cycle_freq: u64::from(tsc_khz) * 1000,
        cmdline,
        mft,
        ..BootInfo::default()
    };
    write(memory, BOOT_INFO_BASE, told, told.devices.manifest(), info)
}

/// Writes all that an spt guest is told, and returns where its [`spt::BootInfo`] is.
pub fn write_spt_info(
    memory: &mut GuestMemory,
    told: &Told,
    epollfd: RawFd,
    timerfd: RawFd,
) -> Result<GuestAddr, String> {
    let mem_size = memory.size();
    let info = |mft, cmdline| spt::BootInfo {
        mem_size,
        kernel_end: told.kernel_end,
        cmdline,
        mft,
        epollfd,
        timerfd,
    };
    write(memory, spt::BOOT_INFO_BASE, told, told.devices.manifest_with_descriptors(), info)
}

/// From `base` on: boot information, made of the addresses of what follows it; manifest; command line.
fn write<T: Plain>(
    memory: &mut GuestMemory,
    base: u64,
    told: &Told,
    manifest: impl Iterator<Item = Entry>,
    info: impl FnOnce(GuestAddr, GuestAddr) -> T,
) -> Result<GuestAddr, String> {
    let entries: Vec<Entry> = manifest.collect();
    let mft = base + size_of::<T>() as u64;
    let cmdline = mft + (size_of::<ManifestHeader>() + size_of::<Entry>() * entries.len()) as u64;
    let count = u32::try_from(entries.len()).map_err(|_| "too many devices")?;
    let mut writer = Writer { memory, at: base };
    writer.put(info(GuestAddr::new(mft), GuestAddr::new(cmdline)))?;
    writer.put(ManifestHeader { version: MFT_VERSION, entries: count })?;
    for entry in entries {
        writer.put(entry)?;
    }
    // The NUL behind it is there already: guest memory starts out zeroed.
    writer.bytes(told.command_line.len())?.copy_from_slice(told.command_line);
    Ok(GuestAddr::new(base))
}

/// Writes one thing after the other into the tender's own area.
struct Writer<'a> {
    memory: &'a mut GuestMemory,
    at: u64,
}

impl Writer<'_> {
    fn put<T: Plain>(&mut self, value: T) -> Result<(), String> {
        let at = self.at;
        self.at += size_of::<T>() as u64;
        self.memory.write_private(at, value).map_err(|_| no_room())
    }

    fn bytes(&mut self, len: usize) -> Result<&mut [u8], String> {
        self.memory.private_mut(self.at, len as u64).map_err(|_| no_room())
    }
}

fn no_room() -> String {
    "guest memory is too small for boot information".into()
}
