//! The guest's devices and what backs them on the host.

mod block;
mod inherited;
mod net;
mod tap;

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use hvt_abi::elf::Devices;
use hvt_abi::manifest::{DeviceKind, Entry, MAX_ENTRIES, NAME_SIZE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use block::Block;
use net::Net;
pub use net::{FRAME_MAX, received, sent};

use crate::confine::{Rule, arg};

/// A device that has something behind it.
#[derive(Debug)]
enum Device {
    Net(Net),
    Block(Block),
}

/// The devices that an image declares, and what is attached to each.
#[derive(Debug)]
pub struct Attached {
    declared: Devices,
    /// By handle, so the first is the manifest's reserved entry.
    attached: [Option<Device>; MAX_ENTRIES],
    /// What the user wants of them, in whatever order the options come.
    wishes: [Wish; MAX_ENTRIES],
    /// What [`Attached::wait`] waits for, and the handle of each; made once, by [`Attached::complete`].
    readable: Vec<PollFd<'static>>,
    handles: Vec<u8>,
}

/// What a user may want of a device.
#[derive(Clone, Copy, Debug, Default)]
struct Wish {
    mac: Option<[u8; 6]>,
    block_size: Option<u16>,
}

/// What [`Attached::wait`] found.
#[derive(Debug)]
pub struct Waited {
    /// Bit `h` is set when the net device with handle `h` can be read.
    pub ready_set: u64,
    /// The number of bits set.
    pub count: i32,
}

impl Attached {
    /// Nothing attached yet.
    pub fn new(declared: Devices) -> Self {
        Self {
            declared,
            attached: [const { None }; MAX_ENTRIES],
            wishes: [Wish::default(); MAX_ENTRIES],
            readable: Vec::new(),
            handles: Vec::new(),
        }
    }

    /// Attaches the tap `interface`, or the inherited descriptor that it names as `@FD`.
    pub fn attach_net(&mut self, name: &str, interface: &str) -> Result<(), String> {
        let slot = self.free_slot(name, DeviceKind::Net)?;
        *slot = Some(Device::Net(Net::attach(name, interface)?));
        Ok(())
    }

    /// Attaches the file or block device at `path`, or the inherited descriptor that it names as `@FD`.
    pub fn attach_block(&mut self, name: &str, path: &str) -> Result<(), String> {
        let slot = self.free_slot(name, DeviceKind::Block)?;
        *slot = Some(Device::Block(Block::attach(name, path)?));
        Ok(())
    }

    /// Attaches a socket in place of a tap.
    #[cfg(test)]
    pub fn attach_socket(&mut self, name: &str, socket: std::os::fd::OwnedFd) {
        let slot = self.free_slot(name, DeviceKind::Net).unwrap();
        *slot = Some(Device::Net(Net::over(socket, 1500)));
    }

    /// Gives a net its hardware address, in place of a random one.
    pub fn set_mac(&mut self, name: &str, mac: [u8; 6]) -> Result<(), String> {
        let handle = self.handle(name, DeviceKind::Net)?;
        self.wishes[handle].mac = Some(mac);
        Ok(())
    }

    /// Gives a block device its block size in bytes.
    pub fn set_block_size(&mut self, name: &str, bytes: u16) -> Result<(), String> {
        let handle = self.handle(name, DeviceKind::Block)?;
        self.wishes[handle].block_size = Some(bytes);
        Ok(())
    }

    /// Checks that all declared devices are attached and sound, and completes what the user left open. All faults
    /// are in the error, one a line.
    pub fn complete(&mut self) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        for (handle, device) in self.declared.iter() {
            let Wish { mac, block_size } = self.wishes[usize::from(handle)];
            match &mut self.attached[usize::from(handle)] {
                Some(Device::Net(net)) => {
                    self.readable.push(PollFd::from_borrowed_fd(net.fd, PollFlags::IN));
                    self.handles.push(handle);
                    faults.extend(net.complete(mac).err());
                }
                Some(Device::Block(block)) => {
                    faults.extend(block.complete(device.name(), block_size).err());
                }
                None => faults.push(format!(
                    "Device '{}' of type {} declared but not attached.",
                    device.name(),
                    device.kind.solo5_name()
                )),
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// The manifest's entries as the guest shall see them.
    pub fn manifest(&self) -> impl Iterator<Item = Entry> {
        let devices = self.declared.iter().map(|(handle, device)| {
            let mut name = [0; NAME_SIZE];
            for (to, from) in name.iter_mut().zip(device.name().bytes()) {
                *to = from;
            }
            let properties = match self.attached.get(usize::from(handle)).and_then(Option::as_ref) {
                Some(Device::Net(net)) => net.properties(),
                Some(Device::Block(block)) => block.properties(),
                None => return Entry::RESERVED_FIRST,
            };
            Entry { name, kind: device.kind as u32, properties, attached: 1, ..Entry::RESERVED_FIRST }
        });
        std::iter::once(Entry::RESERVED_FIRST).chain(devices)
    }

    /// The same for a guest that uses the descriptors itself.
    pub fn manifest_with_descriptors(&self) -> impl Iterator<Item = Entry> {
        let descriptors = std::iter::once(0).chain(self.descriptors());
        self.manifest()
            .zip(descriptors)
            .map(|(entry, fd)| Entry { backing: u64::from(fd.cast_unsigned()), ..entry })
    }

    /// The net devices with their handles.
    pub fn nets(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        let handles = self.handles.iter().map(|handle| u64::from(*handle));
        handles.filter_map(|handle| Some((handle, self.net(handle)?.fd)))
    }

    /// The net device with this handle.
    pub fn net(&self, handle: u64) -> Option<&Net> {
        match self.attached.get(usize::try_from(handle).ok()?)?.as_ref()? {
            Device::Net(net) => Some(net),
            Device::Block(_) => None,
        }
    }

    /// The block device with this handle.
    pub fn block(&self, handle: u64) -> Option<&Block> {
        match self.attached.get(usize::try_from(handle).ok()?)?.as_ref()? {
            Device::Block(block) => Some(block),
            Device::Net(_) => None,
        }
    }

    /// Sleeps until a net device can be read, at most for `timeout_nsecs`.
    pub fn wait(&mut self, timeout_nsecs: u64) -> Result<Waited, Errno> {
        const NSECS: u64 = 1_000_000_000;
        let timeout = Timespec {
            // Both fit: a u64 of nanoseconds is less than 600 years.
            tv_sec: (timeout_nsecs / NSECS).cast_signed(),
            tv_nsec: (timeout_nsecs % NSECS).cast_signed(),
        };
        let mut waited = Waited { ready_set: 0, count: 0 };
        match poll(&mut self.readable, Some(&timeout)) {
            // No signal that we handle returns, so INTR is left to the guest as an early wake-up.
            Ok(0) | Err(Errno::INTR) => return Ok(waited),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        for (fd, handle) in self.readable.iter().zip(&self.handles) {
            if !fd.revents().is_empty() {
                waited.ready_set |= 1 << handle;
                waited.count += 1;
            }
        }
        Ok(waited)
    }

    /// The descriptors behind the devices.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let fd = |device: &Device| match device {
            Device::Net(net) => net.fd.as_raw_fd(),
            Device::Block(block) => block.fd.as_raw_fd(),
        };
        self.attached.iter().flatten().map(fd).collect()
    }

    /// The system calls that move data, whoever makes them.
    pub fn transfers(&self) -> impl Iterator<Item = Rule> {
        self.attached.iter().flatten().flat_map(|device| match device {
            Device::Net(net) => net.rules(),
            Device::Block(block) => block.rules(),
        })
    }

    /// The system call of [`Attached::wait`] and [`crate::console::write`].
    pub fn waiting(&self) -> Rule {
        Rule {
            call: libc::SYS_ppoll,
            // One also where there is no net device: the console may have to be waited for.
            when: vec![arg(1).le(self.readable.len().max(1) as u64), arg(3).eq(0u64)],
            why: "waits for net devices, or for room in the console",
        }
    }

    /// A declared device's handle: its index in all arrays here, as an image has at most [`MAX_ENTRIES`].
    fn handle(&self, name: &str, kind: DeviceKind) -> Result<usize, String> {
        let found = self.declared.find(name).filter(|(_, device)| device.kind == kind);
        let handle = found.map(|(handle, _)| usize::from(handle)).filter(|handle| *handle < MAX_ENTRIES);
        handle.ok_or_else(|| format!("Resource not declared in manifest: '{name}'"))
    }

    fn free_slot(&mut self, name: &str, kind: DeviceKind) -> Result<&mut Option<Device>, String> {
        let handle = self.handle(name, kind)?;
        match &mut self.attached[handle] {
            Some(_) => Err(format!("Resource attached twice: '{name}'")),
            slot => Ok(slot),
        }
    }
}
