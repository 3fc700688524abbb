//! Volumes and stored images: what was acknowledged stays, and what is in use is not removed.

use std::collections::BTreeMap;

use petrel_wire::{
    Digest, Name,
    operator::{Download, ImageResponse, Refusal, Response, Table, VolumeRefusal, VolumeResponse},
};

use super::{Checked, Model, Violation, ensure};
use crate::{
    asked::{VolumeKind, VolumeOrder},
    host::Host,
    transfers::{Content, File, Pull},
};

/// What must be true of a volume.
#[derive(Debug, Default)]
pub struct VolumeFate {
    known: Volume,
    /// Requests that are not answered.
    pub asking: usize,
    /// When the first of those was asked, as the policies count it.
    asked_at: u64,
    /// When it was last acknowledged what it is, as the policies count it.
    since: u64,
    /// Something was asked about it since the last rest.
    touched: bool,
    /// What has been in it, as far as that is known, the latest last.
    contents: Vec<Option<Content>>,
}

/// What is known of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Volume {
    /// There is none.
    #[default]
    Absent,
    /// There is one, of so many bytes.
    Present(u64),
    /// Nobody was told.
    Open,
}

/// All volumes that anybody has named.
pub type Volumes = BTreeMap<Name, VolumeFate>;

impl VolumeFate {
    /// One that was there from the beginning.
    pub fn present(bytes: u64) -> Self {
        Self { known: Volume::Present(bytes), contents: vec![Some(Content::NONE)], ..Self::default() }
    }

    /// Nobody will be told what came of something.
    pub fn leave_open(&mut self) {
        (self.known, self.touched) = (Volume::Open, true);
        self.contents.push(None);
    }

    /// What is in it, if that is known.
    fn content(&self) -> Option<Content> {
        self.contents.last().copied().flatten()
    }

    /// … if something is under way.
    pub fn interrupted(&mut self) {
        if self.asking > 0 {
            self.leave_open();
        }
        self.asking = 0;
    }
}

impl VolumeFate {
    /// Whether the host has what is to be in it.
    fn has_content(&self, name: &Name, host: &Host) -> Checked {
        let (Some(content), Some(bytes)) = (self.content(), host.volume_content(name)) else { return Ok(()) };
        ensure(content.is(bytes), || format!("in volume {name} is to be {content:?}, and is {bytes:?}"))
    }
}

impl Model {
    /// A guest has written to a volume.
    pub fn volume_written(&mut self, name: Name, content: Content) {
        self.volumes.entry(name).or_default().contents.push(Some(content));
    }

    /// The content of something is asked for.
    pub fn pull_asked(&mut self, pull: &mut Pull) {
        if let File::Volume(name) = &pull.file {
            pull.since = self.volumes.entry(name.clone()).or_default().contents.len().saturating_sub(1);
        }
    }

    /// A part of it is told. What is said to be consistent is what it has been since it was asked for.
    pub fn pulled(&self, pull: &mut Pull, told: &Download) -> Checked {
        let end = pull.take(told).ok_or_else(|| Violation(format!("out of place: {told:?}")))?;
        let right = match (end, &pull.file) {
            (Some(consistent), File::Image(digest)) => consistent && pull.is_image(digest),
            (Some(true), File::Volume(name)) => {
                let since = self.volumes.get(name).map_or(&[][..], |fate| &fate.contents[pull.since..]);
                since.is_empty() || since.iter().any(|it| it.is_none_or(|content| content.is(&pull.got)))
            }
            _ => true,
        };
        ensure(right, || format!("{pull:?} has come, and never was"))
    }

