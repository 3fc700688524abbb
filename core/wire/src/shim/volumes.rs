//! The volumes of a host: files of one folder. A new one is all hole: it reads as zeros and takes no space.
//!
//! Each operation is a bounded piece of work; what is large is done in steps that the control plane asks for, and
//! what has to appear as a whole is made as a draft and then renamed.

use serde::{Deserialize, Serialize};

use crate::limits::CHUNK_BYTES_MAX;
use crate::{Blob, VolumeName};

/// An operation on volumes. In brackets, the [`Reply`](super::Reply) when it is done; `Done` where none is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeOp {
    /// Makes a volume that reads as zeros.
    Create {
        /// Which.
        volume: VolumeName,
        /// Its size.
        bytes: u64,
    },
    /// Deletes a volume that no monitor has.
    Remove(VolumeName),
    /// Changes a volume's size; one that a monitor has can only grow.
    Resize {
        /// Which.
        volume: VolumeName,
        /// Its size from here on.
        bytes: u64,
    },
    /// Makes what was written to `from` durable and gives it the place of `to`, at once for all to see. No monitor has
    /// either.
    Rename {
        /// Which; it is no more under this name.
        from: VolumeName,
        /// What it is from here on; what was there is gone.
        to: VolumeName,
    },
    /// Makes `to`, which no monitor has, the same as `from` at one moment, by sharing its blocks. A fault if the file
    /// system cannot.
    Clone {
        /// What is cloned; a monitor may write to it.
        from: VolumeName,
        /// What becomes the same; it has the same size already.
        to: VolumeName,
    },
    /// Reads the next piece that begins with no hole, at most [`CHUNK_BYTES_MAX`]
    /// [`Reply::Extent`](super::Reply::Extent).
    Read {
        /// Which.
        volume: VolumeName,
        /// From which byte.
        offset: u64,
    },
    /// Writes to a volume that no monitor has, within its size.
    Write {
        /// Which.
        volume: VolumeName,
        /// From which byte.
        offset: u64,
        /// What.
        data: Blob<CHUNK_BYTES_MAX>,
    },
    /// Makes what was written durable. Asked for every few MiB, it never takes long.
    Sync(VolumeName),
    /// The volumes, in pages in the order of their names [`Reply::Volumes`](super::Reply::Volumes).
    List {
        /// Only those with a greater name.
        after: Option<VolumeName>,
    },
}

/// A file of the volume folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Which.
    pub volume: VolumeName,
    /// Its size.
    pub bytes: u64,
    /// What it takes on the disk, in bytes: holes take nothing.
    pub disk_bytes: u64,
}
