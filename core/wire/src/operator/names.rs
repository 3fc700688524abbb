//! The names in requests and responses, all in one place: what a client calls `blog` is `acme:web:blog` inside a
//! control plane to whom its certificates gave the scope `acme:web`. Both are the same types, so what translates
//! them must miss none: each match names every variant.

use alloc::{boxed::Box, vec::Vec};

use super::{
    Block, ConsoleAsked, ConsoleBrief, Create, Event, EventsAsked, GenerationInfo, PolicyEntry, Refusal,
    Request, Response, Revocation, Supervision, Unikernel, Usage, Watching, What, Who,
};
use crate::limits::AFTER_MAX;
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
    /// What the name of another unikernel than the one that is spoken of becomes: nothing if it is to be left out.
    ///
    /// # Errors
    /// As above.
    fn other(&self, name: Name) -> Result<Option<Name>, Self::Error> {
        self.name(name).map(Some)
    }
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
                let Create { name, image, memory_mib, cpus, nets, blocks, args, supervision, force } =
                    *create;
                let (name, blocks) = (map.name(name)?, map_list(blocks, |block| block.map_names(map))?);
                let supervision = supervision.map_names(map)?;
                let create = Create { name, image, memory_mib, cpus, nets, blocks, args, supervision, force };
                Self::Create(create.into())
            }
            Self::Info(name) => Self::Info(map.name(name)?),
            Self::Console(asked) => Self::Console(ConsoleAsked { name: map.name(asked.name)?, ..asked }),
            Self::Events(asked) => {
                let EventsAsked { follow, path, since, kinds, limit } = *asked;
                let path = map.path(path)?;
                Self::Events(EventsAsked { follow, path, since, kinds, limit }.into())
            }
            Self::Stats(path) => Self::Stats(map.path(path)?),
            Self::Destroy(name) => Self::Destroy(map.name(name)?),
            Self::Start(name) => Self::Start(map.name(name)?),
            Self::Stop(name) => Self::Stop(map.name(name)?),
            Self::Restart { name, change } => Self::Restart { name: map.name(name)?, change },
            Self::Update { name, change, window_s } => {
                Self::Update { name: map.name(name)?, change, window_s }
            }
            Self::Rollback { name, generation } => Self::Rollback { name: map.name(name)?, generation },
            Self::History(name) => Self::History(map.name(name)?),
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
            | Self::Consoles
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
            Self::Created(unikernel) => Self::Created(unikernel.map_names(map)?.into()),
            Self::Started(unikernel) => Self::Started(unikernel.map_names(map)?.into()),
            Self::Stopped(unikernel) => Self::Stopped(unikernel.map_names(map)?.into()),
            Self::Updated(unikernel) => Self::Updated(unikernel.map_names(map)?.into()),
            Self::Listed { page, more } => {
                let page = map_list(page, |unikernel| unikernel.map_names(map))?;
                Self::Listed { page, more }
            }
            Self::Info(mut info) => {
                info.unikernel = info.unikernel.map_names(map)?;
                info.blocks = map_list(info.blocks, |block| block.map_names(map))?;
                info.watching = info.watching.map_names(map)?;
                Self::Info(info)
            }
            Self::Generation { mut generation, more } => {
                let GenerationInfo { blocks, supervision, .. } = *generation.clone();
                generation.blocks = map_list(blocks, |block| block.map_names(map))?;
                generation.supervision = supervision.map_names(map)?;
                Self::Generation { generation, more }
            }
            Self::Policies { page, more } => {
                let entry = |entry: PolicyEntry| Ok(PolicyEntry { path: map.path(entry.path)?, ..entry });
                Self::Policies { page: map_list(page, entry)?, more }
            }
            Self::Revocations { page, more } => {
                let entry = |entry: Revocation| Ok(Revocation { path: map.path(entry.path)?, ..entry });
                Self::Revocations { page: map_list(page, entry)?, more }
            }
            Self::Consoles { page, more } => {
                let entry = |entry: ConsoleBrief| Ok(ConsoleBrief { name: map.name(entry.name)?, ..entry });
                Self::Consoles { page: map_list(page, entry)?, more }
            }
            Self::Stats { page, more } => {
                let entry = |entry: Usage| Ok(Usage { name: map.name(entry.name)?, ..entry });
                Self::Stats { page: map_list(page, entry)?, more }
            }
            Self::Events(page) => Self::Events(map_list(page, |event| event.map_names(map))?),
            Self::Refused(refusal) => Self::Refused(refusal.map_names(map)?),
            nameless @ (Self::Hello(_)
            | Self::Host(_)
            | Self::ImageWanted
            | Self::ImageStored(_)
            | Self::Console { .. }
            | Self::ConsoleMissed { .. }
            | Self::ConsoleBegan { .. }
            | Self::EventsMissed(_)
            | Self::EventsEnd
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

impl Event {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        let Self { sequence, wall_ms, who, what, about } = self;
        let who = match who {
            // Whoever is above is not to be placed from below.
            Who::Operator { name, scope } => {
                Who::Operator { name, scope: map.path(scope).unwrap_or(Path::ROOT) }
            }
            Who::ControlPlane => Who::ControlPlane,
        };
        let map_boxed = |refusal: Box<Refusal>| refusal.map_names(map).map(Box::new);
        let what = match what {
            What::SessionRefused(refusal) => What::SessionRefused(map_boxed(refusal)?),
            What::CreateFailed(refusal) => What::CreateFailed(map_boxed(refusal)?),
            What::StartFailed(refusal) => What::StartFailed(map_boxed(refusal)?),
            What::ImageRefused(digest, refusal) => What::ImageRefused(digest, map_boxed(refusal)?),
            nameless => nameless,
        };
        // What is about no path is about none from wherever it is seen.
        let about = if about.is_root() { about } else { map.path(about)? };
        Ok(Self { sequence, wall_ms, who, what, about })
    }
}