    /// It cannot be had.
    pub fn pull_refused(&self, pull: &Pull, refusal: &Refusal) -> bool {
        match (&pull.file, refusal) {
            (_, Refusal::ShimAway | Refusal::Full(Table::Transfers | Table::ShimRequests)) => true,
            (_, Refusal::Shim(fault)) => self.is_possible(*fault),
            // It need not be one of a unikernel that is seen.
            (File::Image(_), Refusal::NoSuchImage) => true,
            (File::Volume(name), Refusal::Volume(VolumeRefusal::Unknown(of))) => {
                name == of && self.is_unsure(of)
            }
            (File::Volume(name), Refusal::Volume(VolumeRefusal::Busy(of) | VolumeRefusal::Changed(of))) => {
                name == of
            }
            (_, Refusal::Volume(VolumeRefusal::Missing(of) | VolumeRefusal::Orphan(of))) => {
                self.may_be_out_of_step(of)
            }
            _ => false,
        }
    }

    /// Something is asked about a volume.
    pub fn volume_asked(&mut self, order: &VolumeOrder) {
        let moment = self.policies.tick();
        let fate = self.volumes.entry(order.name.clone()).or_default();
        if fate.asking == 0 {
            fate.asked_at = moment;
        }
        (fate.asking, fate.touched) = (fate.asking + 1, true);
        if let VolumeKind::CopyOf(other) = &order.kind {
            self.volumes.entry(other.clone()).or_default().touched = true;
        }
    }

    /// A request about a volume has its answer.
    pub fn volume_answered(&mut self, order: &VolumeOrder, response: &Response, host: &Host) -> Checked {
        let (name, moment) = (&order.name, self.policies.tick());
        let fate = self.volumes.entry(name.clone()).or_default();
        fate.since = moment;
        let alone = fate.asking == 1;
        let now = match (&order.kind, response) {
            (VolumeKind::Create(bytes), Response::Volume(VolumeResponse::Is(volume))) => {
                let free = !matches!(fate.known, Volume::Present(_)) || !alone;
                ensure(free, || format!("volume {name} was created while it was there"))?;
                ensure(volume.bytes == *bytes || !alone, || format!("{order:?} was answered by {volume:?}"))?;
                Volume::Present(*bytes)
            }
            (VolumeKind::Resize(bytes), Response::Volume(VolumeResponse::Is(_))) => Volume::Present(*bytes),
            (VolumeKind::CopyOf(_), Response::Volume(VolumeResponse::Copied { volume, .. })) => {
                Volume::Present(volume.bytes)
            }
            (VolumeKind::Remove, Response::Volume(VolumeResponse::Removed)) => Volume::Absent,
            (VolumeKind::Push(_), Response::Volume(VolumeResponse::Is(volume))) => {
                Volume::Present(volume.bytes)
            }
            (kind, response) => return Err(Violation(format!("{kind:?} was answered by {response:?}"))),
        };
        fate.known = if alone { now } else { Volume::Open };
        let content = match &order.kind {
            VolumeKind::Create(_) => Some(Content::NONE),
            VolumeKind::Push(sending) => Some(sending.content),
            VolumeKind::Resize(most) => fate.content().map(|content| content.cut(*most)),
            VolumeKind::CopyOf(_) | VolumeKind::Remove => None,
        };
        fate.contents.push(content.filter(|_| alone));
        fate.has_content(name, host)?;
        let size = host.volume_bytes(name);
        let right = match now {
            Volume::Present(bytes) => size == Some(bytes),
            _ => size.is_none(),
        };
        ensure(right || !alone, || format!("{order:?} was answered by {response:?}, and there is {size:?}"))?;
        if matches!(order.kind, VolumeKind::Create(_) | VolumeKind::CopyOf(_)) && alone {
            let asked = fate.asked_at;
            return self.volumes_within_policies(name, asked);
        }
        Ok(())
    }

