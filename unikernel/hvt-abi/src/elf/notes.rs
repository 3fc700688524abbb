//! The ABI note and the manifest note.

use core::ops::RangeInclusive;

use super::{ElfError, Header, ManifestFault, u32_at};
use crate::boot::{HVT_ABI_VERSION, HVT_ABI_VERSION_MIN};
use crate::manifest::{
    DeviceKind, Entry, KIND_RESERVED_FIRST, MAX_DEVICES, MAX_ENTRIES, MFT_VERSION, ManifestHeader, NAME_MAX,
    NAME_SIZE, is_device_name,
};
use crate::note::{ABI1_TYPE, MFT1_TYPE, Mft1Note, NoteHeader, SOLO5_NAME, SOLO5_NAME_LEN, Target};
use crate::spt::{SPT_ABI_VERSION, SPT_ABI_VERSION_MIN};

/// Who an image is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abi {
    /// The target.
    pub target: Target,
    /// The version of the target's ABI.
    pub version: u32,
}

impl Abi {
    /// Refuses what is not made for a version of the hvt ABI that this crate describes.
    pub fn require_hvt(self) -> Result<(), ElfError> {
        match self.target {
            Target::Hvt => self.require_version(HVT_ABI_VERSION_MIN..=HVT_ABI_VERSION),
            target => Err(ElfError::WrongTarget(target)),
        }
    }

    /// Refuses what is made for neither hvt nor spt, in the versions that this crate describes.
    pub fn require_hvt_or_spt(self) -> Result<(), ElfError> {
        match self.target {
            Target::Spt => self.require_version(SPT_ABI_VERSION_MIN..=SPT_ABI_VERSION),
            _ => self.require_hvt(),
        }
    }

    fn require_version(self, known: RangeInclusive<u32>) -> Result<(), ElfError> {
        if known.contains(&self.version) { Ok(()) } else { Err(ElfError::WrongAbiVersion(self.version)) }
    }
}

/// A device that an image declares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Device {
    name: [u8; NAME_MAX],
    name_len: u8,
    /// What it is.
    pub kind: DeviceKind,
}

impl Device {
    /// Its name: 1 to 67 ASCII letters and digits.
    pub fn name(&self) -> &str {
        let bytes = self.name.get(..usize::from(self.name_len));
        bytes.and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
    }

    fn parse(index: u8, entry: &[u8]) -> Result<Self, ManifestFault> {
        let field = entry.get(..NAME_SIZE).ok_or(ManifestFault::Size)?;
        let name_len = field.iter().position(|&byte| byte == 0);
        let name = field.get(..name_len.unwrap_or(NAME_SIZE)).unwrap_or(&[]);
        if !is_device_name(name) {
            return Err(ManifestFault::Name(index));
        }
        let kind = u32_at(entry, core::mem::offset_of!(Entry, kind)).and_then(DeviceKind::from_raw);
        let mut device = Self {
            name: [0; NAME_MAX],
            name_len: u8::try_from(name.len()).map_err(|_| ManifestFault::Name(index))?,
            kind: kind.ok_or(ManifestFault::Kind(index))?,
        };
        for (to, from) in device.name.iter_mut().zip(name) {
            *to = *from;
        }
        if entry.get(core::mem::offset_of!(Entry, attached)) != Some(&0) {
            return Err(ManifestFault::Attached(index));
        }
        Ok(device)
    }
}

impl core::fmt::Debug for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.name())
    }
}

/// The devices that an image declares, in the manifest's order.
#[derive(Clone, Copy, Debug)]
pub struct Devices {
    list: [Option<Device>; MAX_DEVICES],
}

