//! What an operator may ask of the machine itself where that is an appliance. Three programs pass it on to the fourth:
//! client, control plane, shim, petrel-init. The last step is a line of text, which is what the shim writes and what
//! petrel-init reads.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Where a system is put before the machine is told to take it.
pub const UPGRADE_VOLUME: &str = "system-upgrade";

/// Something that the machine can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplianceOp {
    /// To end all that runs and start anew.
    Reboot,
    /// To end all that runs and turn itself off.
    PowerOff,
    /// To make the signed system in the volume [`UPGRADE_VOLUME`], which has this digest, what is booted next, once.
    Upgrade(Digest),
    /// To keep what was booted once.
    Confirm,
    /// What it is and does: lines of a word and what it is.
    Status,
    /// The last lines of what its first process, its shim and its kernel have said since it was turned on.
    Log,
}

impl fmt::Display for ApplianceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reboot => f.write_str("reboot"),
            Self::PowerOff => f.write_str("poweroff"),
            Self::Upgrade(digest) => write!(f, "upgrade {digest}"),
            Self::Confirm => f.write_str("confirm"),
            Self::Status => f.write_str("status"),
            Self::Log => f.write_str("log"),
        }
    }
}

/// No machine can be asked for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnOrder;

impl FromStr for ApplianceOp {
    type Err = NotAnOrder;

    fn from_str(line: &str) -> Result<Self, NotAnOrder> {
        match line.split_once(' ') {
            Some(("upgrade", digest)) => digest.parse().map(Self::Upgrade).map_err(|_| NotAnOrder),
            None if line == "reboot" => Ok(Self::Reboot),
            None if line == "poweroff" => Ok(Self::PowerOff),
            None if line == "confirm" => Ok(Self::Confirm),
            None if line == "status" => Ok(Self::Status),
            None if line == "log" => Ok(Self::Log),
            _ => Err(NotAnOrder),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn orders_are_lines_and_come_back() {
        let upgrade = ApplianceOp::Upgrade(Digest([7; 32]));
        let (ends, rest) = ([ApplianceOp::Reboot, ApplianceOp::PowerOff], [upgrade, ApplianceOp::Confirm]);
        for order in ends.into_iter().chain(rest).chain([ApplianceOp::Status, ApplianceOp::Log]) {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        for bad in ["", "reboot now", "upgrade", "upgrade 12", "halt"] {
            assert_eq!(bad.parse::<ApplianceOp>(), Err(NotAnOrder), "{bad}");
        }
    }
}
