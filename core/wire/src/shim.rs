//! Control plane ↔ shim.
//!
//! The control plane sends [`Request`]s; the shim carries them out one after the other, in order, and answers
//! each (but chunks) with a [`FromShim::Reply`]. [`Event`]s come unasked. A reply is sent before any event that
//! what was asked has caused.
//!
//! The shim decides nothing. It re-checks each request against its configuration; one that no honest control
//! plane would send is logged and ends the link. What an honest control plane may well meet (an image that is
//! not there, a disk that is full) is a [`Fault`].
//!
//! What the shim holds outlives the link and the control plane: stored images, running monitors, and for each
//! monitor the `tag` that the control plane stored with it. After `Hello`, a control plane asks `List` and
//! knows all that runs.

mod volumes;

use alloc::boxed::Box;

pub use volumes::{VolumeFile, VolumeOp};

use serde::{Deserialize, Serialize};

use crate::limits::{
    ARGS_MAX, BLOCKS_MAX, BRIDGES_MAX, CHUNK_BYTES_MAX, CMDLINE_BYTES_MAX, CONSOLE_BYTES_MAX, CPUS_MAX,
    IMAGE_READ_BYTES_MAX, LIMITS_MAX, MONITORS_MAX, NETS_MAX, PAGE_ENTRIES_MAX, STATS_PAGE_MAX,
    TAG_BYTES_MAX,
};
use crate::{ApplianceOp, Blob, BridgeName, DeviceName, Digest, ExitStatus, Label, List, Mac, VolumeName};

/// A monitor's process and all that belongs to it. Chosen by the control plane, never used twice on a host.
/// Zero is the control plane itself and never appears in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceId(pub u64);

impl InstanceId {
    /// The control plane itself.
    pub const CONTROL_PLANE: Self = Self(0);
}

/// A tap. Chosen by the control plane; the shim derives the interface's name from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TapId(pub u32);

/// What the control plane sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The control plane's number for it.
    pub id: u32,
    /// What to do.
    pub op: Op,
}

/// An operation of the shim. In brackets, the [`Reply`] when it is done; `Done` where none is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// The first on a link [`Reply::Hello`].
    Hello {
        /// [`crate::limits::SHIM_VERSION`]; any other ends the link.
        version: u16,
    },
    /// What the host is and has [`Reply::Host`].
    Host,
    /// Opens an upload [`Reply::Done`, or `Stored` if the image is there].
    ImageBegin {
        /// The SHA-256 of the whole image.
        digest: Digest,
        /// Its size.
        bytes: u64,
    },
    /// The next bytes of an upload. No reply; a fault is told at the commit.
    ImageChunk {
        /// Which upload.
        digest: Digest,
        /// The bytes.
        data: Blob<CHUNK_BYTES_MAX>,
    },
    /// Ends an upload: from here on the image is there. The control plane has checked size and digest,
    /// so if they are wrong here the link ends.
    ImageCommit(Digest),
    /// Gives an upload up; nothing of it stays.
    ImageAbort(Digest),
    /// Reads a part of a stored image, less than asked at its end [`Reply::Bytes`].
    ImageRead {
        /// Which image.
        digest: Digest,
        /// From which byte.
        offset: u64,
        /// How many, at most [`IMAGE_READ_BYTES_MAX`].
        bytes: u32,
    },
    /// Deletes a stored image. Monitors that run it go on.
    ImageRemove(Digest),
    /// The stored images, in pages in the order of the digests [`Reply::Images`].
    ImageList {
        /// Only those with a greater digest.
        after: Option<Digest>,
    },
    /// Something about volumes.
    Volume(VolumeOp),
    /// Creates a tap on a bridge. It is gone when its monitor ends, when the control plane destroys it, or,
    /// if no monitor has taken it, when the link ends.
    TapCreate {
        /// Which.
        tap: TapId,
        /// Plugged into which bridge.
        bridge: BridgeName,
    },
    /// Destroys a tap that no monitor has taken.
    TapDestroy(TapId),
    /// Starts a monitor [`Reply::Spawned`].
    Spawn(Box<Spawn>),
    /// Kills a monitor's process. Its [`Event::Exited`] follows. Also fine when it has ended.
    Kill(InstanceId),
    /// Forgets a monitor that has ended.
    Forget(InstanceId),
    /// What the ledger holds, in pages in the order of the ids [`Reply::Listed`].
    List {
        /// Only those with a greater id.
        after: Option<InstanceId>,
    },
    /// Something of the machine itself: an order that it takes in, or [`Reply::Bytes`] of what it
    /// says of itself. Where it is no appliance the fault is `NotFound`.
    Appliance(ApplianceOp),
    /// What those of these monitors use that run; the others are left out [`Reply::Stats`].
    Stats(List<InstanceId, STATS_PAGE_MAX>),
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Its id from here on.
    pub instance: InstanceId,
    /// The monitor, one of [`Host::monitors`].
    pub monitor: Label,
    /// The image.
    pub image: Digest,
    /// The guest's memory, in MiB.
    pub memory_mib: u32,
    /// The host's CPUs to run on; any when empty.
    pub cpus: List<u16, CPUS_MAX>,
    /// Network devices.
    pub nets: List<SpawnNet, NETS_MAX>,
    /// Block devices.
    pub blocks: List<SpawnBlock, BLOCKS_MAX>,
    /// The guest's arguments.
    pub args: List<Blob<CMDLINE_BYTES_MAX>, ARGS_MAX>,
    /// Stored with the monitor for a control plane that has lost its memory; the shim never reads it.
    pub tag: Blob<TAG_BYTES_MAX>,
}

