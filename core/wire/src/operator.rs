//! Operator's client ↔ control plane.
//!
//! After the TLS handshake the client sends [`ClientMessage`]s, the first of them [`Request::Hello`], and the
//! control plane answers with [`ServerMessage`]s that carry the request's `id`. Requests may be sent without
//! waiting for earlier answers; answers to different requests may come in any order. An `id` is the
//! client's choice and must not be that of a request still unanswered.
//!
//! | request | answers |
//! |---|---|
//! | `Hello` | `Hello` |
//! | `Host` | `Host` |
//! | `ImagePush` | `ImageStored` at once if the host has it; else `ImageWanted`, then after the last `ImageChunk` (same `id`) `ImageStored` |
//! | `Create` | `Created` when the monitor's process runs, or at once when it is started after others that are not ready |
//! | `List` | one or more `Listed`, the last with `more: false` |
//! | `Info` | `Info` |
//! | `Console` | `Console`… then, unless it follows, `ConsoleEnd`; when it follows, `Ended` and `ConsoleEnd` after the unikernel has ended |
//! | `Consoles` | one or more `Consoles`, the last with `more: false` |
//! | `Events` | `Events`… then, unless it follows, `EventsEnd` |
//! | `Appliance` | `Appliance`, when the machine has taken the order in, or with what it says of itself |
//! | `Stats` | one or more `Stats`, the last with `more: false` |
//! | `Destroy` | `Destroyed` when nothing of the unikernel is left |
//! | `Start` | `Started` when the monitor's process runs, or at once when it waits for others |
//! | `Stop` | `Stopped` when the monitor's process has ended |
//! | `Restart` | `Started` when the new monitor's process runs; if it cannot be started as changed, it is as before |
//! | `Update` | `Updated` when the new generation is ready, or has run through the window; else the earlier one is back |
//! | `Rollback` | `Updated` when the monitor's process of the earlier generation runs |
//! | `History` | one or more `Generation`, the last with `more: false` |
//! | `StateExport` | `StateData`…, then `StateExported` |
//! | `StateImport` | `StateWanted`, then after the last `StateChunk` (same `id`) `StateImported` |
//! | `Image(…)` | `Image(…)`, pages of `Image(Listed)`, or a `Download` |
//! | `Volume(…)` | `Volume(…)`, pages of `Volume(Listed)`, or a `Download`; a push as that of an image |
//! | `Cancel` | none: ends the stream or the upload that has this `id` |
//! | `PolicySet`, `PolicyRemove` | `PolicySet`, `PolicyRemoved` |
//! | `PolicyList` | one or more `Policies`, the last with `more: false` |
//! | `CertRevoke` | `CertRevoked` |
//! | `CertRevocations` | one or more `Revocations`, the last with `more: false` |
//!
//! All names are relative to the session's scope, which its certificates tell: see [`MapNames`].
//! Any request may be answered by `Refused`, which ends it.

mod console;
mod events;
mod images;
mod journal;
mod names;
mod policy;
mod stats;
mod supervise;
mod volumes;

pub use names::MapNames;
pub use policy::{
    Bridges, CertificateFault, ChainIndex, Cpus, Held, Policy, PolicyEntry, PolicyPage, Resource, Revocable,
    Revocation, RevocationPage, Right, Rights, Serial,
};

use alloc::boxed::Box;
use core::net::Ipv4Addr;

pub use console::{ConsoleAsked, ConsoleBrief, Since};
pub use events::{Event, EventsAsked, KINDS, What, Who};
pub use images::{ImageRequest, ImageResponse, StoredImage};
pub use journal::{Journal, ReadOnly, StateFault};
pub use stats::{Flow, Storage, Traffic, Usage};
pub use volumes::{Download, Volume, VolumeRefusal, VolumeRequest, VolumeResponse, VolumeState};

use serde::{Deserialize, Serialize};
pub use supervise::{
    Change, GenerationInfo, Liveness, Restart, RestartWhen, Setback, Supervision, Watching, Wish,
};

