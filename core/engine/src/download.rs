//! Volumes and images on their way to a client, read from the shim no faster than the client takes them.
//!
//! A volume that a unikernel has is read from a draft that shares its blocks, where the file system can do that; else it
//! is read as it is, and the client is told that it need not be what it was at any one moment.

use alloc::collections::{BTreeMap, VecDeque};

use petrel_wire::{
    Digest, Name, VolumeName,
    limits::CHUNK_BYTES_MAX,
    operator::{Download as Told, Refusal, Response},
    shim::{Fault, Op, Reply, VolumeOp},
};

use crate::{
    Engine,
    limits::DOWNLOAD_PIECES_MAX,
    policy::Grant,
    session::Asker,
    shim_client::{Handled, Nonsense, Waiting},
    stream::{Source, Step},
    upload::Chunk,
    volumes::{JobId, Watch},
};

pub(crate) type Downloads = BTreeMap<JobId, Download>;

/// Something that is read for a client.
#[derive(Debug)]
pub(crate) struct Download {
    asker: Asker,
    grant: Grant,
    phase: Phase,
    source: File,
    /// The volume, unless what is read cannot change.
    watch: Option<Watch>,
    /// The size of the whole.
    bytes: u64,
    /// All before this has come.
    got: u64,
    /// Where the reads begin that the shim has not answered.
    reads: VecDeque<u64>,
    /// Where the next read begins.
    next: u64,
    /// What the client has not taken.
    pieces: VecDeque<(u64, Chunk)>,
    /// The client has been told that it begins.
    begun: bool,
    failure: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A draft is being made, to read from.
    Drafting,
    Cloning,
    Reading,
}

/// What is read.
#[derive(Clone, Debug)]
enum File {
    Image(Digest),
    Volume(VolumeName),
    /// Deleted when it has been read.
    Draft(VolumeName),
}

impl Download {
    /// What its draft takes by its size, in bytes.
    pub fn draft_bytes(&self) -> u64 {
        if matches!(self.source, File::Draft(_)) { self.bytes } else { 0 }
    }

    /// Takes in a piece of the file; some of it may have come before.
    fn take(&mut self, offset: u64, data: Chunk) {
        let end = offset.saturating_add(data.len() as u64).min(self.bytes);
        // Nothing follows a piece that is not full: holes, or the file is shorter than was known.
        let is_last = data.len() < CHUNK_BYTES_MAX || offset >= self.bytes;
        if end > self.got {
            // Both are within one chunk.
            let skip = usize::try_from(self.got.saturating_sub(offset)).unwrap_or(0);
            let keep = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
            let mut data = data.into_vec();
            data.truncate(keep);
            data.drain(..skip);
            if let Ok(piece) = Chunk::try_from(data) {
                self.pieces.push_back((offset.max(self.got), piece));
            }
            self.got = end;
            self.next = self.next.max(end);
        }
        if is_last {
            self.got = self.bytes;
        }
    }
}

impl Engine {
    /// The content of a volume.
    pub(crate) fn volume_pull(&mut self, asker: Asker, grant: Grant, name: Name) -> Result<(), Refusal> {
        self.check_transfers(&grant)?;
        let bytes = self.check_volume(&name)?;
        let in_use = self.state.volume_holder(&name).is_some();
        let watch = self.watch_volume(&name);
        let draft = (in_use && self.check_space(bytes).is_ok()).then(|| self.volumes.new_draft());
        let (phase, source) = match draft.clone() {
            Some(draft) => (Phase::Drafting, File::Draft(draft)),
            None => (Phase::Reading, File::Volume(VolumeName::from(&name))),
        };
        let id = self.begin_download(asker, grant, phase, source, watch, bytes);
        if let Some(volume) = draft {
            self.ask_for_download(id, Op::Volume(VolumeOp::Create { volume, bytes }));
        }
        Ok(())
    }