    /// A request about a volume is refused, with or without reason.
    pub fn volume_refused(&mut self, order: &VolumeOrder, refusal: &Refusal) -> bool {
        let fate = self.volumes.entry(order.name.clone()).or_default();
        let (known, alone) = (fate.known, fate.asking == 1);
        // A change may have got to the host all the same.
        if matches!(refusal, Refusal::ShimAway | Refusal::Shim(_) | Refusal::ReadOnly(_)) {
            fate.leave_open();
        }
        let other = match &order.kind {
            VolumeKind::CopyOf(other) => Some(other),
            _ => None,
        };
        let is_own = |volume: &Name| *volume == order.name || Some(volume) == other;
        match refusal {
            Refusal::ShimAway => true,
            Refusal::Shim(fault) => self.is_possible(*fault),
            Refusal::Full(Table::Transfers | Table::Volumes | Table::ShimRequests) => true,
            Refusal::OverPolicy { .. } => self.policies.forbids(&order.name, refusal),
            Refusal::Volume(reason) => match reason {
                VolumeRefusal::Unknown(volume) if Some(volume) == other => self.is_unsure(volume),
                VolumeRefusal::Unknown(_) => !matches!(known, Volume::Present(_)) || !alone,
                VolumeRefusal::Taken(_) => known != Volume::Absent || !alone,
                VolumeRefusal::InUse { volume, .. }
                | VolumeRefusal::Busy(volume)
                | VolumeRefusal::Changed(volume) => is_own(volume),
                VolumeRefusal::Missing(of) | VolumeRefusal::Orphan(of) => self.may_be_out_of_step(of),
                VolumeRefusal::TooSmall { bytes, offered } if matches!(order.kind, VolumeKind::Push(_)) => {
                    bytes < offered
                }
                VolumeRefusal::Size { .. } | VolumeRefusal::TooSmall { .. } | VolumeRefusal::Space { .. } => {
                    false
                }
            },
            _ => false,
        }
    }

    /// Whether it may be that a volume is not there, or is at something.
    pub fn is_unsure(&self, volume: &Name) -> bool {
        let known = self.volumes.get(volume);
        known.is_none_or(|fate| fate.touched || !matches!(fate.known, Volume::Present(_)))
    }

    /// Whether it may be that a volume's file is there and its record is not, or the other way round.
    fn may_be_out_of_step(&self, volume: &Name) -> bool {
        self.imported || self.host_failed || self.is_unsure(volume)
    }

    /// What volumes take below each path above `name` is within what was set there.
    fn volumes_within_policies(&self, name: &Name, asked: u64) -> Checked {
        if self.untold {
            // Those that were there from the beginning may not be known yet.
            return Ok(());
        }
        let present = self.volumes.iter().filter_map(|(name, fate)| match fate.known {
            Volume::Present(bytes) => Some((name, bytes.div_ceil(1 << 20), fate.since)),
            _ => None,
        });
        self.policies.volumes_within(name, asked, present)
    }

    /// At rest: what was acknowledged is on the host. What nobody was told stays open: a file may be without a record, and
    /// a record without its file.
    pub fn volumes_settled(&mut self, host: &Host) -> Checked {
        for (name, fate) in &mut self.volumes {
            let (size, known) = (host.volume_bytes(name), fate.known);
            let now = size.map_or(Volume::Absent, Volume::Present);
            ensure(known == Volume::Open || known == now, || {
                format!("volume {name} is to be {known:?}, and is {now:?}")
            })?;
            fate.touched = false;
            if known == now {
                fate.has_content(name, host)?;
            }
        }
        self.images_unsure = false;
        host.volumes_are_whole().map_err(Violation)
    }

    /// The shim is about to be asked to delete an image.
    pub fn image_removed(&mut self, digest: Digest) -> Checked {
        let user = self.fates.iter().find(|(_, fate)| fate.created().is_some_and(|it| it.image == digest));
        ensure(user.is_none(), || format!("image {digest} is deleted, and {:?} is made of it", user))?;
        self.images.remove(&digest);
        Ok(())
    }

    /// A request to remove images has its answer.
    pub fn images_answered(&mut self, response: &Response) -> Checked {
        match response {
            Response::Image(ImageResponse::Removed | ImageResponse::Collected { .. }) => Ok(()),
            other => Err(Violation(format!("the removal of images was answered by {other:?}"))),
        }
    }
}
