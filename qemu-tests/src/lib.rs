//! Boots the appliance in QEMU under software emulation, with an emulated AMD-V: what runs in it runs on real KVM.
//!
//! [`Host`] is what an operator makes for a host: its keys and its sealed host. [`Machine`] is a machine that was turned on:
//! its serial console is read, and `petrel` reaches it through QEMU's user network, on loopback.

#![allow(
    clippy::missing_panics_doc,
    reason = "this is a test harness: what goes wrong is to be seen at once"
)]

mod console;
mod disk;
mod host;
mod machine;

pub use console::Console;
pub use disk::Disk;
pub use host::{Host, STATE_MIB, appliance, sign_for_firmware, with_libraries};
pub use machine::{Machine, Network, Settings, System};

use std::time::Duration;

/// How long anything in an emulated machine may take before a test gives up on it. Never the measure of success.
pub const PATIENCE: Duration = Duration::from_secs(300);