/// A network device of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnNet {
    /// The device in the manifest.
    pub device: DeviceName,
    /// The tap, which the monitor takes over.
    pub tap: TapId,
    /// The guest's hardware address.
    pub mac: Mac,
}

/// A block device of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnBlock {
    /// The device in the manifest.
    pub device: DeviceName,
    /// The file of the volume folder.
    pub volume: VolumeName,
}

/// What the shim sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromShim {
    /// The answer to a request.
    Reply {
        /// The request's number.
        id: u32,
        /// How it went.
        result: Result<Reply, Fault>,
    },
    /// Something happened.
    Event(Event),
}

/// An operation went well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The link is open.
    Hello {
        /// The release of the shim (major, minor, patch).
        release: [u16; 3],
    },
    /// What the host is and has.
    Host(Box<Host>),
    /// The image is there already.
    Stored {
        /// Its size, whatever was said of it.
        bytes: u64,
    },
    /// A part of an image.
    Bytes(Blob<IMAGE_READ_BYTES_MAX>),
    /// A page of the images.
    Images {
        /// Each with its size in bytes.
        page: List<(Digest, u64), PAGE_ENTRIES_MAX>,
        /// Whether entries with greater digests follow.
        more: bool,
    },
    /// A page of the volumes.
    Volumes {
        /// The files.
        page: List<VolumeFile, PAGE_ENTRIES_MAX>,
        /// Whether entries with greater names follow.
        more: bool,
    },
    /// A part of a volume: the first that is no hole from where was asked. Empty if nothing but a hole follows.
    Extent {
        /// From which byte it is.
        offset: u64,
        /// What is there.
        data: Blob<CHUNK_BYTES_MAX>,
    },
    /// The monitor's process runs.
    Spawned {
        /// Its process.
        pid: u32,
    },
    /// A page of the ledger.
    Listed {
        /// At most one entry more than fits is left for the next page.
        page: List<Listed, LIST_PAGE_MAX>,
        /// Whether entries with greater ids follow.
        more: bool,
    },
    /// What monitors use, in the order in which they were asked for.
    Stats {
        /// `/proc/uptime`, read before the others.
        uptime: Blob<64>,
        /// Those that run.
        page: List<Usage, STATS_PAGE_MAX>,
    },
}

/// The entries of a page of the ledger: so many, each with a full tag, fit one frame.
pub const LIST_PAGE_MAX: usize = 2;

/// A monitor in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Which.
    pub instance: InstanceId,
    /// Its process.
    pub pid: u32,
    /// How it ended, if it has.
    pub exited: Option<ExitStatus>,
    /// The taps it took.
    pub taps: List<TapId, NETS_MAX>,
    /// What the control plane stored with it.
    pub tag: Blob<TAG_BYTES_MAX>,
}

/// What a monitor uses, in the words of proc(5). The control plane reads them, so that the shim need not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Which.
    pub instance: InstanceId,
    /// `/proc/[pid]/stat`; empty if its process is gone.
    pub stat: Blob<STAT_BYTES_MAX>,
    /// `/proc/[pid]/io`; empty where the shim may not read it.
    pub io: Blob<IO_BYTES_MAX>,
    /// The lines of `/proc/net/dev` for its taps, in the order of its network devices.
    pub nets: List<Blob<NET_LINE_BYTES_MAX>, NETS_MAX>,
}

