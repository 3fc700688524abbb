//! Volumes: what block devices store on.

use serde::{Deserialize, Serialize};

use crate::limits::{CHUNK_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::{Blob, List, Name};

/// A request about volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeRequest {
    /// Makes a volume that reads as zeros.
    Create {
        /// What it is called.
        name: Name,
        /// Its size: a multiple of [`crate::limits::VOLUME_BLOCK_BYTES`].
        bytes: u64,
    },
    /// All volumes, in the order of their names.
    List,
    /// Offers new content for a volume that no unikernel has. It appears when all of it has arrived, and not before.
    Push {
        /// Which.
        name: Name,
        /// How much is offered, at most the volume's size; the rest reads as zeros.
        bytes: u64,
    },
    /// The next bytes of the push with this `id`; not answered by itself. What is left out reads as zeros.
    Chunk {
        /// From which byte, not before the end of the last chunk.
        offset: u64,
        /// What is there.
        data: Blob<CHUNK_BYTES_MAX>,
    },
    /// That was the last chunk of the push with this `id`; not answered by itself.
    PushEnd,
    /// The content of a volume.
    Pull(Name),
    /// Makes a new volume that is the same as another.
    Snapshot {
        /// Which is copied; a unikernel may have it.
        name: Name,
        /// What the new one is called.
        new: Name,
    },
    /// Changes a volume's size; one that a unikernel has can only grow, and the unikernel sees it when it starts anew.
    Resize {
        /// Which.
        name: Name,
        /// Its size from here on: a multiple of [`crate::limits::VOLUME_BLOCK_BYTES`].
        bytes: u64,
    },
    /// Deletes a volume that no unikernel has.
    Remove(Name),
}

/// An answer about volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeResponse {
    /// It is done, and this is the volume now.
    Is(Volume),
    /// A page of the listing.
    Listed {
        /// The volumes of this page.
        page: List<Volume, PAGE_ENTRIES_MAX>,
        /// Whether another page follows.
        more: bool,
    },
    /// The push may begin: send the chunks.
    Wanted,
    /// The volume has been copied.
    Copied {
        /// The new one.
        volume: Volume,
        /// Whether it is what the old one was at one moment.
        consistent: bool,
    },
    /// The volume is gone.
    Removed,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What it is called.
    pub name: Name,
    /// Its size.
    pub bytes: u64,
    /// What it takes on the host's disk, in bytes, when the shim told last; `None` if it never did.
    pub disk_bytes: Option<u64>,
    /// How it is.
    pub state: VolumeState,
    /// The unikernel that has it.
    pub user: Option<Name>,
}

/// How a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeState {
    /// It is being made.
    Creating,
    /// It is there.
    Ready,
    /// It is being deleted.
    Removing,
    /// Its file is not on the host any more.
    Missing,
    /// There is a file, but no record of a volume: it was put there by hand, or the records are older. It can only be
    /// removed.
    Orphan,
}

/// Why a request about volumes was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeRefusal {
    /// There is no volume of this name.
    Unknown(Name),
    /// There is one of this name already.
    Taken(Name),
    /// A unikernel has it.
    InUse {
        /// Which volume.
        volume: Name,
        /// Which unikernel; `None` if it is not one of this control plane's.
        user: Option<Name>,
    },
    /// It is being made, written, copied to, resized or deleted.
    Busy(Name),
    /// Its file is not on the host any more.
    Missing(Name),
    /// There is a file but no record of a volume: it can only be removed.
    Orphan(Name),
    /// It was changed or removed while it was read.
    Changed(Name),
    /// No volume can have this size.
    Size {
        /// What was asked, in bytes.
        asked: u64,
        /// The size must be a multiple of this, in bytes, and not zero.
        multiple: u64,
        /// The most, in bytes.
        max: u64,
    },
    /// What is pushed is larger than the volume.
    TooSmall {
        /// The volume's size.
        bytes: u64,
        /// What was offered, in bytes.
        offered: u64,
    },
    /// The host gives volumes less space than it would take.
    Space {
        /// What it would take, in bytes.
        asked: u64,
        /// What volumes, and pushes and copies under way, take already, in bytes.
        taken: u64,
        /// What they may take, in bytes.
        max: u64,
    },
}

/// A volume or an image on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Download {
    /// It begins.
    Begin {
        /// The size of the whole.
        bytes: u64,
    },
    /// What is at some place. What is left out reads as zeros.
    Data {
        /// From which byte, never before the end of the last piece.
        offset: u64,
        /// What is there.
        data: Blob<CHUNK_BYTES_MAX>,
    },
    /// That was all.
    End {
        /// Whether it is what the volume was at one moment. Always so of an image.
        consistent: bool,
    },
}