use crate::limits::{
    APPLIANCE_TEXT_BYTES_MAX, ARGS_MAX, BLOCKS_MAX, BRIDGES_MAX, CHUNK_BYTES_MAX, CMDLINE_BYTES_MAX,
    CONSOLE_BYTES_MAX, CPUS_MAX, EVENTS_PAGE_MAX, IMAGE_USERS_MAX, LIMITS_MAX, MONITORS_MAX, NETS_MAX,
    PAGE_ENTRIES_MAX, STATS_PAGE_MAX,
};
use crate::shim::{Backend, Limit, Monitor};
use crate::{ApplianceOp, Blob, BridgeName, DeviceName, Digest, ExitStatus, Label, List, Mac, Name, Path};

/// What the client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientMessage {
    /// The client's number for this request.
    pub id: u32,
    /// What it asks.
    pub request: Request,
}

/// A request; see the table in the [module's page](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The first message of a session.
    Hello(Hello),
    /// What the host is and has.
    Host,
    /// Offers an image.
    ImagePush {
        /// The SHA-256 of the whole image.
        digest: Digest,
        /// Its size.
        bytes: u64,
    },
    /// The next bytes of the upload with this `id`; not answered by itself.
    ImageChunk(Blob<CHUNK_BYTES_MAX>),
    /// Creates and starts a unikernel from an image that the host has.
    Create(Box<Create>),
    /// All unikernels, in the order of their names.
    List,
    /// One unikernel.
    Info(Name),
    /// The console of one unikernel: what is kept of it, then, if `follow`, what comes.
    Console(ConsoleAsked),
    /// Stops a unikernel and forgets it.
    Destroy(Name),
    /// Ends the stream or the upload with this `id`.
    Cancel,
    // Watching.
    /// The consoles of which something is kept, those of unikernels that are no more included.
    Consoles,
    /// What happened: what is kept of it, then, if asked so, what happens.
    Events(Box<EventsAsked>),
    /// Asks something of the machine itself, where that is an appliance.
    Appliance(ApplianceOp),
    /// What unikernels that run use: those of this path, its own included.
    Stats(Path),
    /// Sets what all that lies below a path may have.
    PolicySet {
        /// The path.
        path: Path,
        /// What it may have, beside what certificates say.
        policy: Box<Policy>,
    },
    /// Removes what was set for a path.
    PolicyRemove(Path),
    /// What is there and what may be, for this path and all below it that have either, in the order of paths.
    PolicyList(Path),
    /// Revokes certificates, and ends the sessions that they opened.
    CertRevoke {
        /// Those that a CA of this path, or of one below, has issued.
        path: Path,
        /// Which of them.
        what: Revocable,
    },
    /// What is revoked.
    CertRevocations,

    // What is kept running.
    /// Starts a unikernel that is stopped or has ended, at once.
    Start(Name),
    /// Ends a unikernel and keeps it, stopped.
    Stop(Name),
    /// Ends a unikernel and starts it anew, as a new generation if anything is changed.
    Restart {
        /// Which.
        name: Name,
        /// What is new.
        change: Box<Change>,
    },
    /// Makes a new generation of a unikernel, and goes back to the present one unless it does well.
    Update {
        /// Which.
        name: Name,
        /// What is new.
        change: Box<Change>,
        /// How long it has to get ready or, without a readiness probe, not to end, in seconds.
        window_s: u32,
    },
    /// Goes back to an earlier generation.
    Rollback {
        /// Which.
        name: Name,
        /// To which generation; to the latest earlier one that has not failed if `None`.
        generation: Option<u32>,
    },
    /// The generations of a unikernel, the oldest first.
    History(Name),

    // The journal.
    /// All that the control plane keeps, as a state file.
    StateExport,
    /// Offers a state file, to be kept in place of what there is.
    StateImport {
        /// Its size.
        bytes: u64,
        /// Whether what is known so far is given up.
        force: bool,
    },
    /// The next bytes of the state file with this `id`; not answered by itself.
    StateChunk(Blob<CHUNK_BYTES_MAX>),

    // What is stored.
    /// Something about stored images.
    Image(ImageRequest),
    /// Something about volumes.
    Volume(VolumeRequest),
}

/// The versions that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

