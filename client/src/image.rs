//! Local images: read once, checked as the control plane would before a byte is uploaded.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use hvt_abi::elf::{Abi, Devices, ElfError, Header, Layout, Notes};
use hvt_abi::note::Target;
use hvt_abi::sites::sites;
use petrel_wire::limits::{IMAGE_BYTES_MAX, MEMORY_MIB_MAX, MEMORY_MIB_MIN};
use petrel_wire::operator::{Block, DeviceKind, ImageFault, Net, Refusal};
use petrel_wire::{DeviceName, Digest};

use crate::error::{Error, ImageProblem};

/// An image of a Solo5 target, in memory.
pub struct Image {
    /// Where it was read from.
    pub path: PathBuf,
    /// The file.
    pub bytes: Vec<u8>,
    /// What it is built for.
    pub abi: Abi,
    /// The devices it declares.
    pub devices: Devices,
    /// Where its segments go.
    pub layout: Layout,
    /// What tells this build from others, where its linker was asked for it.
    pub build_id: Option<Vec<u8>>,
    /// The addresses of its code.
    code: Vec<Range<u64>>,
}

impl Image {
    /// Reads an image from a file.
    ///
    /// # Errors
    /// [`Error::Image`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fail = |fault| Error::Image { path: path.into(), fault };
        let bytes = read_file(path).map_err(fail)?;
        let header = Header::parse(&bytes, bytes.len() as u64).map_err(|error| fail(not_an_image(error)))?;
        let (abi, devices, layout) = parse(&header, &bytes).map_err(|error| fail(not_an_image(error)))?;
        let sections = header.section_table().and_then(|range| range.of(&bytes)).unwrap_or_default();
        let code = hvt_abi::elf::code(sections, &layout).collect();
        let build_id = header.build_id(&bytes).map(<[u8]>::to_vec);
        Ok(Self { path: path.into(), bytes, abi, devices, layout, build_id, code })
    }

    /// Number of the places where it makes hypercalls that ring 3 can replace by jumps; nothing where it makes none.
    pub fn hypercall_sites(&self) -> Option<usize> {
        let code = self.code.iter().filter_map(|range| self.layout.file_range(range)?.of(&self.bytes));
        (self.abi.target == Target::Hvt).then(|| code.map(|code| sites(code).count()).sum())
    }

    /// Whether petrel-tender can run it, on this machine or another; if not, why.
    ///
    /// # Errors
    /// As said.
    pub fn runnable(&self) -> Result<(), ElfError> {
        self.abi.require_hvt_or_spt()
    }

    /// The SHA-256 of the file, which is how a host names it.
    pub fn digest(&self) -> Digest {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.bytes);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Digest(bytes)
    }

    /// Whether the devices given are exactly those declared.
    ///
    /// # Errors
    /// [`Error::Image`] with what the control plane would say.
    pub fn check_devices(&self, nets: &[Net], blocks: &[Block]) -> Result<(), Error> {
        let fail = |refusal| Error::Image {
            path: self.path.clone(),
            fault: ImageProblem::Refused { refusal, detail: self.declared() },
        };
        let nets = nets.iter().map(|net| (&net.device, DeviceKind::Net));
        let blocks = blocks.iter().map(|block| (&block.device, DeviceKind::Block));
        let mut given: Vec<(&DeviceName, DeviceKind)> = Vec::new();
        for (device, kind) in nets.chain(blocks) {
            if given.iter().any(|(name, _)| *name == device) {
                return Err(fail(Refusal::DeviceTwice(device.clone())));
            }
            if self.devices.find(device).is_none_or(|(_, declared)| wire_kind(declared.kind) != kind) {
                return Err(fail(Refusal::DeviceUnknown { device: device.clone(), kind }));
            }
            given.push((device, kind));
        }
        for (_, declared) in self.devices.iter() {
            // The manifest's names and the wire's have the same alphabet and bound.
            let Ok(device) = declared.name().parse::<DeviceName>() else { continue };
            if !given.iter().any(|(name, _)| **name == device) {
                let kind = wire_kind(declared.kind);
                return Err(fail(Refusal::DeviceMissing { device, kind }));
            }
        }
        Ok(())
    }

    /// Whether it fits into so much memory.
    ///
    /// # Errors
    /// [`Error::Image`] with what the control plane would say.
    pub fn check_memory(&self, asked_mib: u32) -> Result<(), Error> {
        let min_mib = self.layout.memory_min_mib().max(MEMORY_MIB_MIN);
        if asked_mib >= min_mib {
            return Ok(());
        }
        let refusal = Refusal::Memory { asked_mib, min_mib, max_mib: MEMORY_MIB_MAX };
        let detail = format!("its segments end at {:#x}", self.layout.end());
        Err(Error::Image { path: self.path.clone(), fault: ImageProblem::Refused { refusal, detail } })
    }

    /// The declared devices in words, for messages.
    fn declared(&self) -> String {
        let devices = self.devices.iter().map(|(_, device)| {
            let kind = if device.kind == hvt_abi::manifest::DeviceKind::Net { "net" } else { "block" };
            format!("{kind} {:?}", device.name())
        });
        let devices: Vec<_> = devices.collect();
        if devices.is_empty() {
            "the manifest declares no devices".into()
        } else {
            format!("the manifest declares {}", devices.join(", "))
        }
    }
}

fn wire_kind(kind: hvt_abi::manifest::DeviceKind) -> DeviceKind {
    match kind {
        hvt_abi::manifest::DeviceKind::Net => DeviceKind::Net,
        hvt_abi::manifest::DeviceKind::Block => DeviceKind::Block,
    }
}

/// The file's size is checked before it is read, and it is never read beyond that.
fn read_file(path: &Path) -> Result<Vec<u8>, ImageProblem> {
    let metadata = std::fs::metadata(path).map_err(ImageProblem::Read)?;
    // Asked before opening, because opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err(ImageProblem::NotAFile);
    }
    let size = || ImageProblem::Refused {
        refusal: Refusal::ImageSize { max: IMAGE_BYTES_MAX },
        detail: format!("it has {} bytes", metadata.len()),
    };
    if metadata.len() == 0 || metadata.len() > IMAGE_BYTES_MAX {
        return Err(size());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).map_err(|_| size())?);
    let file = File::open(path).map_err(ImageProblem::Read)?;
    file.take(metadata.len()).read_to_end(&mut bytes).map_err(ImageProblem::Read)?;
    Ok(bytes)
}

/// Images for targets other than hvt are read as well: whether a host can run them is the host's to say.
fn parse(header: &Header, file: &[u8]) -> Result<(Abi, Devices, Layout), ElfError> {
    let range = header.notes_range();
    let notes = Notes::parse(header, range.of(file).ok_or(ElfError::Truncated)?)?;
    Ok((notes.abi, notes.devices, header.layout()?))
}

fn not_an_image(error: ElfError) -> ImageProblem {
    let fault = match error {
        ElfError::NotElf | ElfError::WrongMachine => ImageFault::NotElf,
        ElfError::NoAbiNote | ElfError::BadAbiNote => ImageFault::NoAbi,
        ElfError::NoManifest | ElfError::BadManifest(_) => ImageFault::BadManifest,
        _ => ImageFault::BadElf,
    };
    ImageProblem::Refused { refusal: Refusal::NotAnImage(fault), detail: error.to_string() }
}
