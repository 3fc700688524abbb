//! The names in requests and responses, all in one place: what a client calls `blog` is `acme:web:blog` inside a
//! control plane to whom its certificates gave the scope `acme:web`. Both are the same types, so what translates
//! them must miss none: each match names every variant.

use alloc::vec::Vec;

use super::{Block, Create, PolicyEntry, Refusal, Request, Response, Revocation, Unikernel};
use crate::{List, Name, Path, VolumeName};

/// Tells what names become.
pub trait MapNames {
    /// Why a name becomes nothing.
    type Error;

    /// What a unikernel's name becomes.
    ///
    /// # Errors
    /// If it becomes nothing; so with the others.
    fn name(&self, name: Name) -> Result<Name, Self::Error>;
    /// What a volume's name becomes.
    fn volume(&self, volume: VolumeName) -> Result<VolumeName, Self::Error>;
    /// What a path becomes.
    fn path(&self, path: Path) -> Result<Path, Self::Error>;
}

impl Request {
    /// The same request with all names mapped.
    ///
    /// # Errors
    /// The first error of `map`.
    pub fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(match self {
            Self::Create(create) => {
                let Create { name, image, memory_mib, cpus, nets, blocks, args } = *create;
                let (name, blocks) = (map.name(name)?, map_list(blocks, |block| block.map_names(map))?);
                Self::Create(Create { name, image, memory_mib, cpus, nets, blocks, args }.into())
            }
            Self::Info(name) => Self::Info(map.name(name)?),
            Self::Console { name, follow } => Self::Console { name: map.name(name)?, follow },
            Self::Destroy(name) => Self::Destroy(map.name(name)?),
            Self::PolicySet { path, policy } => Self::PolicySet { path: map.path(path)?, policy },
            Self::PolicyRemove(path) => Self::PolicyRemove(map.path(path)?),
            Self::PolicyList(path) => Self::PolicyList(map.path(path)?),
            Self::CertRevoke { path, what } => Self::CertRevoke { path: map.path(path)?, what },
            nameless @ (Self::Hello(_)
            | Self::Host
            | Self::ImagePush { .. }
            | Self::ImageChunk(_)
            | Self::List
            | Self::Cancel
            | Self::CertRevocations
            | Self::StateExport
            | Self::StateImport { .. }
            | Self::StateChunk(_)) => nameless,
        })
    }
}

impl Response {
    /// The same response with all names mapped.
    ///
    /// # Errors
    /// The first error of `map`.
    pub fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(match self {
            Self::Created(mut unikernel) => {
                unikernel.map_names(map)?;
                Self::Created(unikernel)
            }
            Self::Listed { page, more } => {
                let page = map_list(page, |mut unikernel| unikernel.map_names(map).map(|()| unikernel))?;
                Self::Listed { page, more }
            }
            Self::Info(mut info) => {
                info.unikernel.map_names(map)?;
                info.blocks = map_list(info.blocks, |block| block.map_names(map))?;
                Self::Info(info)
            }
            Self::Policies { page, more } => {
                let entry = |entry: PolicyEntry| Ok(PolicyEntry { path: map.path(entry.path)?, ..entry });
                Self::Policies { page: map_list(page, entry)?, more }
            }
            Self::Revocations { page, more } => {
                let entry = |entry: Revocation| Ok(Revocation { path: map.path(entry.path)?, ..entry });
                Self::Revocations { page: map_list(page, entry)?, more }
            }
            Self::Refused(refusal) => Self::Refused(refusal.map_names(map)?),
            nameless @ (Self::Hello(_)
            | Self::Host(_)
            | Self::ImageWanted
            | Self::ImageStored(_)
            | Self::Console(_)
            | Self::ConsoleMissed(_)
            | Self::Ended(_)
            | Self::ConsoleEnd
            | Self::Destroyed
            | Self::PolicySet
            | Self::PolicyRemoved
            | Self::CertRevoked { .. }
            | Self::StateData(_)
            | Self::StateExported { .. }
            | Self::StateWanted
            | Self::StateImported { .. }) => nameless,
        })
    }
}

impl Refusal {
    /// A refusal by a policy tells an ancestor of the name as it is called from the root; that is its reader's own
    /// scope or a part of it, or lies below.
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(match self {
            Self::VolumeUnknown(volume) => Self::VolumeUnknown(map.volume(volume)?),
            Self::VolumeInUse(volume) => Self::VolumeInUse(map.volume(volume)?),
            nameless @ (Self::Malformed
            | Self::FrameTooLong { .. }
            | Self::Version(_)
            | Self::HelloExpected
            | Self::IdInUse
            | Self::NoSuchUnikernel
            | Self::NameTaken
            | Self::NoSuchImage
            | Self::ImageSize { .. }
            | Self::DigestMismatch { .. }
            | Self::UnexpectedChunk
            | Self::NotAnImage(_)
            | Self::NoMonitor { .. }
            | Self::DeviceMissing { .. }
            | Self::DeviceUnknown { .. }
            | Self::DeviceTwice(_)
            | Self::Memory { .. }
            | Self::CpuUnknown(_)
            | Self::BridgeUnknown { .. }
            | Self::Arguments { .. }
            | Self::Full(_)
            | Self::ShimAway
            | Self::Shim(_)
            | Self::Certificate { .. }
            | Self::RightMissing(_)
            | Self::OutsideScope
            | Self::ScopedName
            | Self::NoSuchPolicy
            | Self::OverPolicy { .. }
            | Self::CpuPolicy { .. }
            | Self::BridgePolicy { .. }
            | Self::ReadOnly(_)
            | Self::StateFile(_)
            | Self::StateInUse { .. }) => nameless,
        })
    }
}

impl Unikernel {
    fn map_names<M: MapNames>(&mut self, map: &M) -> Result<(), M::Error> {
        self.name = map.name(self.name.clone())?;
        Ok(())
    }
}

impl Block {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(Self { volume: map.volume(self.volume)?, ..self })
    }
}

fn map_list<T, E, const N: usize>(
    list: List<T, N>,
    map: impl FnMut(T) -> Result<T, E>,
) -> Result<List<T, N>, E> {
    let mapped: Vec<T> = list.into_vec().into_iter().map(map).collect::<Result<_, _>>()?;
    // As many as there were.
    Ok(List::try_from(mapped).unwrap_or_default())
}