    /// The content of an image that has `bytes` bytes.
    pub(crate) fn image_pull(
        &mut self,
        asker: Asker,
        grant: Grant,
        digest: Digest,
        bytes: u64,
    ) -> Result<(), Refusal> {
        self.check_transfers(&grant)?;
        self.begin_download(asker, grant, Phase::Reading, File::Image(digest), None, bytes);
        Ok(())
    }

    fn begin_download(
        &mut self,
        asker: Asker,
        grant: Grant,
        phase: Phase,
        source: File,
        watch: Option<Watch>,
        bytes: u64,
    ) -> JobId {
        let id = self.volumes.new_job();
        let (reads, pieces) = (VecDeque::new(), VecDeque::new());
        let download = Download {
            asker,
            grant,
            phase,
            source,
            watch,
            bytes,
            got: 0,
            reads,
            next: 0,
            pieces,
            begun: false,
            failure: None,
        };
        self.downloads.insert(id, download);
        self.read_on(id);
        self.open_stream(asker, Source::Download(id));
        id
    }

    fn ask_for_download(&mut self, id: JobId, op: Op) {
        if let Some(download) = self.downloads.get(&id) {
            self.shim.ask(self.now, &download.grant, op, Waiting::Download(id), &mut self.outputs);
        }
    }

    /// Reads ahead of the client, but not far.
    fn read_on(&mut self, id: JobId) {
        while let Some(download) = self.downloads.get_mut(&id) {
            let ahead = download.reads.len() + download.pieces.len();
            let more = download.next < download.bytes && download.got < download.bytes;
            let reads = download.phase == Phase::Reading && download.failure.is_none();
            if ahead >= DOWNLOAD_PIECES_MAX || !more || !reads {
                return;
            }
            let offset = download.next;
            download.next = offset.saturating_add(CHUNK_BYTES_MAX as u64);
            download.reads.push_back(offset);
            let op = match &download.source {
                File::Image(digest) => Op::ImageRead { digest: *digest, offset, bytes: READ_BYTES },
                File::Volume(volume) | File::Draft(volume) => {
                    Op::Volume(VolumeOp::Read { volume: volume.clone(), offset })
                }
            };
            self.ask_for_download(id, op);
        }
    }

    pub(crate) fn download_replied(&mut self, id: JobId, result: Result<Reply, Fault>) -> Handled {
        let Some(download) = self.downloads.get_mut(&id) else { return Ok(()) };
        let asker = download.asker;
        match download.phase {
            Phase::Drafting => match result {
                Ok(Reply::Done) => self.clone_to_draft(id),
                Ok(_) => return Err(Nonsense("another reply than done to a draft")),
                Err(_) => self.read_as_it_is(id),
            },
            Phase::Cloning => match result {
                Ok(Reply::Done) => {
                    download.watch = None;
                    download.phase = Phase::Reading;
                }
                Ok(_) => return Err(Nonsense("another reply than done to a clone")),
                Err(_) => self.read_as_it_is(id),
            },
            Phase::Reading => self.piece_read(id, result)?,
        }
        self.read_on(id);
        self.pump(asker.session);
        Ok(())
    }

    fn clone_to_draft(&mut self, id: JobId) {
        let Some(download) = self.downloads.get_mut(&id) else { return };
        let (Some(watch), File::Draft(draft)) = (&download.watch, &download.source) else { return };
        let op = VolumeOp::Clone { from: (&watch.name).into(), to: draft.clone() };
        download.phase = Phase::Cloning;
        self.ask_for_download(id, Op::Volume(op));
    }

    /// There can be no draft.
    fn read_as_it_is(&mut self, id: JobId) {
        let Some(download) = self.downloads.get_mut(&id) else { return };
        let cloning = download.phase == Phase::Cloning;
        download.phase = Phase::Reading;
        let Some(watch) = &download.watch else { return };
        let volume = File::Volume(VolumeName::from(&watch.name));
        if let File::Draft(draft) = core::mem::replace(&mut download.source, volume)
            && cloning
        {
            self.remove_draft(draft);
        }
    }