/// What a unikernel shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// What it is called.
    pub name: Name,
    /// What it runs.
    pub image: Digest,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// The host's CPUs that it may run on; any when empty.
    pub cpus: List<u16, CPUS_MAX>,
    /// Its network devices: exactly those that the image's manifest declares.
    pub nets: List<Net, NETS_MAX>,
    /// Its block devices: exactly those that the image's manifest declares.
    pub blocks: List<Block, BLOCKS_MAX>,
    /// Its arguments.
    pub args: List<Blob<CMDLINE_BYTES_MAX>, ARGS_MAX>,
    /// How it is watched over.
    pub supervision: Supervision,
    /// If there is one of this name, make this its new generation.
    pub force: bool,
}

/// A network device and where it is plugged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// The device in the manifest.
    pub device: DeviceName,
    /// The bridge of the host.
    pub bridge: BridgeName,
}

/// A block device and what it stores on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The device in the manifest.
    pub device: DeviceName,
    /// The volume.
    pub volume: Name,
}

/// What the control plane sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMessage {
    /// The request that this answers.
    pub id: u32,
    /// The answer.
    pub response: Response,
}

/// An answer; see the table in the [module's page](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The session is open.
    Hello(Welcome),
    /// What the host is and has.
    Host(Box<HostInfo>),
    /// The host has not got the image: send it.
    ImageWanted,
    /// The host has the image, whole and checked.
    ImageStored(Digest),
    /// The unikernel runs.
    Created(Box<Unikernel>),
    /// A page of the listing.
    Listed {
        /// The unikernels of this page.
        page: List<Unikernel, PAGE_ENTRIES_MAX>,
        /// Whether another page follows.
        more: bool,
    },
    /// One unikernel, whole.
    Info(Box<UnikernelInfo>),
    /// The next bytes of the console.
    Console {
        /// When the first of them arrived: the host's clock, in milliseconds since 1970.
        wall_ms: u64,
        /// The bytes.
        data: Blob<CONSOLE_BYTES_MAX>,
    },
    /// A part of the console is not to be had any more.
    ConsoleMissed {
        /// How many bytes.
        bytes: u64,
        /// How many lines ended in them, as far as that is known.
        lines: u64,
    },
    /// The unikernel whose console is followed has ended.
    Ended(ExitStatus),
    /// The console stream is over.
    ConsoleEnd,
    /// The unikernel is gone.
    Destroyed,
    /// The request was not carried out, and this is why.
    Refused(Refusal),
    // Watching.
    /// What follows on the console was written by another start of the unikernel than what came before.
    ConsoleBegan {
        /// When it was first heard: the host's clock, in milliseconds since 1970.
        wall_ms: u64,
    },
    /// A page of the consoles, in the order of the names.
    Consoles {
        /// The consoles of this page.
        page: List<ConsoleBrief, PAGE_ENTRIES_MAX>,
        /// Whether another page follows.
        more: bool,
    },
    /// What happened, the oldest first.
    Events(List<Event, EVENTS_PAGE_MAX>),
    /// So many events between the last one and the next are not to be had any more, whatever they were about.
    EventsMissed(u64),
    /// All that was asked for of the events has been sent.
    EventsEnd,
    /// The machine has taken an order in; or what it says of itself.
    Appliance(Blob<APPLIANCE_TEXT_BYTES_MAX>),
    /// What unikernels use, in the order of their names.
    Stats {
        /// Those of this page that run.
        page: List<Usage, STATS_PAGE_MAX>,
        /// Whether another page follows.
        more: bool,
    },
    /// The unikernel runs, or will when those that it is started after are ready.
    Started(Box<Unikernel>),
    /// The unikernel is stopped.
    Stopped(Box<Unikernel>),
    /// The unikernel has another generation.
    Updated(Box<Unikernel>),
    /// A generation.
    Generation {
        /// Which.
        generation: Box<GenerationInfo>,
        /// Whether another follows.
        more: bool,
    },

    // Policies and certificates.
    /// The policy holds.
    PolicySet,
    /// The policy holds no longer.
    PolicyRemoved,
    /// A page of policies.
    Policies {
        /// The entries of this page.
        page: PolicyPage,
        /// Whether another page follows.
        more: bool,
    },
    /// It is revoked.
    CertRevoked {
        /// How many sessions that ended.
        sessions: u32,
    },
    /// A page of what is revoked.
    Revocations {
        /// The entries of this page.
        page: RevocationPage,
        /// Whether another page follows.
        more: bool,
    },

    // The journal.
    /// The next bytes of the state file.
    StateData(Blob<CHUNK_BYTES_MAX>),
    /// The state file is complete.
    StateExported {
        /// How many records it holds.
        records: u32,
    },
    /// The state file is awaited: send it.
    StateWanted,
    /// What the state file holds is kept.
    StateImported {
        /// How many records that were.
        records: u32,
    },

    // What is stored.
    /// About stored images.
    Image(ImageResponse),
    /// About volumes.
    Volume(VolumeResponse),
    /// A volume or an image on its way.
    Download(Download),
}

