//! Net devices: taps.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hvt_abi::hypercall::ret;
use hvt_abi::manifest::Properties;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read, write};

use super::{inherited, tap};
use crate::confine::{Rule, arg};
use crate::hypercalls::Fault;

/// Largest frame in bytes, either way: more than any Ethernet has, with what a tap may aggregate.
pub const FRAME_MAX: usize = 65_536;

/// MTU in bytes of a tap that cannot be asked for it, because it lives in another network namespace.
const DEFAULT_MTU: u16 = 1500;

/// An attached net device.
#[derive(Debug)]
pub struct Net {
    /// Never closed: the device lives as long as the process.
    pub(super) fd: BorrowedFd<'static>,
    /// All zero until [`Net::complete`] has set it.
    mac: [u8; 6],
    mtu: u16,
}

impl Net {
    pub(super) fn attach(name: &str, interface: &str) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("Could not attach interface: {name}: {interface}: {error}")
        };
        let (fd, mtu) = match inherited::take(interface) {
            Some(fd) => {
                let fd = fd.map_err(|error| failed(&error))?;
                let name = tap::name(&fd).map_err(|error| failed(&error))?;
                (fd, tap::mtu(&name).unwrap_or(DEFAULT_MTU))
            }
            None => tap::open(interface).map_err(|error| failed(&error))?,
        };
        fcntl_setfl(&fd, OFlags::NONBLOCK).map_err(|error| failed(&error))?;
        Ok(Self::over(fd, mtu))
    }

    /// A device over anything that sends and receives frames, and does not block.
    pub(super) fn over(fd: OwnedFd, mtu: u16) -> Self {
        let fd: &OwnedFd = Box::leak(Box::new(fd));
        Self { fd: fd.as_fd(), mac: [0; 6], mtu }
    }

    pub(super) fn complete(&mut self, mac: Option<[u8; 6]>) -> Result<(), String> {
        let random = || random_mac().map_err(|error| format!("Could not make a hardware address: {error}"));
        self.mac = mac.map_or_else(random, Ok)?;
        Ok(())
    }

    pub(super) fn properties(&self) -> Properties {
        Properties::net(self.mac, self.mtu)
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        [(libc::SYS_read, "receives a frame"), (libc::SYS_write, "sends a frame")]
            .map(|(call, why)| Rule {
                call,
                when: vec![arg(0).eq(self.fd.as_raw_fd()), arg(2).le(FRAME_MAX as u64)],
                why,
            })
            .into()
    }

    /// Sends a frame; returns what the guest is told.
    pub fn write(&self, frame: &[u8]) -> Result<i32, Fault> {
        if frame.len() > FRAME_MAX {
            return Ok(ret::EINVAL);
        }
        sent(write(self.fd, frame), frame.len())
    }

    /// Receives a frame into `buffer`: its length, or nothing where none has come.
    pub fn read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Fault> {
        let room = buffer.len().min(FRAME_MAX);
        received(read(self.fd, &mut buffer[..room]))
    }
}

/// What a guest is told of a frame that it sent.
pub fn sent(result: Result<usize, Errno>, wanted: usize) -> Result<i32, Fault> {
    match result {
        Ok(done) if done == wanted => Ok(ret::OK),
        Ok(done) => Err(Fault::Short { what: "wrote", done, wanted }),
        // A link that is down (IO) or busy loses frames; it does not end those who send them.
        Err(Errno::IO | Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Ok(ret::OK),
        Err(error) => Err(Fault::Write(error)),
    }
}

/// The length of a frame that came, if one did.
pub fn received(result: Result<usize, Errno>) -> Result<Option<usize>, Fault> {
    match result {
        Ok(0) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Ok(len) => Ok(Some(len)),
        Err(error) => Err(Fault::Read(error)),
    }
}

/// A hardware address that is nobody's: locally administered, unicast.
fn random_mac() -> Result<[u8; 6], Errno> {
    let mut mac = [0; 6];
    rustix::rand::getrandom(&mut mac, rustix::rand::GetRandomFlags::empty())?;
    mac[0] = mac[0] & 0xfe | 0x02;
    Ok(mac)
}
