//! What is known of the host's images: the ABI, the devices and the memory that each needs.
//!
//! The control plane holds no image. It learns what it has to know by reading two short ranges of the stored
//! file, once; what was learned is kept in a bounded table and learned again when it has been dropped.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use hvt_abi::{
    elf::{self, ElfError, FileRange, HEADER_BYTES, Header, NOTES_BYTES_MAX, Notes},
    manifest,
};
use petrel_wire::{
    DeviceName, Digest,
    limits::{IMAGE_BYTES_MAX, IMAGE_READ_BYTES_MAX, IMAGES_MAX},
    operator::{DeviceKind, ImageFault, Refusal},
    shim::{Fault, Monitor, Op, Reply},
};

use crate::{
    Engine,
    create::Wanted,
    policy,
    shim_client::{Handled, Nonsense, Waiting},
};

/// What is read first: the headers, and in most images the notes too.
const FIRST_BYTES: u32 = 20 * 1024;
const _: () = assert!(FIRST_BYTES as u64 == HEADER_BYTES as u64 + NOTES_BYTES_MAX);
const _: () = assert!(FIRST_BYTES as usize <= IMAGE_READ_BYTES_MAX);

/// What has to be known of an image to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Solo5's number of the target that it is built for.
    pub target: u32,
    /// The version of that target's ABI.
    pub version: u32,
    /// The devices that its manifest declares.
    pub devices: Vec<(DeviceName, DeviceKind)>,
    /// The least memory that holds its segments, in MiB.
    pub memory_min_mib: u32,
}

impl Image {
    fn new(header: &Header, notes: &Notes) -> Result<Self, ElfError> {
        let layout = header.layout()?;
        let device = |(index, device): (u8, &elf::Device)| {
            let bad = ElfError::BadManifest(elf::ManifestFault::Name(index));
            let kind = match device.kind {
                manifest::DeviceKind::Net => DeviceKind::Net,
                manifest::DeviceKind::Block => DeviceKind::Block,
            };
            Ok((device.name().parse().map_err(|_| bad)?, kind))
        };
        Ok(Self {
            target: notes.abi.target.raw(),
            version: notes.abi.version,
            devices: notes.devices.iter().map(device).collect::<Result<_, _>>()?,
            memory_min_mib: layout.memory_min_mib(),
        })
    }

    /// Whether `monitor` can run it.
    pub fn runs_on(&self, monitor: &Monitor) -> bool {
        monitor.target == self.target && monitor.version >= self.version
    }
}

/// The images that are known, and those that are being looked into.
#[derive(Debug, Default)]
pub(crate) struct Images {
    known: BTreeMap<Digest, Image>,
    /// The keys of `known`, the longest known first.
    order: VecDeque<Digest>,
    inspections: BTreeMap<Digest, Inspection>,
    /// The creates among those who wait for an inspection.
    pub creates_waiting: usize,
}

/// A look into an image.
#[derive(Debug)]
struct Inspection {
    /// The size of the file, or the most that it can be.
    bytes: u64,
    /// Read already; the notes follow.
    header: Option<Box<Header>>,
    waiting: Vec<Learner>,
}

/// Who wants to know.
#[derive(Debug)]
pub(crate) enum Learner {
    /// The upload of this image, which has arrived.
    Upload,
    /// Somebody who wants to create a unikernel from it.
    Create(Wanted),
}

impl Images {
    /// What is known of an image.
    pub fn known(&self, digest: Digest) -> Option<&Image> {
        self.known.get(&digest)
    }

    /// The host has not got this image, or has it no longer.
    pub fn forget(&mut self, digest: Digest) {
        if self.known.remove(&digest).is_some() {
            self.order.retain(|known| *known != digest);
        }
    }

    /// How many images are known.
    #[cfg(feature = "inspect")]
    pub fn known_len(&self) -> usize {
        self.known.len().max(self.order.len())
    }

    /// How many images are being looked into.
    #[cfg(feature = "inspect")]
    pub fn inspections_len(&self) -> usize {
        self.inspections.len()
    }

