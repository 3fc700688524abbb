//! The names in requests and responses, all in one place: what a client calls `blog` is `acme:web:blog` inside a
//! control plane to whom its certificates gave the scope `acme:web`. Both are the same types, so what translates
//! them must miss none: each match names every variant.

use alloc::{boxed::Box, vec::Vec};

use super::{
    Block, ConsoleAsked, ConsoleBrief, Create, Event, EventsAsked, GenerationInfo, ImageResponse,
    PolicyEntry, Refusal, Request, Response, Revocation, StoredImage, Supervision, Unikernel, Usage, Volume,
    VolumeRefusal, VolumeRequest, VolumeResponse, Watching, What, Who,
};
use crate::{List, Name, Path};

/// Tells what names become.
pub trait MapNames {
    /// Why a name becomes nothing.
    type Error;

    /// What the name of a unikernel or a volume becomes.
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
            Self::Volume(request) => Self::Volume(request.map_names(map)?),
            nameless @ (Self::Hello(_)
            | Self::Host
            | Self::Appliance(_)
            | Self::Image(_)
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
                info.blocks = map_seen_blocks(info.blocks, map)?;
                info.watching = info.watching.map_names(map)?;
                Self::Info(info)
            }
            Self::Generation { mut generation, more } => {
                let GenerationInfo { blocks, supervision, .. } = *generation.clone();
                generation.blocks = map_seen_blocks(blocks, map)?;
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
            Self::Volume(response) => Self::Volume(response.map_names(map)?),
            Self::Image(ImageResponse::Listed { page, more }) => {
                let page = map_list(page, |image| image.map_names(map))?;
                Self::Image(ImageResponse::Listed { page, more })
            }
            nameless @ (Self::Hello(_)
            | Self::Host(_)
            | Self::Appliance(_)
            | Self::ImageWanted
            | Self::ImageStored(_)
            | Self::Image(ImageResponse::Removed | ImageResponse::Collected { .. })
            | Self::Download(_)
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
            What::VolumeFailed(refusal) => What::VolumeFailed(map_boxed(refusal)?),
            What::VolumeCopied(from) => What::VolumeCopied(from.map_or(Ok(None), |from| map.other(from))?),
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
            // Of a volume that was given to it by somebody who sees more.
            Self::Volume(refusal) => refusal.map_names(map).map_or(Self::OutsideScope, Self::Volume),
            Self::ImageInUse(names) => Self::ImageInUse(map_others(names, map)?),
            // One that was asked for by somebody who sees more.
            Self::AfterUnknown(name) => map.other(name)?.map_or(Self::OutsideScope, Self::AfterUnknown),
            Self::AfterCycle(name) => map.other(name)?.map_or(Self::OutsideScope, Self::AfterCycle),
            nameless @ (Self::Malformed
            | Self::NotAnAppliance
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
        Ok(Self { volume: map.name(self.volume)?, ..self })
    }
}

impl VolumeRequest {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(match self {
            Self::Create { name, bytes } => Self::Create { name: map.name(name)?, bytes },
            Self::Push { name, bytes } => Self::Push { name: map.name(name)?, bytes },
            Self::Pull(name) => Self::Pull(map.name(name)?),
            Self::Snapshot { name, new } => Self::Snapshot { name: map.name(name)?, new: map.name(new)? },
            Self::Resize { name, bytes } => Self::Resize { name: map.name(name)?, bytes },
            Self::Remove(name) => Self::Remove(map.name(name)?),
            nameless @ (Self::List | Self::Chunk { .. } | Self::PushEnd) => nameless,
        })
    }
}

impl VolumeResponse {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(match self {
            Self::Is(volume) => Self::Is(volume.map_names(map)?),
            Self::Listed { page, more } => {
                Self::Listed { page: map_list(page, |volume| volume.map_names(map))?, more }
            }
            Self::Copied { volume, consistent } => {
                Self::Copied { volume: volume.map_names(map)?, consistent }
            }
            nameless @ (Self::Wanted | Self::Removed) => nameless,
        })
    }
}

impl Volume {
    /// Whoever sees more may have given it to a unikernel that is not seen.
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        let user = self.user.map_or(Ok(None), |user| map.other(user))?;
        Ok(Self { name: map.name(self.name)?, user, ..self })
    }
}

impl VolumeRefusal {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(match self {
            Self::Unknown(name) => Self::Unknown(map.name(name)?),
            Self::Taken(name) => Self::Taken(map.name(name)?),
            Self::InUse { volume, user } => {
                let user = user.map_or(Ok(None), |user| map.other(user))?;
                Self::InUse { volume: map.name(volume)?, user }
            }
            Self::Busy(name) => Self::Busy(map.name(name)?),
            Self::Missing(name) => Self::Missing(map.name(name)?),
            Self::Orphan(name) => Self::Orphan(map.name(name)?),
            Self::Changed(name) => Self::Changed(map.name(name)?),
            nameless @ (Self::Size { .. } | Self::TooSmall { .. } | Self::Space { .. }) => nameless,
        })
    }
}

impl StoredImage {
    fn map_names<M: MapNames>(self, map: &M) -> Result<Self, M::Error> {
        Ok(Self { names: map_others(self.names, map)?, ..self })
    }
}

/// Whoever sees more may have given a unikernel volumes that are not seen.
fn map_seen_blocks<M: MapNames, const N: usize>(
    blocks: List<Block, N>,
    map: &M,
) -> Result<List<Block, N>, M::Error> {
    let seen = |Block { device, volume }| Ok(map.other(volume)?.map(|volume| Block { device, volume }));
    let seen: Result<Vec<_>, _> =
        blocks.into_vec().into_iter().filter_map(|block| seen(block).transpose()).collect();
    // No more than there were.
    Ok(List::try_from(seen?).unwrap_or_default())
}

fn map_others<M: MapNames, const N: usize>(
    others: List<Name, N>,
    map: &M,
) -> Result<List<Name, N>, M::Error> {
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
