//! What a guest can ask for, the same on every backend.

use std::fmt;
use std::mem::offset_of;

use hvt_abi::GuestAddr;
use hvt_abi::hypercall::{
    BlockRead, BlockWrite, HALT_COOKIE_MAX, Halt, Hypercall, NetRead, NetWrite, Poll, Puts, Walltime, ret,
};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::console;
use crate::devices::{Attached, Waited};
use crate::memory::{BadAccess, GuestMemory};

/// What follows a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest goes on.
    Continue,
    /// The guest ended with this status.
    Halt(i32),
}

/// Why a guest cannot go on. The guest is at fault, or the host failed under it.
#[derive(Debug)]
pub enum Fault {
    /// It gave an address that is not its own to use.
    Access(BadAccess),
    /// It used an I/O port that means nothing, or in a way that means nothing.
    Port(u16),
    /// It broke the protection of its own segments.
    TranslationFault {
        /// Where.
        rip: u64,
    },
    /// Reading a device failed.
    Read(Errno),
    /// Writing a device failed.
    Write(Errno),
    /// A device took or gave fewer bytes than it must.
    Short {
        /// "wrote" or "read".
        what: &'static str,
        /// Bytes done.
        done: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// Waiting for devices failed.
    Poll(Errno),
    /// Anything that only a backend knows.
    Backend(String),
}

impl From<BadAccess> for Fault {
    fn from(bad: BadAccess) -> Self {
        Self::Access(bad)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(bad) => {
                write!(f, "Invalid guest access: gpa=0x{:x}, sz={}", bad.addr.raw(), bad.len)
            }
            Self::Port(port) => write!(f, "Invalid guest port access: port=0x{port:x}"),
            Self::TranslationFault { rip } => write!(f, "host/guest translation fault: rip=0x{rip:x}"),
            Self::Read(error) => write!(f, "Fatal error when reading: {error}"),
            Self::Write(error) => write!(f, "Fatal error when writing: {error}"),
            Self::Short { what, done, wanted } => {
                write!(f, "Fatal error: {what} only {done} out of {wanted} bytes")
            }
            Self::Poll(error) => write!(f, "Fatal error when waiting for devices: {error}"),
            Self::Backend(text) => f.write_str(text),
        }
    }
}

/// A guest as the hypercalls see it.
#[derive(Debug)]
pub struct Vm {
    /// Its memory.
    pub memory: GuestMemory,
    /// Its devices.
    pub devices: Attached,
}

impl Vm {
    /// Does what the guest asked for by writing `argument` to `port`.
    pub fn hypercall(&mut self, port: u16, argument: GuestAddr) -> Result<Outcome, Fault> {
        match Hypercall::from_port(port).ok_or(Fault::Port(port))? {
            Hypercall::Walltime => self.walltime(argument)?,
            Hypercall::Puts => self.puts(argument)?,
            Hypercall::Poll => self.poll(argument)?,
            Hypercall::BlockWrite => self.block_write(argument)?,
            Hypercall::BlockRead => self.block_read(argument)?,
            Hypercall::NetWrite => self.net_write(argument)?,
            Hypercall::NetRead => self.net_read(argument)?,
            Hypercall::Halt => return self.halt(argument),
        }
        Ok(Outcome::Continue)
    }

    /// Copies an output field to its place in the argument block.
    fn answer<T: crate::memory::Plain>(
        &mut self,
        argument: GuestAddr,
        field: usize,
        value: T,
    ) -> Result<(), Fault> {
        // The block was read as a whole before, so its end does not overflow.
        let field = GuestAddr::new(argument.raw() + field as u64);
        Ok(self.memory.write(field, value)?)
    }

    fn walltime(&mut self, argument: GuestAddr) -> Result<(), Fault> {
        let now = clock_gettime(ClockId::Realtime);
        let nsecs = now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000);
        let nsecs = nsecs.wrapping_add(now.tv_nsec.cast_unsigned());
        Ok(self.memory.write(argument, Walltime { nsecs })?)
    }

    fn puts(&mut self, argument: GuestAddr) -> Result<(), Fault> {
        let puts: Puts = self.memory.read(argument)?;
        console::write(self.memory.bytes(puts.data, puts.len)?).map_err(Fault::Write)
    }

    fn poll(&mut self, argument: GuestAddr) -> Result<(), Fault> {
        let poll: Poll = self.memory.read(argument)?;
        let Waited { ready_set, count } = self.devices.wait(poll.timeout_nsecs).map_err(Fault::Poll)?;
        self.answer(argument, offset_of!(Poll, ready_set), ready_set)?;
        self.answer(argument, offset_of!(Poll, ret), count)
    }

    fn block_write(&mut self, argument: GuestAddr) -> Result<(), Fault> {
        let call: BlockWrite = self.memory.read(argument)?;
        let result = match self.devices.block(call.handle) {
            Some(device) if device.admits(call.offset, call.len) => {
                device.write(call.offset, self.memory.bytes(call.data, call.len)?)
            }
            _ => ret::EINVAL,
        };
        self.answer(argument, offset_of!(BlockWrite, ret), result)
    }

    fn block_read(&mut self, argument: GuestAddr) -> Result<(), Fault> {
        let call: BlockRead = self.memory.read(argument)?;
        let result = match self.devices.block(call.handle) {
            Some(device) if device.admits(call.offset, call.len) => {
                device.read(call.offset, self.memory.bytes_mut(call.data, call.len)?)
            }
            _ => ret::EINVAL,
        };
        self.answer(argument, offset_of!(BlockRead, ret), result)
    }

    fn net_write(&mut self, argument: GuestAddr) -> Result<(), Fault> {
        let call: NetWrite = self.memory.read(argument)?;
        let result = match self.devices.net(call.handle) {
            Some(device) => device.write(self.memory.bytes(call.data, call.len)?)?,
            None => ret::EINVAL,
        };
        self.answer(argument, offset_of!(NetWrite, ret), result)
    }

    fn net_read(&mut self, argument: GuestAddr) -> Result<(), Fault> {
        let call: NetRead = self.memory.read(argument)?;
        let Some(device) = self.devices.net(call.handle) else {
            return self.answer(argument, offset_of!(NetRead, ret), ret::EINVAL);
        };
        match device.read(self.memory.bytes_mut(call.data, call.len)?)? {
            Some(len) => {
                self.answer(argument, offset_of!(NetRead, len), len as u64)?;
                self.answer(argument, offset_of!(NetRead, ret), ret::OK)
            }
            None => self.answer(argument, offset_of!(NetRead, ret), ret::AGAIN),
        }
    }

    fn halt(&mut self, argument: GuestAddr) -> Result<Outcome, Fault> {
        let halt: Halt = self.memory.read(argument)?;
        if !halt.cookie.is_null() {
            self.memory.bytes(halt.cookie, HALT_COOKIE_MAX)?;
        }
        Ok(Outcome::Halt(halt.exit_status))
    }
}
