//! What unikernels use.

use serde::{Deserialize, Serialize};

use crate::limits::NETS_MAX;
use crate::{DeviceName, List, Name};

/// What a unikernel has used since it was started. All counters only grow until it is started anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The unikernel.
    pub name: Name,
    /// How long it has been running, in milliseconds. Less than before means that it was started anew.
    pub run_ms: u64,
    /// How long it was on a CPU, in milliseconds.
    pub cpu_ms: u64,
    /// The memory that it was given, in MiB.
    pub memory_mib: u32,
    /// The memory that it has now, in KiB: what it has touched of that, and its monitor's own.
    pub resident_kib: u64,
    /// What it has moved from and to storage, past the host's cache, where the host's kernel tells.
    pub storage: Option<Storage>,
    /// What each of its network devices has moved, as the unikernel sees it.
    pub nets: List<(DeviceName, Traffic), NETS_MAX>,
}

/// What was moved from and to storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// What a network device has moved, as its guest sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// What the guest was sent. What it does not take in time is dropped.
    pub received: Flow,
    /// What the guest has sent.
    pub sent: Flow,
}

/// What was moved in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Bytes, frames' headers included.
    pub bytes: u64,
    /// Frames.
    pub packets: u64,
    /// Frames that were dropped instead.
    pub dropped: u64,
}