impl Devices {
    /// The devices with their handles: the indices of their entries in the manifest, from 1.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Device)> {
        (1u8..).zip(self.list.iter().map_while(Option::as_ref))
    }

    /// The device with this name, and its handle.
    pub fn find(&self, name: &str) -> Option<(u8, &Device)> {
        self.iter().find(|(_, device)| device.name() == name)
    }

    /// Number of devices.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether the image declares no device.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn parse(manifest: &[u8]) -> Result<Self, ManifestFault> {
        let version = u32_at(manifest, 0).ok_or(ManifestFault::Size)?;
        let count = u32_at(manifest, 4).ok_or(ManifestFault::Size)?;
        if version != MFT_VERSION {
            return Err(ManifestFault::Version);
        }
        let count = usize::try_from(count).map_err(|_| ManifestFault::EntryCount)?;
        if count == 0 || count > MAX_ENTRIES {
            return Err(ManifestFault::EntryCount);
        }
        if manifest.len() != size_of::<ManifestHeader>() + count * size_of::<Entry>() {
            return Err(ManifestFault::Size);
        }
        let entries = manifest.get(size_of::<ManifestHeader>()..).unwrap_or(&[]);
        let mut entries = entries.chunks_exact(size_of::<Entry>());
        check_first(entries.next().ok_or(ManifestFault::FirstEntry)?)?;
        let mut devices = Self { list: [None; MAX_DEVICES] };
        for (index, entry) in (1u8..).zip(entries) {
            let device = Device::parse(index, entry)?;
            if devices.find(device.name()).is_some() {
                return Err(ManifestFault::DuplicateName(index));
            }
            if let Some(slot) = devices.list.get_mut(usize::from(index) - 1) {
                *slot = Some(device);
            }
        }
        Ok(devices)
    }
}

fn check_first(entry: &[u8]) -> Result<(), ManifestFault> {
    let kind = u32_at(entry, core::mem::offset_of!(Entry, kind));
    if kind == Some(KIND_RESERVED_FIRST) && entry.first() == Some(&0) {
        Ok(())
    } else {
        Err(ManifestFault::FirstEntry)
    }
}

/// What the notes of an image say.
#[derive(Clone, Copy, Debug)]
pub struct Notes {
    /// Who the image is built for.
    pub abi: Abi,
    /// The devices it declares.
    pub devices: Devices,
}

impl Notes {
    /// Reads the notes of the image with this `header` from the bytes of its [`Header::notes_range`]; more bytes do
    /// no harm.
    ///
    /// As Solo5's own loaders do, it looks at the first note of each segment and takes the first that fits.
    pub fn parse(header: &Header, bytes: &[u8]) -> Result<Self, ElfError> {
        if (bytes.len() as u64) < header.notes_range().len {
            return Err(ElfError::Truncated);
        }
        // A descriptor starts with padding that aligns the C structure.
        let padding = core::mem::offset_of!(Mft1Note<1>, manifest) - size_of::<NoteHeader>();
        let abi = find_note(header, bytes, ABI1_TYPE, 1..=ABI_BYTES_MAX)?.ok_or(ElfError::NoAbiNote)?;
        let abi = Abi {
            target: Target::from_raw(u32_at(abi, 0).ok_or(ElfError::BadAbiNote)?),
            version: u32_at(abi, 4).ok_or(ElfError::BadAbiNote)?,
        };
        let manifest = find_note(header, bytes, MFT1_TYPE, padding + 1..=MANIFEST_BYTES_MAX)?;
        let manifest = manifest.ok_or(ElfError::NoManifest)?;
        let manifest = manifest.get(padding..);
        let devices = manifest.ok_or(ManifestFault::Size).and_then(Devices::parse);
        Ok(Self { abi, devices: devices.map_err(ElfError::BadManifest)? })
    }
}

/// Longest descriptors of the two notes in bytes, as upstream's tenders take them.
const ABI_BYTES_MAX: usize = 32;
const MANIFEST_BYTES_MAX: usize = size_of::<Mft1Note<MAX_ENTRIES>>() - size_of::<NoteHeader>();

/// The descriptor of the first Solo5 note of this type, if there is one. It must be of one of these lengths.
fn find_note<'a>(
    header: &Header,
    bytes: &'a [u8],
    kind: u32,
    lens: RangeInclusive<usize>,
) -> Result<Option<&'a [u8]>, ElfError> {
    let base = header.notes_range().offset;
    for (index, range) in header.note_segments() {
        let bad = ElfError::BadNoteSegment(index);
        let within = super::FileRange { offset: range.offset.checked_sub(base).ok_or(bad)?, len: range.len };
        let segment = within.of(bytes).ok_or(bad)?;
        let Some((head, rest)) = segment.split_at_checked(size_of::<NoteHeader>()) else {
            continue;
        };
        if u32_at(head, 0) != Some(SOLO5_NAME_LEN)
            || u32_at(head, 8) != Some(kind)
            || head.get(12..18) != SOLO5_NAME.get(..6)
        {
            continue;
        }
        let len = u32_at(head, 4).and_then(|len| usize::try_from(len).ok());
        let len = len.filter(|len| lens.contains(len)).ok_or(bad)?;
        return rest.get(..len).map(Some).ok_or(bad);
    }
    Ok(None)
}
