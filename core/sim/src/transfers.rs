//! The content of volumes and images on its way, and what it must be.

use petrel_wire::{
    Blob, Digest, Name,
    operator::{Download, Request, VolumeRequest},
};

use crate::images;

/// What is in a volume: told from the bytes, one knows which it is. What lies behind them is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    first: u8,
    step: u8,
    /// How much it is.
    pub bytes: u64,
}

impl Content {
    /// Nothing but zeros.
    pub const NONE: Self = Self { first: 0, step: 0, bytes: 0 };

    /// What an operator pushes.
    pub fn pushed(first: u8, bytes: u64) -> Self {
        Self { first, step: 7, bytes }
    }

    /// What a guest has written all over its volume in one go.
    pub fn written(first: u8, bytes: u64) -> Self {
        Self { first, step: 0, bytes }
    }

    /// What is left of it in so many bytes.
    #[must_use]
    pub fn cut(self, bytes: u64) -> Self {
        Self { bytes: self.bytes.min(bytes), ..self }
    }

    /// The byte at this place.
    pub fn byte(&self, position: u64) -> u8 {
        let value = (u64::from(self.first) + u64::from(self.step) * position) % 250;
        if position < self.bytes { u8::try_from(value + 1).unwrap_or(1) } else { 0 }
    }

    /// Whether this is what it is.
    pub fn is(&self, bytes: &[u8]) -> bool {
        (0..).zip(bytes).all(|(position, byte)| *byte == self.byte(position))
    }
}

/// New content for a volume on its way there.
#[derive(Clone, Debug)]
pub struct Sending {
    /// What it is.
    pub content: Content,
    sent: u64,
    ended: bool,
    /// It has been asked for.
    pub wanted: bool,
}

impl Sending {
    /// Nothing of it has been sent.
    pub fn new(content: Content) -> Self {
        Self { content, sent: 0, ended: false, wanted: false }
    }

    /// Whether there is something to send.
    pub fn can_send(&self) -> bool {
        self.wanted && !self.ended
    }

    /// The next bytes, or that there are no more.
    pub fn chunk(&mut self, bytes: usize) -> Request {
        let (offset, end) = (self.sent, self.content.bytes.min(self.sent + bytes as u64));
        self.sent = end;
        if offset == end {
            self.ended = true;
            return Request::Volume(VolumeRequest::PushEnd);
        }
        let data: Vec<u8> = (offset..end).map(|position| self.content.byte(position)).collect();
        Request::Volume(VolumeRequest::Chunk { offset, data: Blob::try_from(data).unwrap_or_default() })
    }
}

/// What is downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// An image.
    Image(Digest),
    /// A volume.
    Volume(Name),
}

/// A download.
#[derive(Debug)]
pub struct Pull {
    /// Of what.
    pub file: File,
    /// How many changes of the volume were known when it was asked for.
    pub since: usize,
    /// How much it will be, as soon as that was told.
    bytes: Option<u64>,
    /// What has come.
    pub got: Vec<u8>,
}

impl Pull {
    /// Nothing has come.
    pub fn new(file: File) -> Self {
        Self { file, since: 0, bytes: None, got: Vec::new() }
    }

    /// Takes in a part of it. Returns at its end whether it is said to be consistent, and nothing if the part is out of
    /// place.
    pub fn take(&mut self, told: &Download) -> Option<Option<bool>> {
        match (told, self.bytes) {
            (Download::Begin { bytes }, None) => {
                self.bytes = Some(*bytes);
                Some(None)
            }
            (Download::Data { offset, data }, Some(bytes)) => {
                let offset = usize::try_from(*offset).ok().filter(|offset| *offset >= self.got.len())?;
                self.got.resize(offset, 0);
                self.got.extend_from_slice(data);
                (self.got.len() as u64 <= bytes).then_some(None)
            }
            (Download::End { consistent }, Some(bytes)) => {
                self.got.resize(usize::try_from(bytes).ok()?, 0);
                Some(Some(*consistent))
            }
            _ => None,
        }
    }

    /// Whether it is the image that was asked for.
    pub fn is_image(&self, digest: &Digest) -> bool {
        images::all().iter().any(|image| image.digest == *digest && *image.bytes == *self.got)
    }
}
