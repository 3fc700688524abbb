//! Petrel's vocabulary, shared by the client, the control plane and the shim.
//!
//! Everything that crosses a trust boundary is one of the types here. They are parsed once, at the edge,
//! into values that cannot be ill-formed: a [`Name`] is a valid name, a [`List`] is within its bound.
//!
//! * [`limits`]: every bound of the protocol, in one place
//! * [`frame`]: length-capped frames around postcard messages
//! * [`operator`]: operator's client ↔ control plane
//! * [`shim`]: control plane ↔ shim
//! * [`seal`]: the identity that a control plane boots with
//! * [`sealed`]: the identity that an appliance boots with
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod appliance;
mod digest;
pub mod frame;
pub mod limits;
mod list;
mod name;
pub mod operator;
mod path;
mod probe;
pub mod seal;
pub mod sealed;
pub mod shim;

pub use appliance::{ApplianceOp, NotAnOrder, UPGRADE_VOLUME};
pub use digest::{Digest, ParseDigestError};
pub use list::{Blob, List, TooLong};
pub use name::{BridgeName, CommonName, DeviceName, Label, Name, NameError, VolumeName};
pub use path::{Path, ancestors};
pub use probe::{ConsoleText, HttpPath, Probe, ProbeError};

use serde::{Deserialize, Serialize};

/// The release of all of Petrel's programs, built together: major, minor, patch.
pub const RELEASE: [u16; 3] = [
    number(env!("CARGO_PKG_VERSION_MAJOR")),
    number(env!("CARGO_PKG_VERSION_MINOR")),
    number(env!("CARGO_PKG_VERSION_PATCH")),
];

const fn number(text: &str) -> u16 {
    match u16::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("a release is three numbers below 65,536"),
    }
}

/// A network interface's hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// How a monitor's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code: Solo5's own (0 success, 1 tender error, 255 abort) or the guest's.
    Code(u8),
    /// A signal ended it.
    Signal(u8),
    /// It ended while no shim was there to see how.
    Unknown,
}

impl ExitStatus {
    /// From what the operating system says: a code, or a signal.
    pub fn new(code: Option<i32>, signal: Option<i32>) -> Self {
        let byte = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
        let signal = || byte(signal).map(Self::Signal);
        byte(code).map(Self::Code).or_else(signal).unwrap_or(Self::Unknown)
    }
}

impl core::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("ended unseen"),
        }
    }
}