/// The bytes of proc(5)'s `stat` that are told: its first fields.
pub const STAT_BYTES_MAX: usize = 448;
/// The bytes of proc(5)'s `io` that are told.
pub const IO_BYTES_MAX: usize = 224;
/// The bytes of a line of proc(5)'s `net/dev` that are told: its first columns.
pub const NET_LINE_BYTES_MAX: usize = 192;

/// What a host is and has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The CPUs that unikernels may run on.
    pub cpus: List<u16, CPUS_MAX>,
    /// The memory of the host, in MiB.
    pub memory_mib: u64,
    /// The bridges that taps may be created on.
    pub bridges: List<BridgeName, BRIDGES_MAX>,
    /// The space that volumes may take, all sizes and drafts together, in MiB; what the disk has when absent.
    pub volumes_mib: Option<u64>,
    /// The monitors.
    pub monitors: List<Monitor, MONITORS_MAX>,
    /// What the kernel holds each monitor to.
    pub limits: List<Limit, LIMITS_MAX>,
}

/// What the kernel holds a monitor to, in a control group of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limit {
    /// The memory of its guest and a fixed sum for itself; over that, it is killed.
    Memory,
    /// Its processes and threads.
    Processes,
    /// An equal share of a busy CPU, of which the control plane gets a larger one.
    CpuShare,
}

/// A program that runs guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// What the shim's configuration calls it.
    pub name: Label,
    /// The ABI target it runs: hvt 1, spt 2.
    pub target: u32,
    /// The newest version of the ABI it runs.
    pub version: u32,
    /// What isolates its guests.
    pub backend: Backend,
}

/// What isolates a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Hardware virtualisation.
    Kvm,
    /// A process in ring 3 behind a seccomp filter.
    Ring3,
}

/// Something happened on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A guest wrote to its console.
    Console {
        /// Which.
        instance: InstanceId,
        /// What.
        data: Blob<CONSOLE_BYTES_MAX>,
    },
    /// So many bytes of a console were dropped while nobody could take them.
    ConsoleLost {
        /// Whose.
        instance: InstanceId,
        /// How many.
        bytes: u64,
        /// How many lines ended in them.
        lines: u64,
    },
    /// A monitor's process has ended, its console has been sent, its taps are gone. It stays in the ledger
    /// until it is forgotten.
    Exited {
        /// Which.
        instance: InstanceId,
        /// How.
        status: ExitStatus,
    },
}

/// Why the shim could not do what an honest control plane may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// There is no such image, tap or monitor; this is no appliance.
    NotFound,
    /// There is one already: an upload under way, a tap, a monitor, a volume.
    Exists,
    /// It is in use: a monitor that has not ended, a volume that another monitor has.
    InUse,
    /// There is no such volume.
    NoVolume,
    /// A table is full, or the space that volumes may take.
    Full,
    /// The operating system refused.
    Os {
        /// Its error number.
        errno: i32,
    },
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;
    use crate::frame;

    #[test]
    fn the_largest_page_of_the_ledger_fits_a_frame() {
        let listed = Listed {
            instance: InstanceId(u64::MAX),
            pid: u32::MAX,
            exited: Some(ExitStatus::Code(u8::MAX)),
            taps: vec![TapId(u32::MAX); NETS_MAX].try_into().unwrap(),
            tag: vec![0; TAG_BYTES_MAX].try_into().unwrap(),
        };
        let page = vec![listed; LIST_PAGE_MAX].try_into().unwrap();
        let reply = FromShim::Reply { id: u32::MAX, result: Ok(Reply::Listed { page, more: true }) };
        assert_eq!(frame::encode(&reply, &mut Vec::new()), Ok(()));
    }

    #[test]
    fn the_largest_page_of_statistics_fits_a_frame() {
        let usage = Usage {
            instance: InstanceId(u64::MAX),
            stat: vec![0; STAT_BYTES_MAX].try_into().unwrap(),
            io: vec![0; IO_BYTES_MAX].try_into().unwrap(),
            nets: vec![vec![0; NET_LINE_BYTES_MAX].try_into().unwrap(); NETS_MAX].try_into().unwrap(),
        };
        let page = vec![usage; STATS_PAGE_MAX].try_into().unwrap();
        let result = Ok(Reply::Stats { uptime: vec![0; 64].try_into().unwrap(), page });
        let reply = FromShim::Reply { id: u32::MAX, result };
        assert_eq!(frame::encode(&reply, &mut Vec::new()), Ok(()));
    }
}