/// The control plane's greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub version: u16,
    /// What the host is called.
    pub host: Label,
}

/// What a host is and has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// What it is called.
    pub host: Label,
    /// The release of the control plane (major, minor, patch).
    pub control_plane: [u16; 3],
    /// The release of the shim (major, minor, patch).
    pub shim: [u16; 3],
    /// How long the control plane has been up, in milliseconds.
    pub uptime_ms: u64,
    /// The CPUs that unikernels may run on.
    pub cpus: List<u16, CPUS_MAX>,
    /// The memory of the host, in MiB.
    pub memory_mib: u64,
    /// The memory given to unikernels, in MiB.
    pub memory_used_mib: u64,
    /// How many unikernels there are.
    pub unikernels: u32,
    /// The space that volumes may take, in MiB; what the disk has when absent.
    pub volumes_mib: Option<u64>,
    /// The space that volumes take by their sizes, in MiB.
    pub volumes_used_mib: u64,
    /// The bridges that unikernels may be plugged into.
    pub bridges: List<BridgeName, BRIDGES_MAX>,
    /// The monitors that can run them.
    pub monitors: List<Monitor, MONITORS_MAX>,
    /// What the host's kernel holds each unikernel to.
    pub limits: List<Limit, LIMITS_MAX>,
    /// Where the control plane keeps what it knows.
    pub journal: Journal,
    /// The control plane's address on the operators' network.
    pub address: Option<Address>,
}

/// An address on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address and the length of the network's prefix.
    pub ipv4: (Ipv4Addr, u8),
    /// The gateway there, if any.
    pub gateway: Option<Ipv4Addr>,
    /// Whether a DHCP server leased it, so that it may change.
    pub is_leased: bool,
}

/// A unikernel, in brief.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unikernel {
    /// What it is called.
    pub name: Name,
    /// What it is doing.
    pub state: State,
    /// What it runs.
    pub image: Digest,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// When it was created: the host's clock, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it last ended, in milliseconds since 1970, if it has and somebody saw it.
    pub ended_ms: Option<u64>,
    /// What it is wanted to be.
    pub wish: Wish,
    /// The number of its generation.
    pub generation: u32,
    /// How often it was started again after it had ended by itself.
    pub restarts: u32,
    /// How it last ended, if it has.
    pub last_exit: Option<ExitStatus>,
}

/// What a unikernel is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Its monitor is being started.
    Starting,
    /// Its monitor runs.
    Running,
    /// It is being stopped.
    Stopping,
    /// It has ended, and stays so.
    Ended(ExitStatus),
    /// It is started when others are ready.
    Waiting,
    /// Its monitor runs, and its readiness probe has succeeded.
    Ready,
    /// It has ended, and is started again after a while.
    BackOff,
    /// It ends again and again soon after it was started; it is still started, but rarely.
    CrashLoop,
    /// It could not be started, and is tried again after a while.
    Failed,
    /// It is stopped.
    Stopped,
}

