//! What the control plane keeps of what it knows: how that is doing, and how it is carried elsewhere.

use serde::{Deserialize, Serialize};

/// Where the control plane keeps what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Journal {
    /// Nowhere: it has no block device "state". When it ends, it knows only what the shim can tell.
    InMemory,
    /// On its block device "state".
    Kept {
        /// How often the journal was begun anew.
        epoch: u64,
        /// What its present half holds, in bytes.
        used_bytes: u64,
        /// What one half can hold, in bytes.
        area_bytes: u64,
    },
    /// Nothing can be kept: what is known is shown, and changes are refused.
    ReadOnly(ReadOnly),
}

/// Why changes cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadOnly {
    /// What is on the block device is no journal.
    NotAJournal,
    /// The journal is damaged: of what was written, something in the middle cannot be read.
    Damaged,
    /// The journal's layout is of this version, which this control plane does not know.
    Version(u16),
    /// The journal holds what only a newer control plane understands.
    Newer,
    /// The block device is smaller, or has other blocks, than the one that the journal was begun on.
    Geometry,
    /// The block device is too small for a journal.
    TooSmall {
        /// Its size, in bytes.
        bytes: u64,
        /// The least, in bytes.
        min: u64,
    },
    /// The block device could not be read.
    Unreadable,
    /// The block device could not be written.
    Unwritable,
    /// The journal has no room for this change. What takes less room is still done: a destroy, for one.
    Full,
}

/// Why bytes are not taken in as a control plane's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateFault {
    /// They are no state file.
    NotAStateFile,
    /// The file's layout is of this version, which this control plane does not know.
    Version(u16),
    /// The file is cut short or damaged.
    Damaged,
    /// The file holds what only a newer control plane understands.
    Newer,
    /// The file is whole, but what it tells cannot be: no control plane has written it. Or it is too large.
    Impossible,
}
