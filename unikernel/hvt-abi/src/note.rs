//! The ELF notes of a Solo5 image, ready to be placed in their sections.
//!
//! Upstream's loaders look at the first note of each `PT_NOTE` segment only, so a linker script gives each note
//! a segment of its own, [`OpenBsdNote`] first.

use crate::assert_layout;
use crate::boot::HVT_ABI_VERSION;
use crate::manifest::{Entry, Manifest};

/// Name of the notes that Solo5 owns, with its NUL and padding.
pub const SOLO5_NAME: [u8; 8] = *b"Solo5\0\0\0";

/// Length of Solo5's name in a note header: with the NUL, without the padding.
pub const SOLO5_NAME_LEN: u32 = 6;

/// Type of the ABI note: "ABI1".
pub const ABI1_TYPE: u32 = u32::from_le_bytes(*b"ABI1");

/// Type of the manifest note: "MFT1".
pub const MFT1_TYPE: u32 = u32::from_le_bytes(*b"MFT1");

/// The contents of `.interp`: a path that cannot exist, so that no host runs an image by accident.
pub const INTERP: [u8; 24] = *b"/nonexistent/solo5/\0\0\0\0\0";

/// Which host interface an image is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Hardware virtualized tender.
    Hvt,
    /// Sandboxed process tender.
    Spt,
    /// virtio-based hypervisors.
    Virtio,
    /// Muen separation kernel.
    Muen,
    /// Genode.
    Genode,
    /// Xen PVH.
    Xen,
    /// A number that Solo5 has not given out.
    Unknown(u32),
}

impl Target {
    /// The target with Solo5's number `raw`.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Hvt,
            2 => Self::Spt,
            3 => Self::Virtio,
            4 => Self::Muen,
            5 => Self::Genode,
            6 => Self::Xen,
            other => Self::Unknown(other),
        }
    }

    /// Solo5's number for it.
    pub const fn raw(self) -> u32 {
        match self {
            Self::Hvt => 1,
            Self::Spt => 2,
            Self::Virtio => 3,
            Self::Muen => 4,
            Self::Genode => 5,
            Self::Xen => 6,
            Self::Unknown(raw) => raw,
        }
    }

    /// Its name in lower case, as `solo5-elftool query-abi` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hvt => "hvt",
            Self::Spt => "spt",
            Self::Virtio => "virtio",
            Self::Muen => "muen",
            Self::Genode => "genode",
            Self::Xen => "xen",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// The common start of Solo5's notes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoteHeader {
    /// Length of the name with its NUL.
    pub name_len: u32,
    /// Length of what follows the header, any padding before it included.
    pub desc_len: u32,
    /// [`ABI1_TYPE`] or [`MFT1_TYPE`].
    pub kind: u32,
    /// [`SOLO5_NAME`].
    pub name: [u8; 8],
}

/// The ABI note. Its section is `.note.solo5.abi`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abi1Note {
    /// The note's header.
    pub header: NoteHeader,
    /// Number of the [`Target`].
    pub target: u32,
    /// Version of the target's ABI.
    pub version: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

impl Abi1Note {
    /// The note of an image for hvt.
    pub const HVT: Self = Self {
        header: NoteHeader { name_len: SOLO5_NAME_LEN, desc_len: 16, kind: ABI1_TYPE, name: SOLO5_NAME },
        target: Target::Hvt.raw(),
        version: HVT_ABI_VERSION,
        reserved: [0; 2],
    };
}

/// The manifest note. Its section is `.note.solo5.manifest`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Mft1Note<const N: usize> {
    /// The note's header.
    pub header: NoteHeader,
    /// Aligns the manifest as its C structure.
    pub padding: u32,
    /// The manifest.
    pub manifest: Manifest<N>,
}

impl<const N: usize> Mft1Note<N> {
    /// The note with these entries; see [`Manifest::new`] for what ends the compilation.
    ///
    /// # Panics
    /// As [`Manifest::new`].
    #[expect(clippy::cast_possible_truncation, reason = "N is at most 64")]
    pub const fn new(entries: [Entry; N]) -> Self {
        Self {
            manifest: Manifest::new(entries),
            header: NoteHeader {
                name_len: SOLO5_NAME_LEN,
                desc_len: (size_of::<Self>() - size_of::<NoteHeader>()) as u32,
                kind: MFT1_TYPE,
                name: SOLO5_NAME,
            },
            padding: 0,
        }
    }
}

/// OpenBSD's identification note, which must be the first: without it OpenBSD would hand an image to its shell.
/// Its section is `.note.solo5.not_openbsd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenBsdNote {
    /// Length of the name with its NUL.
    pub name_len: u32,
    /// Length of `data`.
    pub desc_len: u32,
    /// 1: a version.
    pub kind: u32,
    /// "OpenBSD".
    pub name: [u8; 8],
    /// Zero.
    pub data: u32,
}

impl OpenBsdNote {
    /// The note as it is in every image.
    pub const IDENT: Self = Self { name_len: 8, desc_len: 4, kind: 1, name: *b"OpenBSD\0", data: 0 };
}

assert_layout!(NoteHeader, size 20, align 4, name_len @ 0, desc_len @ 4, kind @ 8, name @ 12);
assert_layout!(Abi1Note, size 36, align 4, header @ 0, target @ 20, version @ 24, reserved @ 28);
assert_layout!(Mft1Note<1>, size 136, align 8, header @ 0, manifest @ 24);
assert_layout!(OpenBsdNote, size 24, align 4, name @ 12, data @ 20);
