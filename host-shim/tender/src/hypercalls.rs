//! What a guest can ask for, the same on every backend.

#[cfg(test)]
mod tests;

use std::fmt;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use hvt_abi::GuestAddr;
use hvt_abi::hypercall::{
    BlockRead, BlockWrite, HALT_COOKIE_MAX, Halt, Hypercall, NetRead, NetWrite, Poll, Puts, Walltime, ret,
};
use rustix::io::Errno;

use crate::confine::{Rule, arg};
use crate::console;
use crate::core_dump::{ABORTED, CoreDump, Registers};
use crate::devices::{Attached, Waited};
use crate::memory::{BadAccess, GuestMemory};

/// What follows a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest goes on.
    Continue,
    /// The guest ended.
    Halt {
        /// With this status.
        status: i32,
        /// Null, or where it left a trap's registers.
        cookie: GuestAddr,
    },
}

/// Why a guest cannot go on. The guest is at fault, or the host failed under it.
#[derive(Debug)]
pub enum Fault {
    /// It gave an address that is not its own to use.
    Access(BadAccess),
    /// It used an I/O port that means nothing, or in a way that means nothing.
    Port(u16),
    /// It broke the protection of its own segments.
    Translation {
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
    /// In ring 3: an exception for which the guest has no handler.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code.
        code: u64,
        /// The address of the last page fault.
        address: u64,
        /// Where.
        rip: u64,
    },
    /// In ring 3: it wrote a model-specific register that cannot be had there.
    Msr {
        /// Its number.
        msr: u64,
        /// What was to be written.
        value: u64,
        /// The instruction after.
        rip: u64,
    },
    /// In ring 3: it stopped its CPU for good.
    Stopped {
        /// The instruction after.
        rip: u64,
    },
    /// In ring 3: the tender's own code faulted, on ground that the guest has taken away.
    Tender {
        /// Where.
        rip: u64,
    },
    /// On KVM: the CPU refused to run it.
    Entry {
        /// The CPU's reason.
        reason: u64,
    },
    /// On KVM: KVM could not go on.
    Internal {
        /// KVM's reason.
        suberror: u32,
        /// Where.
        rip: u64,
    },
    /// On KVM: it left its machine in a way that no guest should.
    Exit {
        /// KVM's number for it.
        reason: u32,
        /// Where.
        rip: u64,
    },
    /// On KVM: KVM itself failed.
    Kvm(Errno),
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
            Self::Translation { rip } => write!(f, "host/guest translation fault: rip=0x{rip:x}"),
            Self::Read(error) => write!(f, "Fatal error when reading: {error}"),
            Self::Write(error) => write!(f, "Fatal error when writing: {error}"),
            Self::Short { what, done, wanted } => {
                write!(f, "Fatal error: {what} only {done} out of {wanted} bytes")
            }
            Self::Poll(error) => write!(f, "Fatal error when waiting for devices: {error}"),
            Self::Exception { vector, code, address, rip } => write!(
                f,
                "guest exception {vector} (error code 0x{code:x}, address 0x{address:x}) at rip=0x{rip:x}, \
                 and no handler for it"
            ),
            Self::Msr { msr, value, rip } => write!(
                f,
                "guest wrote 0x{value:x} to MSR 0x{msr:x} before rip=0x{rip:x}, which ring 3 cannot do"
            ),
            Self::Stopped { rip } => write!(f, "guest stopped its CPU (hlt) before rip=0x{rip:x}"),
            Self::Tender { rip } => {
                write!(f, "internal error: the tender itself faulted at 0x{rip:x}")
            }
            Self::Entry { reason } => {
                write!(f, "KVM: entry failure: hw_entry_failure_reason=0x{reason:x}")
            }
            Self::Internal { suberror, rip } => {
                write!(f, "KVM: internal error exit: suberror=0x{suberror:x}, rip=0x{rip:x}")
            }
            Self::Exit { reason, rip } => {
                write!(f, "KVM: unhandled exit: exit_reason=0x{reason:x}, rip=0x{rip:x}")
            }
            Self::Kvm(error) => write!(f, "KVM: KVM_RUN: {error}"),
        }
    }
}

/// The system calls that hypercalls take, the most frequent first.
pub fn rules(devices: &Attached) -> Vec<Rule> {
    let rule = |call, when, why| Rule { call, when, why };
    let mut rules: Vec<Rule> = devices.transfers().collect();
    rules.extend([
        devices.waiting(),
        rule(libc::SYS_write, vec![arg(0).eq(1)], "writes to the console"),
        rule(
            libc::SYS_clock_gettime,
            vec![arg(0).eq(libc::CLOCK_REALTIME)],
            "tells the time where the clock is not one that the vDSO can read",
        ),
        rule(libc::SYS_write, vec![arg(0).eq(2)], "says why the guest ends"),
        rule(libc::SYS_exit_group, vec![], "ends"),
    ]);
    rules
}

/// A guest as the hypercalls see it.
#[derive(Debug)]
pub struct Vm {
    /// Its memory.
    pub memory: GuestMemory,
    /// Its devices.
    pub devices: Attached,
    /// Where its text goes.
    pub console: BorrowedFd<'static>,
    /// Where it goes itself when it aborts.
    pub core: Option<CoreDump>,
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

    /// Writes a core file where one is wanted, for a guest that ended with this status and these registers.
    pub fn dump_core(&self, status: i32, cookie: GuestAddr, registers: impl FnOnce() -> Registers) {
        if let Some(core) = self.core.as_ref().filter(|_| status == ABORTED) {
            core.write(&self.memory, registers(), cookie);
        }
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
        // Before 1970, a guest's clock says 1970.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nsecs = now.as_secs().wrapping_mul(1_000_000_000).wrapping_add(now.subsec_nanos().into());
        Ok(self.memory.write(argument, Walltime { nsecs })?)
    }

    fn puts(&mut self, argument: GuestAddr) -> Result<(), Fault> {
        let puts: Puts = self.memory.read(argument)?;
        console::write(self.console, self.memory.bytes(puts.data, puts.len)?).map_err(Fault::Write)
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
        Ok(Outcome::Halt { status: halt.exit_status, cookie: halt.cookie })
    }
}
