//! Volumes and images on their way, in bounded memory: chunks that are all zeros are neither sent nor received.

use std::io::Read;
use std::path::Path;

use petrel_wire::limits::{CHUNK_BYTES_MAX, IMAGES_MAX, VOLUMES_MAX};
use petrel_wire::operator::{
    ClientMessage, Download, ImageRequest, ImageResponse, Request, Response, StoredImage, Volume,
    VolumeRequest, VolumeResponse,
};
use petrel_wire::{Blob, Name};

use super::Session;
use crate::error::Error;

impl Session {
    /// Gives a volume the content of `file`, `bytes` bytes; `path` is what it is called. `sent` is told how many of them are
    /// done.
    ///
    /// # Errors
    /// [`Error::File`], and those of a request.
    pub fn push_volume(
        &mut self,
        name: &Name,
        file: &mut impl Read,
        path: &Path,
        bytes: u64,
        mut sent: impl FnMut(u64),
    ) -> Result<Volume, Error> {
        let id = self.send(Request::Volume(VolumeRequest::Push { name: name.clone(), bytes }))?;
        match self.receive(id)? {
            Response::Volume(VolumeResponse::Wanted) => {}
            _ => return Err(self.unexpected()),
        }
        let mut data = vec![0; CHUNK_BYTES_MAX];
        let mut offset = 0;
        while offset < bytes {
            let left = usize::try_from(bytes - offset).unwrap_or(CHUNK_BYTES_MAX).min(CHUNK_BYTES_MAX);
            let data = &mut data[..left];
            file.read_exact(data).map_err(|source| Error::File { path: path.into(), source })?;
            if !self.push_chunk(id, offset, data)? {
                break;
            }
            offset += left as u64;
            sent(offset);
        }
        if !self.is_answered(id) {
            self.put(&ClientMessage { id, request: Request::Volume(VolumeRequest::PushEnd) })?;
        }
        match self.receive(id)? {
            Response::Volume(VolumeResponse::Is(volume)) => Ok(volume),
            _ => Err(self.unexpected()),
        }
    }

    /// Sends a chunk, unless it is all zeros. Returns whether more may be sent.
    fn push_chunk(&mut self, id: u32, offset: u64, data: &[u8]) -> Result<bool, Error> {
        if data.iter().any(|byte| *byte != 0) {
            let data = Blob::try_from(data).map_err(|_| self.protocol("no chunk of this size"))?;
            self.put(&ClientMessage { id, request: Request::Volume(VolumeRequest::Chunk { offset, data }) })?;
            self.flush()?;
            self.take_what_is_there()?;
        }
        Ok(!self.is_answered(id))
    }

    /// Whether an answer to this request has come that nobody has asked for.
    fn is_answered(&self, id: u32) -> bool {
        self.open.get(&id).is_some_and(|answers| !answers.is_empty())
    }

    /// Downloads what `request` is for. `take` is given the beginning, then the pieces; returns whether the whole is what
    /// it was at one moment.
    ///
    /// # Errors
    /// Those of a request, and of `take`.
    pub fn download(
        &mut self,
        request: Request,
        mut take: impl FnMut(&Download) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let id = self.send(request)?;
        let (mut size, mut done) = (None, 0);
        loop {
            let Response::Download(step) = self.receive(id)? else { return Err(self.unexpected()) };
            match (&step, size) {
                (Download::Begin { bytes }, None) => size = Some(*bytes),
                (Download::Data { offset, data }, Some(bytes)) => {
                    let end = offset.checked_add(data.len() as u64).filter(|end| *end <= bytes);
                    match end {
                        Some(end) if *offset >= done => done = end,
                        _ => return Err(self.protocol("a piece that does not belong there")),
                    }
                }
                (Download::End { consistent }, Some(_)) => return Ok(*consistent),
                _ => return Err(self.unexpected()),
            }
            take(&step)?;
        }
    }

    /// All volumes of the host, in the order of their names.
    pub fn volumes(&mut self) -> Result<Vec<Volume>, Error> {
        let request = Request::Volume(VolumeRequest::List);
        self.pages(request, 2 * VOLUMES_MAX, |response| match response {
            Response::Volume(VolumeResponse::Listed { page, more }) => Some((page, more)),
            _ => None,
        })
    }

    /// All images of the host, in the order of their digests.
    pub fn images(&mut self) -> Result<Vec<StoredImage>, Error> {
        self.pages(Request::Image(ImageRequest::List), 2 * IMAGES_MAX, |response| match response {
            Response::Image(ImageResponse::Listed { page, more }) => Some((page, more)),
            _ => None,
        })
    }
}