    fn remember(&mut self, digest: Digest, image: Image) {
        if self.known.insert(digest, image).is_none() {
            self.order.push_back(digest);
        }
        if self.order.len() > IMAGES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether somebody waits to know what it is.
    pub fn is_looked_into(&self, digest: Digest) -> bool {
        self.inspections.contains_key(&digest)
    }

    /// Gives up all inspections; returns who waited for them.
    pub fn give_up(&mut self) -> Vec<Learner> {
        self.creates_waiting = 0;
        core::mem::take(&mut self.inspections)
            .into_values()
            .flat_map(|inspection| inspection.waiting)
            .collect()
    }
}

impl Inspection {
    /// Takes in what was read: the image, or what to read next.
    fn step(&mut self, data: &[u8]) -> Result<Result<Image, FileRange>, ElfError> {
        let Some(header) = &self.header else {
            let whole = data.len() < FIRST_BYTES as usize;
            let bytes = if whole { data.len() as u64 } else { self.bytes };
            let header = Header::parse(data, bytes)?;
            let range = header.notes_range();
            let Some(notes) = range.of(data) else {
                self.header = Some(Box::new(header));
                return Ok(Err(range));
            };
            return Image::new(&header, &Notes::parse(&header, notes)?).map(Ok);
        };
        Image::new(header, &Notes::parse(header, data)?).map(Ok)
    }
}

impl Engine {
    /// Looks into a stored image for `learner`, who hears of it by [`Self::learned`]. `bytes` is its size, if known.
    pub(crate) fn learn(&mut self, digest: Digest, bytes: Option<u64>, learner: Learner) {
        if matches!(learner, Learner::Create(_)) {
            self.images.creates_waiting += 1;
        }
        if let Some(inspection) = self.images.inspections.get_mut(&digest) {
            return inspection.waiting.push(learner);
        }
        let bytes = bytes.unwrap_or(IMAGE_BYTES_MAX);
        let waiting = alloc::vec![learner];
        self.images.inspections.insert(digest, Inspection { bytes, header: None, waiting });
        self.read_image(digest, 0, FIRST_BYTES);
    }

    fn read_image(&mut self, digest: Digest, offset: u64, bytes: u32) {
        let op = Op::ImageRead { digest, offset, bytes };
        self.ask(&policy::upkeep(), op, Waiting::ImageRead(digest));
    }

    pub(crate) fn image_read(&mut self, digest: Digest, result: Result<Reply, Fault>) -> Handled {
        let data = match result {
            Ok(Reply::Bytes(data)) => data,
            Err(Fault::NotFound) => {
                self.learned(digest, Err(Refusal::NoSuchImage));
                return Ok(());
            }
            Err(fault) => {
                self.learned(digest, Err(Refusal::Shim(fault)));
                return Ok(());
            }
            Ok(_) => return Err(Nonsense("another reply than bytes to a read")),
        };
        let Some(inspection) = self.images.inspections.get_mut(&digest) else { return Ok(()) };
        match inspection.step(&data) {
            Ok(Ok(image)) => self.learned(digest, Ok(image)),
            // At most NOTES_BYTES_MAX, so the length always fits.
            Ok(Err(range)) => {
                self.read_image(digest, range.offset, range.len.try_into().unwrap_or(FIRST_BYTES))
            }
            Err(error) => self.learned(digest, Err(Refusal::NotAnImage(image_fault(error)))),
        }
        Ok(())
    }

    /// An inspection has come to its end: those who waited go on.
    fn learned(&mut self, digest: Digest, outcome: Result<Image, Refusal>) {
        let Some(inspection) = self.images.inspections.remove(&digest) else { return };
        // Meanwhile the shim may have been asked to delete it.
        let outcome = if self.is_leaving(digest) { Err(Refusal::NoSuchImage) } else { outcome };
        if let Ok(image) = &outcome {
            self.images.remember(digest, image.clone());
        }
        // An upload that was given up takes the image with it, unless it is of use by then.
        let is_upload = |learner: &Learner| matches!(learner, Learner::Upload);
        let (uploads, creates): (Vec<_>, Vec<_>) = inspection.waiting.into_iter().partition(is_upload);
        for learner in creates.into_iter().chain(uploads) {
            match (learner, &outcome) {
                (Learner::Upload, outcome) => self.upload_inspected(digest, outcome),
                (Learner::Create(wanted), outcome) => {
                    self.images.creates_waiting -= 1;
                    match outcome {
                        Ok(image) => self.admit_learned(wanted, image),
                        Err(refusal) => self.refuse(wanted.who.asker, refusal.clone()),
                    }
                }
            }
        }
    }
}

/// The operator's word for what is wrong with an image.
fn image_fault(error: ElfError) -> ImageFault {
    match error {
        ElfError::NotElf | ElfError::WrongMachine => ImageFault::NotElf,
        ElfError::NoAbiNote | ElfError::BadAbiNote => ImageFault::NoAbi,
        ElfError::NoManifest | ElfError::BadManifest(_) => ImageFault::BadManifest,
        ElfError::Truncated
        | ElfError::BadHeader
        | ElfError::TooManyProgramHeaders
        | ElfError::BadNoteSegment(_)
        | ElfError::WrongTarget(_)
        | ElfError::WrongAbiVersion(_)
        | ElfError::BadSegment(..)
        | ElfError::BadEntry => ImageFault::BadElf,
    }
}