/// A unikernel, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnikernelInfo {
    /// In brief.
    pub unikernel: Unikernel,
    /// The CPUs it may run on; any when empty.
    pub cpus: List<u16, CPUS_MAX>,
    /// Its network devices, each with its address.
    pub nets: List<(Net, Mac), NETS_MAX>,
    /// Its block devices.
    pub blocks: List<Block, BLOCKS_MAX>,
    /// Its arguments.
    pub args: List<Blob<CMDLINE_BYTES_MAX>, ARGS_MAX>,
    /// The monitor that runs it.
    pub monitor: Label,
    /// What isolates its guests; `None` if the host offers it no more.
    pub backend: Option<Backend>,
    /// The monitor's process on the host; 0 when it has none.
    pub pid: u32,
    /// How it is watched over.
    pub watching: Watching,
}

/// Why a request was not carried out. Nothing of it is left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    // The client's doing.
    /// A frame that is not one well-formed message; the session ends.
    Malformed,
    /// A frame over the cap; the session ends.
    FrameTooLong {
        /// What its header said, in bytes.
        claimed: u32,
    },
    /// No version is spoken by both; the session ends.
    Version(Hello),
    /// The first message must be a hello, and only the first; the session ends.
    HelloExpected,
    /// The `id` belongs to a request that is still unanswered; the session ends.
    IdInUse,
    /// The host is no appliance, and its machine not Petrel's.
    NotAnAppliance,
    /// There is no unikernel of this name.
    NoSuchUnikernel,
    /// There is one of this name already.
    NameTaken,
    /// The host has not got this image.
    NoSuchImage,
    /// The image exceeds this many bytes, or is empty.
    ImageSize {
        /// The most that is taken, in bytes.
        max: u64,
    },
    /// What was sent is not what the digest names.
    DigestMismatch {
        /// The digest of what was sent.
        received: Digest,
    },
    /// More bytes came than were announced, or none were awaited.
    UnexpectedChunk,
    /// The image is not one that a Solo5 tender can run.
    NotAnImage(ImageFault),
    /// No monitor of this host runs images of this ABI.
    NoMonitor {
        /// The image's ABI target: hvt 1, spt 2, virtio 3, muen 4, genode 5, xen 6.
        target: u32,
        /// Its version.
        version: u32,
    },
    /// The manifest declares a device that was not given.
    DeviceMissing {
        /// Its name in the manifest.
        device: DeviceName,
        /// What it is.
        kind: DeviceKind,
    },
    /// A device was given that the manifest does not declare (as this kind).
    DeviceUnknown {
        /// The name that was given.
        device: DeviceName,
        /// What it was given as.
        kind: DeviceKind,
    },
    /// A device was given twice.
    DeviceTwice(DeviceName),
    /// The memory is outside what this host can give to one unikernel.
    Memory {
        /// What was asked, in MiB.
        asked_mib: u32,
        /// The least, in MiB.
        min_mib: u32,
        /// The most, in MiB.
        max_mib: u32,
    },
    /// Unikernels may not run on this CPU, or the host has no such.
    CpuUnknown(u16),
    /// Unikernels may not be plugged into this bridge, or the host has no such.
    BridgeUnknown {
        /// What was asked.
        bridge: BridgeName,
        /// What there is.
        known: List<BridgeName, BRIDGES_MAX>,
    },
    /// Something is in the way of it with a volume.
    Volume(VolumeRefusal),
    /// Unikernels are made of this image, or can go back to it: the first of them. None if somebody uploads it, or it is
    /// being looked into.
    ImageInUse(List<Name, IMAGE_USERS_MAX>),
    /// The host's memory is given to others.
    MemoryGiven {
        /// What the host has, in MiB.
        host_mib: u64,
        /// What of it is given to other unikernels, in MiB.
        given_mib: u64,
        /// What was asked, in MiB.
        asked_mib: u32,
    },
    /// The arguments, joined by spaces, exceed Solo5's command line, or one has a NUL.
    Arguments {
        /// The most, in bytes.
        max: u32,
    },

    // What certificates and policies say.
    /// A certificate of the session's chain opens none, or no longer; the session ends.
    Certificate {
        /// Which.
        index: ChainIndex,
        /// Why.
        fault: CertificateFault,
    },
    /// The certificates do not give this right.
    RightMissing(Right),
    /// It is about more than what lies below the session's scope: a policy for the scope itself, or the whole host.
    OutsideScope,
    /// With the session's scope in front the name is too long or too deep.
    ScopedName,
    /// Nothing was set for this path.
    NoSuchPolicy,
    /// A policy allows no more.
    OverPolicy {
        /// The ancestor whose policy it is, as it is called from the root.
        path: Path,
        /// Of what.
        resource: Resource,
        /// The most that there may be below that path.
        limit: u64,
        /// What others have of it.
        used: u64,
        /// What was asked for.
        asked: u64,
    },
    /// A policy does not allow this CPU.
    CpuPolicy {
        /// The ancestor whose policy it is, as it is called from the root.
        path: Path,
        /// What was asked for; when nothing was, none of the host's CPUs is allowed.
        asked: Option<u16>,
        /// What this policy and those of the ancestors above it allow.
        allowed: Cpus,
    },
    /// A policy does not allow this bridge.
    BridgePolicy {
        /// The ancestor whose policy it is, as it is called from the root.
        path: Path,
        /// What was asked for.
        asked: BridgeName,
        /// What this policy allows.
        allowed: Bridges,
    },

    // Bounds of the service.
    /// A table is full: try again when something has ended.
    Full(Table),

    // The host's doing.
    /// The shim is not connected: try again.
    ShimAway,
    /// The shim could not do it.
    Shim(crate::shim::Fault),
    /// The monitor that ran it is no longer offered by this host.
    MonitorUnknown(Label),
    /// Its monitor was killed and has not ended in so many seconds. It is what was asked for as soon as it has.
    NotEnding {
        /// How long it was waited for.
        seconds: u32,
    },

    // What is kept running.
    /// It cannot be started after a unikernel that there is not.
    AfterUnknown(Name),
    /// It would wait for itself, by way of this one.
    AfterCycle(Name),
    /// There is no such generation of it to go back to.
    NoSuchGeneration,
    /// The new generation did not do well: it is what it was.
    RolledBack {
        /// The generation that was given up.
        failed: u32,
        /// The one that is back.
        generation: u32,
        /// What was wrong.
        why: Setback,
    },
    /// Another request about the same unikernel came meanwhile, and holds.
    Superseded,
    /// It is being destroyed. That goes on until it is done, also for who asked for it and is refused so.
    BeingDestroyed,
    /// The interval or the number of failures of a liveness probe, or an update's window, is out of its bounds.
    Supervision,

    // Watching.
    /// There is this unikernel, but it does not run.
    NotRunning,

    // The journal.
    /// Changes cannot be kept, so none is made.
    ReadOnly(ReadOnly),
    /// The state file is no such file, or cannot be used.
    StateFile(StateFault),
    /// The state file would take the place of what there is.
    StateInUse {
        /// The unikernels that there are.
        unikernels: u32,
        /// Those of them that have not ended.
        running: u32,
    },
}

impl From<VolumeRefusal> for Refusal {
    fn from(refusal: VolumeRefusal) -> Self {
        Self::Volume(refusal)
    }
}

/// Which table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Table {
    /// Unanswered requests of one session.
    Requests,
    /// Uploads under way.
    Uploads,
    /// Unikernels.
    Unikernels,
    /// Taps.
    Taps,
    /// Requests to the shim.
    ShimRequests,
    /// Sessions.
    Sessions,
    /// Policies that were set.
    Policies,
    /// Certificates that were revoked.
    Revocations,
    /// State files on their way, in either direction.
    StateFiles,
    /// Volumes.
    Volumes,
    /// Volumes that are pushed, pulled or copied, and images that are downloaded.
    Transfers,
}

/// What kind of device a manifest declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A network device.
    Net,
    /// A block device.
    Block,
}

/// Why a file is not an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageFault {
    /// Not an ELF file for x86_64.
    NotElf,
    /// An ELF file that is malformed, or not a static executable.
    BadElf,
    /// An ELF file without Solo5's ABI note.
    NoAbi,
    /// An ELF file without Solo5's manifest, or with a malformed one.
    BadManifest,
}
