//! What a unikernel shall be kept at, and the requests that change it.

use alloc::boxed::Box;

use serde::{Deserialize, Serialize};

use crate::limits::{AFTER_MAX, ARGS_MAX, BLOCKS_MAX, CMDLINE_BYTES_MAX, CPUS_MAX, EXIT_CODES_MAX, NETS_MAX};
use crate::{Blob, Digest, ExitStatus, List, Mac, Name, Probe};

use super::{Block, Net};

/// How a unikernel is watched over: part of what it shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// What happens when it ends by itself.
    pub restart: Restart,
    /// It is started when these are ready, or run where they have no readiness probe.
    pub after: List<Name, AFTER_MAX>,
    /// It is ready from when this succeeds; without a probe, from when its monitor runs.
    pub ready: Option<Probe>,
    /// It is ended, and what `restart` says holds, when this fails too often.
    pub alive: Option<Liveness>,
}

/// Whether a unikernel that has ended by itself is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// When at all.
    pub when: RestartWhen,
    /// The exit codes on which it is. With [`RestartWhen::OnFailure`], on these only, if there are any. On 1 and
    /// 60 to 64, which say that it was started wrongly, it is only if they are listed.
    pub codes: List<u8, EXIT_CODES_MAX>,
}

/// When a unikernel that has ended by itself is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartWhen {
    /// It stays as it has ended.
    #[default]
    Never,
    /// Unless it exited with 0.
    OnFailure,
    /// However it ended.
    Always,
}

/// A probe that is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// What is tried.
    pub probe: Probe,
    /// How often, in seconds; at least 1.
    pub every_s: u16,
    /// How many failures in a row are one too many; at least 1.
    pub failures: u8,
}

/// What a new generation has that its predecessor has not. What is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it runs.
    pub image: Option<Digest>,
    /// Its memory, in MiB.
    pub memory_mib: Option<u32>,
    /// The host's CPUs that it may run on; any when empty.
    pub cpus: Option<List<u16, CPUS_MAX>>,
    /// Its arguments.
    pub args: Option<List<Blob<CMDLINE_BYTES_MAX>, ARGS_MAX>>,
}

impl Change {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What an operator wants a unikernel to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// Started, and started again as its restart policy says.
    Running,
    /// Kept, and not started.
    Stopped,
    /// Gone.
    Destroyed,
}

/// What a unikernel was, is or may be again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationInfo {
    /// Its number: 1 for what was created, one more for each change.
    pub number: u32,
    /// It is the one that the unikernel is now.
    pub current: bool,
    /// It was tried, and given up.
    pub faulty: bool,
    /// When it was made: the host's clock, in milliseconds since 1970.
    pub made_ms: u64,
    /// What it runs.
    pub image: Digest,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// The CPUs it may run on; any when empty.
    pub cpus: List<u16, CPUS_MAX>,
    /// Its network devices, each with its address.
    pub nets: List<(Net, Mac), NETS_MAX>,
    /// Its block devices.
    pub blocks: List<Block, BLOCKS_MAX>,
    /// Its arguments.
    pub args: List<Blob<CMDLINE_BYTES_MAX>, ARGS_MAX>,
    /// How it is watched over.
    pub supervision: Supervision,
}

/// What the control plane does with a unikernel that it keeps, for `info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// How it is watched over.
    pub supervision: Supervision,
    /// Those of `supervision.after` that it waits for now.
    pub waits_for: List<Name, AFTER_MAX>,
    /// When it is started again: the host's clock, in milliseconds since 1970.
    pub retry_ms: Option<u64>,
    /// Why it could not be started, while that is so.
    pub failure: Option<Box<super::Refusal>>,
    /// While a generation is on trial, the one that comes back if it fails.
    pub trial_from: Option<u32>,
}

/// Why a generation was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setback {
    /// It was not ready in time.
    NotReady,
    /// It ended.
    Ended(ExitStatus),
}