impl Refusal {
    /// A refusal by a policy tells an ancestor of the name as it is called from the root; that is its reader's own
    /// scope or a part of it, or lies below.
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(match self {
            Self::VolumeUnknown(volume) => Self::VolumeUnknown(map.volume(volume)?),
            Self::VolumeInUse(volume) => Self::VolumeInUse(map.volume(volume)?),
            // One that was asked for by somebody who sees more.
            Self::AfterUnknown(name) => map.other(name)?.map_or(Self::OutsideScope, Self::AfterUnknown),
            Self::AfterCycle(name) => map.other(name)?.map_or(Self::OutsideScope, Self::AfterCycle),
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
            | Self::MemoryGiven { .. }
            | Self::CpuUnknown(_)
            | Self::BridgeUnknown { .. }
            | Self::Arguments { .. }
            | Self::Full(_)
            | Self::ShimAway
            | Self::NotRunning
            | Self::Shim(_)
            | Self::MonitorUnknown(_)
            | Self::NotEnding { .. }
            | Self::NoSuchGeneration
            | Self::RolledBack { .. }
            | Self::Superseded
            | Self::BeingDestroyed
            | Self::Supervision
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
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(Self { name: map.name(self.name)?, ..self })
    }
}

impl Supervision {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        let Self { restart, after, ready, alive } = self;
        Ok(Self { restart, after: map_others(after, map)?, ready, alive })
    }
}

impl Watching {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        let Self { supervision, waits_for, retry_ms, failure, trial_from } = self;
        let failure = failure.map(|failure| failure.map_names(map).map(Box::new)).transpose()?;
        let (supervision, waits_for) = (supervision.map_names(map)?, map_others(waits_for, map)?);
        Ok(Self { supervision, waits_for, retry_ms, failure, trial_from })
    }
}

impl Block {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(Self { volume: map.volume(self.volume)?, ..self })
    }
}

fn map_others<M: MapNames>(
    others: List<Name, AFTER_MAX>,
    map: &M,
) -> Result<List<Name, AFTER_MAX>, M::Error> {
    let seen: Result<Vec<_>, _> =
        others.into_vec().into_iter().filter_map(|name| map.other(name).transpose()).collect();
    // No more than there were.
    Ok(List::try_from(seen?).unwrap_or_default())
}

fn map_list<T, E, const N: usize>(
    list: List<T, N>,
    map: impl FnMut(T) -> Result<T, E>,
) -> Result<List<T, N>, E> {
    let mapped: Vec<T> = list.into_vec().into_iter().map(map).collect::<Result<_, _>>()?;
    // As many as there were.
    Ok(List::try_from(mapped).unwrap_or_default())
}
