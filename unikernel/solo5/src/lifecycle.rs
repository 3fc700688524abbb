//! How a guest ends.

use crate::args::Usage;
use crate::hypercall;
use hvt_abi::GuestAddr;
use hvt_abi::hypercall::Halt;

/// A guest's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// All went well.
    pub const SUCCESS: Self = Self(0);
    /// Help was asked for and given; MirageOS's number.
    pub const HELP: Self = Self(63);
    /// The arguments are wrong; MirageOS's number.
    pub const USAGE: Self = Self(64);
    /// The guest broke: a panic or an exception; Solo5's number.
    pub const ABORT: Self = Self(255);
}

/// What a guest's main function may return.
pub trait Outcome {
    /// The exit status that says so, after printing what there is to say.
    fn report(self) -> Status;
}

impl Outcome for () {
    fn report(self) -> Status {
        Status::SUCCESS
    }
}

impl Outcome for Status {
    fn report(self) -> Status {
        self
    }
}

impl Outcome for core::convert::Infallible {
    fn report(self) -> Status {
        match self {}
    }
}

impl<T: Outcome> Outcome for Result<T, Usage> {
    fn report(self) -> Status {
        match self {
            Ok(outcome) => outcome.report(),
            Err(usage) => {
                crate::println!("{usage}");
                usage.status()
            }
        }
    }
}

/// Ends the guest with what its main function returned.
pub fn finish(outcome: impl Outcome) -> ! {
    exit(outcome.report())
}

/// Ends the guest.
pub fn exit(status: Status) -> ! {
    halt(status, GuestAddr::NULL)
}

/// Ends the guest; `cookie` is null or tells a debugging tender where 512 bytes about the end of it are.
pub fn halt(status: Status, cookie: GuestAddr) -> ! {
    let mut halt = Halt { cookie, exit_status: status.0.into() };
    loop {
        // SAFETY: the cookie is null, or a trap frame that lies on its stack with at least 512 bytes above it.
        unsafe { hypercall::call(&mut halt) };
    }
}
