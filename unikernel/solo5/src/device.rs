//! What network and block devices have in common: they are found in the manifest and acquired once.

use core::sync::atomic::{AtomicU64, Ordering};
use hvt_abi::hypercall::ret;
use hvt_abi::manifest::{DeviceKind, Properties};

/// Why a device did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// The device cannot take it now; try again later.
    Again,
    /// The length is not one the device takes, or the range is not within it. Nothing was asked of the tender.
    OutOfBounds,
    /// The tender refused the request as invalid.
    Invalid,
    /// The tender failed to do it.
    Failed,
}

impl core::fmt::Display for IoError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Again => "the device is busy",
            Self::OutOfBounds => "the length or range is not one that the device has",
            Self::Invalid => "the tender refused the request as invalid",
            Self::Failed => "the tender failed to do it",
        })
    }
}

impl core::error::Error for IoError {}

/// A hypercall's result.
pub(crate) fn result(code: i32) -> Result<(), IoError> {
    match code {
        ret::OK => Ok(()),
        ret::AGAIN => Err(IoError::Again),
        ret::EINVAL => Err(IoError::Invalid),
        _ => Err(IoError::Failed),
    }
}

/// Takes the device of this kind and name, which nobody can then take again: what it is known by, and what the
/// tender says about it.
pub(crate) fn acquire(kind: DeviceKind, name: &str) -> Option<(u64, Properties)> {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let (index, entry) = crate::boot::manifest().iter().enumerate().find(|(_, entry)| {
        DeviceKind::from_raw(entry.kind) == Some(kind)
            && entry.name_bytes() == name.as_bytes()
            && entry.attached != 0
    })?;
    let handle = u64::try_from(index).ok()?;
    let bit = 1_u64.checked_shl(u32::try_from(index).ok()?)?;
    let was_free = TAKEN.fetch_or(bit, Ordering::Relaxed) & bit == 0;
    was_free.then_some((handle, entry.properties))
}
