//! Guest-physical addresses.

/// A guest-physical address: an allegation by the guest, not a pointer.
///
/// It has no dereference on purpose. A tender turns it into memory in one place only, after checking it
/// against the guest's memory; a guest makes it from its own (identity-mapped) pointers.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestAddr(u64);

impl GuestAddr {
    /// The null address, which is never mapped.
    pub const NULL: Self = Self(0);

    /// The address `raw`, in bytes from the start of guest memory.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The address of a guest's own object: guest memory is identity-mapped, so pointer and address agree.
    pub fn of<T: ?Sized>(object: *const T) -> Self {
        Self(object.cast::<u8>() as u64)
    }

    /// Bytes from the start of guest memory.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether this is the null address.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
}

crate::assert_layout!(GuestAddr, size 8, align 8);
