//! The manifest: the devices a guest declares, and what the tender fills in about each.

use crate::assert_layout;

/// Version of the manifest's format.
pub const MFT_VERSION: u32 = 1;

/// Bytes of a device's name field, with its terminating NUL.
pub const NAME_SIZE: usize = 68;

/// Most characters that a device's name may have.
pub const NAME_MAX: usize = NAME_SIZE - 1;

/// Most entries of a manifest, the reserved first one among them.
pub const MAX_ENTRIES: usize = 64;

/// Most devices of a manifest.
pub const MAX_DEVICES: usize = MAX_ENTRIES - 1;

/// [`Entry::kind`] of the reserved first entry.
pub const KIND_RESERVED_FIRST: u32 = 1 << 30;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceKind {
    /// A block device (`MFT_DEV_BLOCK_BASIC`).
    Block = 1,
    /// A network device (`MFT_DEV_NET_BASIC`).
    Net = 2,
}

impl DeviceKind {
    /// The kind with this number, if there is one.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Block),
            2 => Some(Self::Net),
            _ => None,
        }
    }

    /// Solo5's own word for it, as tenders print it.
    pub const fn solo5_name(self) -> &'static str {
        match self {
            Self::Block => "BLOCK_BASIC",
            Self::Net => "NET_BASIC",
        }
    }
}

/// What the tender tells about an attached device: a union in C, so plain bytes with typed views here.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties([u8; 16]);

impl Properties {
    /// Nothing filled in: the state in an image.
    pub const EMPTY: Self = Self([0; 16]);

    /// A block device of `capacity` bytes with blocks of `block_size` bytes.
    pub fn block(capacity: u64, block_size: u16) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&capacity.to_le_bytes());
        bytes[8..10].copy_from_slice(&block_size.to_le_bytes());
        Self(bytes)
    }

    /// A network device with this hardware address; `mtu` in bytes, without the Ethernet header.
    pub fn net(mac: [u8; 6], mtu: u16) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&mac);
        bytes[6..8].copy_from_slice(&mtu.to_le_bytes());
        Self(bytes)
    }

    /// A block device's size in bytes.
    pub fn capacity(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// A block device's unit of transfer in bytes.
    pub fn block_size(&self) -> u16 {
        u16::from_le_bytes([self.0[8], self.0[9]])
    }

    /// A network device's hardware address.
    pub fn mac(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0;
        [a, b, c, d, e, f]
    }

    /// A network device's MTU in bytes, without the Ethernet header.
    pub fn mtu(&self) -> u16 {
        u16::from_le_bytes([self.0[6], self.0[7]])
    }
}

/// One entry of a manifest. A device's handle is its index, so the first device has handle 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The device's name, NUL-terminated.
    pub name: [u8; NAME_SIZE],
    /// A [`DeviceKind`], or [`KIND_RESERVED_FIRST`].
    pub kind: u32,
    /// Filled in by the tender.
    pub properties: Properties,
    /// The tender's or the bindings' own; of no meaning to the other side.
    pub backing: u64,
    /// 1 when the tender has attached the device, else 0.
    pub attached: u8,
    /// Room up to the structure's alignment, zero.
    pub padding: [u8; 7],
}

impl Entry {
    /// The entry that every manifest starts with.
    pub const RESERVED_FIRST: Self = Self {
        name: [0; NAME_SIZE],
        kind: KIND_RESERVED_FIRST,
        properties: Properties::EMPTY,
        backing: 0,
        attached: 0,
        padding: [0; 7],
    };

    /// Declares a device. Made for constants: a bad name ends the compilation.
    ///
    /// # Panics
    /// When `name` is not 1 to [`NAME_MAX`] ASCII letters and digits.
    pub const fn device(kind: DeviceKind, name: &str) -> Self {
        let from = name.as_bytes();
        assert!(is_device_name(from), "a device's name is 1 to 67 ASCII letters and digits");
        let mut entry = Self::RESERVED_FIRST;
        entry.kind = kind as u32;
        let mut i = 0;
        while i < from.len() {
            entry.name[i] = from[i];
            i += 1;
        }
        entry
    }

    /// Declares a network device; see [`Entry::device`].
    pub const fn net(name: &str) -> Self {
        Self::device(DeviceKind::Net, name)
    }

    /// Declares a block device; see [`Entry::device`].
    pub const fn block(name: &str) -> Self {
        Self::device(DeviceKind::Block, name)
    }

    /// The name's bytes up to its NUL.
    pub fn name_bytes(&self) -> &[u8] {
        let end = self.name.iter().position(|&byte| byte == 0);
        self.name.get(..end.unwrap_or(NAME_SIZE)).unwrap_or(&[])
    }
}

/// Whether `name` may name a device: 1 to [`NAME_MAX`] ASCII letters and digits, as Solo5's elftool has it.
pub const fn is_device_name(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > NAME_MAX {
        return false;
    }
    let mut i = 0;
    while i < name.len() {
        if !name[i].is_ascii_alphanumeric() {
            return false;
        }
        i += 1;
    }
    true
}

/// A manifest's fixed part; `entries` times [`Entry`] follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestHeader {
    /// [`MFT_VERSION`].
    pub version: u32,
    /// Number of entries, the reserved first one included.
    pub entries: u32,
}

/// A manifest of `N` entries, the reserved first one included.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Manifest<const N: usize> {
    /// Version and number of entries.
    pub header: ManifestHeader,
    /// The entries.
    pub entries: [Entry; N],
}

impl<const N: usize> Manifest<N> {
    /// A manifest of these entries. Made for constants: too many, or a first one that is not
    /// [`Entry::RESERVED_FIRST`], end the compilation.
    ///
    /// # Panics
    /// As said.
    #[expect(clippy::cast_possible_truncation, reason = "N is at most 64")]
    pub const fn new(entries: [Entry; N]) -> Self {
        assert!(N >= 1 && N <= MAX_ENTRIES, "a manifest has at most 63 devices");
        assert!(entries[0].kind == KIND_RESERVED_FIRST, "a manifest starts with Entry::RESERVED_FIRST");
        Self { header: ManifestHeader { version: MFT_VERSION, entries: N as u32 }, entries }
    }
}

assert_layout!(Properties, size 16, align 8);
assert_layout!(
    Entry, size 104, align 8,
    name @ 0, kind @ 68, properties @ 72, backing @ 88, attached @ 96,
);
assert_layout!(ManifestHeader, size 8, align 4, version @ 0, entries @ 4);
assert_layout!(Manifest<1>, size 112, align 8, header @ 0, entries @ 8);