    fn piece_read(&mut self, id: JobId, result: Result<Reply, Fault>) -> Handled {
        let Some(download) = self.downloads.get_mut(&id) else { return Ok(()) };
        let asked = download.reads.pop_front().unwrap_or(0);
        match (result, &download.source) {
            (Ok(Reply::Bytes(data)), File::Image(_)) => match Chunk::try_from(data.into_vec()) {
                Ok(data) if !data.is_empty() => download.take(asked, data),
                _ => return Err(Nonsense("less of an image than there is")),
            },
            (Ok(Reply::Extent { offset, data }), File::Volume(_) | File::Draft(_)) => {
                // Where the file ends before, that is told.
                if offset < asked && !data.is_empty() {
                    return Err(Nonsense("another part of a volume than was asked for"));
                }
                download.take(offset, data);
            }
            (Ok(_), _) => return Err(Nonsense("another reply than bytes to a read")),
            (Err(fault), File::Image(_)) => {
                let gone = fault == Fault::NotFound;
                download.failure = Some(if gone { Refusal::NoSuchImage } else { Refusal::Shim(fault) });
            }
            (Err(fault), File::Volume(_) | File::Draft(_)) => {
                let name = download.watch.as_ref().map(|watch| watch.name.clone());
                let refusal = name.map_or(Refusal::Shim(fault), |name| self.volume_fault(&name, fault));
                self.download_fails(id, refusal);
            }
        }
        let watch = self.downloads.get(&id).and_then(|download| download.watch.as_ref());
        if let Some(refusal) = watch.and_then(|watch| self.changed(watch)) {
            self.download_fails(id, refusal);
        }
        Ok(())
    }

    fn download_fails(&mut self, id: JobId, refusal: Refusal) {
        if let Some(download) = self.downloads.get_mut(&id) {
            download.pieces.clear();
            download.failure = Some(refusal);
        }
    }

    /// What the client gets next.
    pub(crate) fn step_download(&mut self, id: JobId) -> Step {
        let Some(download) = self.downloads.get_mut(&id) else {
            return Step::End(None, Response::Refused(Refusal::ShimAway));
        };
        if let Some(refusal) = &download.failure {
            return Step::End(None, Response::Refused(refusal.clone()));
        }
        if download.phase != Phase::Reading {
            return Step::Wait;
        }
        if !download.begun {
            download.begun = true;
            return Step::Send(Response::Download(Told::Begin { bytes: download.bytes }));
        }
        if let Some((offset, data)) = download.pieces.pop_front() {
            self.read_on(id);
            return Step::Send(Response::Download(Told::Data { offset, data }));
        }
        if download.got < download.bytes || !download.reads.is_empty() {
            return Step::Wait;
        }
        let watch = self.downloads.get(&id).and_then(|download| download.watch.as_ref());
        if let Some(refusal) = watch.and_then(|watch| self.changed(watch)) {
            return Step::End(None, Response::Refused(refusal));
        }
        let consistent = watch.is_none_or(|watch| self.stayed_unused(watch));
        Step::End(None, Response::Download(Told::End { consistent }))
    }

    /// The client has got all, or does not want it any more.
    pub(crate) fn download_closed(&mut self, id: JobId) {
        if let Some(Download { source: File::Draft(draft), .. }) = self.downloads.remove(&id)
            && self.shim.is_ready()
        {
            self.remove_draft(draft);
        }
    }

    /// The link is gone.
    pub(crate) fn downloads_lost(&mut self) {
        let sessions: alloc::vec::Vec<_> =
            self.downloads.values().map(|download| download.asker.session).collect();
        for download in self.downloads.values_mut() {
            download.pieces.clear();
            download.failure = Some(Refusal::ShimAway);
        }
        for session in sessions {
            self.pump(session);
        }
    }
}

/// What is read of an image at once.
#[expect(clippy::cast_possible_truncation, reason = "32 KiB")]
const READ_BYTES: u32 = CHUNK_BYTES_MAX as u32;
