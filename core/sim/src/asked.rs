//! What an operator has asked and has not been answered yet.

use std::sync::Arc;

use petrel_wire::{
    Blob, Digest, Name, Path,
    operator::{Change, Create, Policy, Refusal, Request},
    shim::InstanceId,
};

use crate::{
    images::{self, Image},
    transfers::{Pull, Sending},
};

/// A request that is not answered yet, and what its answer is held against.
#[derive(Debug)]
pub enum Asked {
    /// Hello.
    Hello,
    /// Host.
    Host,
    /// List, so far up to this name.
    List(Option<Name>),
    /// Info.
    Info(Name),
    /// Create.
    Create(Box<Create>),
    /// Destroy.
    Destroy(Name),
    /// Console.
    Console(Reading),
    /// ImagePush.
    Push(Push),
    /// Start, Stop, Restart, Update or Rollback.
    Order(Order),
    /// PolicySet or PolicyRemove.
    Policy(PolicyOrder),
    /// CertRevoke, of a certificate with this number that was issued at this path or below.
    Revoke(u8, Path),
    /// Something that must not be done, and this is why.
    Forbidden(Box<Refusal>),
    /// Something about a volume.
    Volume(VolumeOrder),
    /// The content of an image or a volume.
    Pull(Pull),
    /// Removal of stored images.
    Images,
    /// History, so far up to this generation.
    History(Name, u32),
    /// Events, so far up to this number.
    Events {
        /// Whether it goes on.
        follow: bool,
        /// The last one's number.
        last: Option<u64>,
    },
    /// The volumes: they may have to be told by the shim first, and so whether a cancel comes in time nobody knows.
    Volumes,
    /// What unikernels use, which consoles are kept, or which images.
    Watching,
    /// StateExport, and what has come of the file.
    Export(Vec<u8>),
    /// StateImport.
    Import(Import),
}

/// A console being read.
#[derive(Debug)]
pub struct Reading {
    /// Whose.
    pub name: Name,
    /// Whether it goes on until the unikernel has ended.
    pub follow: bool,
    /// Which monitor wrote to it when that was asked, if that was known.
    pub of: Option<InstanceId>,
    /// How many bytes have come or been missed.
    pub position: u64,
    /// It has been told how the unikernel ended.
    pub ended: bool,
}

/// An upload.
#[derive(Debug)]
pub struct Push {
    /// Which of the images.
    pub image: usize,
    /// The size that was announced.
    pub announced: u64,
    /// It sends other bytes than announced.
    pub corrupt: bool,
    /// How many bytes were sent.
    pub sent: usize,
    /// They have been asked for.
    pub wanted: bool,
}

/// A change of a volume.
#[derive(Clone, Debug)]
pub struct VolumeOrder {
    /// Which one changes.
    pub name: Name,
    /// What is to be done.
    pub kind: VolumeKind,
}

/// What is to be done about a volume.
#[derive(Clone, Debug)]
pub enum VolumeKind {
    /// Create, of so many bytes.
    Create(u64),
    /// Resize, to so many bytes.
    Resize(u64),
    /// Made as a snapshot of this one.
    CopyOf(Name),
    /// New content.
    Push(Sending),
    /// Remove.
    Remove,
}

/// A policy that is to be set, or taken back.
#[derive(Clone, Debug)]
pub struct PolicyOrder {
    /// For what lies below which path.
    pub path: Path,
    /// What is to hold there, if anything.
    pub policy: Option<Policy>,
}

/// An order about a unikernel that there is.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which.
    pub name: Name,
    /// What is to be done.
    pub kind: Kind,
    /// The number of the order among those about this unikernel.
    pub number: u64,
    /// What the unikernel was to be when it was asked, if that is known and nobody else was asking.
    pub before: Option<Box<Create>>,
}

/// What an order wants done.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// Restart, with these changes.
    Restart(Change),
    /// Update, with these changes.
    Update(Change),
    /// Rollback.
    Rollback,
}

impl Order {
    /// Whether it is to have more than it had, as far as that is known.
    pub fn grows(&self) -> bool {
        let mib = |create: &Option<Box<Create>>| create.as_ref().map(|create| create.memory_mib);
        self.before.is_some() && mib(&self.after()) > mib(&self.before)
    }

    /// What the unikernel is to be when it is done, if that is known.
    pub fn after(&self) -> Option<Box<Create>> {
        let mut create = self.before.clone()?;
        match &self.kind {
            Kind::Start | Kind::Stop => {}
            Kind::Restart(change) | Kind::Update(change) => {
                let Change { image, memory_mib, cpus, args } = change.clone();
                create.image = image.unwrap_or(create.image);
                create.memory_mib = memory_mib.unwrap_or(create.memory_mib);
                create.cpus = cpus.unwrap_or(create.cpus);
                create.args = args.unwrap_or(create.args);
            }
            Kind::Rollback => return None,
        }
        Some(create)
    }
}

/// A state file on its way in.
#[derive(Debug)]
pub struct Import {
    /// The whole file.
    pub file: Arc<[u8]>,
    /// It is one that a control plane has given out.
    pub honest: bool,
    /// How many bytes were sent.
    pub sent: usize,
    /// They have been asked for.
    pub wanted: bool,
}

impl Import {
    /// Whether there is something to send.
    pub fn can_send(&self) -> bool {
        self.wanted && self.sent < self.file.len()
    }

    /// The next bytes.
    pub fn chunk(&mut self, bytes: usize) -> Request {
        let rest = &self.file[self.sent..];
        let data = &rest[..rest.len().min(bytes)];
        self.sent += data.len();
        Request::StateChunk(Blob::try_from(data).unwrap_or_default())
    }
}

impl Asked {
    /// The unikernel that it is to make, or to end.
    pub fn about(&self) -> Option<Name> {
        match self {
            Self::Create(create) => Some(create.name.clone()),
            Self::Destroy(name) => Some(name.clone()),
            _ => None,
        }
    }

    /// Whether there is something to send for it.
    pub fn can_send(&self) -> bool {
        match self {
            Self::Push(push) => push.can_send(),
            Self::Import(import) => import.can_send(),
            Self::Volume(VolumeOrder { kind: VolumeKind::Push(sending), .. }) => sending.can_send(),
            _ => false,
        }
    }

    /// Whether it will never come to an end by itself.
    pub fn is_stuck(&self) -> bool {
        matches!(self, Self::Push(push) if push.is_stuck())
    }
}

impl Push {
    fn image(&self) -> &'static Image {
        &images::all()[self.image]
    }

    /// What it is called.
    pub fn digest(&self) -> Digest {
        self.image().digest
    }

    /// Whether there is something to send.
    fn can_send(&self) -> bool {
        self.wanted && self.sent < self.image().bytes.len()
    }

    /// Whether it will never come to an end by itself.
    fn is_stuck(&self) -> bool {
        self.wanted && !self.can_send() && self.announced > self.sent as u64
    }

    /// The next bytes.
    pub fn chunk(&mut self, bytes: usize) -> Request {
        let rest = &self.image().bytes[self.sent..];
        let mut data = rest[..rest.len().min(bytes)].to_vec();
        self.sent += data.len();
        if self.corrupt {
            data[0] ^= 1;
        }
        Request::ImageChunk(Blob::try_from(data).unwrap_or_default())
    }
}
