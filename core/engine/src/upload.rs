//! Uploads: images stream through to the shim, hashed on the way, and are looked into when they have arrived.
//!
//! There is one upload of an image at a time. Who offers it meanwhile waits: if the upload ends well, or shows
//! that the image is not one to run here, that is the answer for all who wait; if the uploader failed, the first
//! who waits is asked for the bytes. An answer is given when the shim has confirmed what it says: after a
//! refusal nothing of the upload is on the host.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    format,
};

use petrel_wire::{
    Blob, Digest,
    limits::{CHUNK_BYTES_MAX, IMAGE_BYTES_MAX, UPLOADS_MAX},
    operator::{Refusal, Response, Table, What},
    shim::{Fault, Op, Reply},
};
use sha2::{Digest as _, Sha256};

use crate::{
    Engine, Level,
    images::{Image, Learner},
    policy::{self, Grant},
    session::{Asker, Kind},
    shim_client::{Handled, Nonsense, Waiting},
};

pub(crate) type Chunk = Blob<CHUNK_BYTES_MAX>;
pub(crate) type Uploads = BTreeMap<Digest, Upload>;

/// An upload under way.
#[derive(Debug)]
pub(crate) struct Upload {
    owner: Offer,
    phase: Phase,
    /// The bytes still to come.
    left: u64,
    hasher: Sha256,
    /// The host had it before: others may have been told so, and rely on it.
    found: bool,
    /// Decided already, though the shim has not confirmed it yet.
    verdict: Option<Verdict>,
    /// Who offers the same image.
    waiting: VecDeque<Offer>,
}

/// Somebody who has an image.
#[derive(Debug)]
struct Offer {
    asker: Asker,
    grant: Grant,
    bytes: u64,
}

/// Which answer of the shim an upload waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To the `ImageBegin`.
    Beginning,
    /// None: it waits for the client's bytes.
    Receiving,
    /// To the `ImageCommit`.
    Committing,
    /// To the reads that show what it is.
    Inspecting,
    /// To the `ImageAbort` or the `ImageRemove`.
    Leaving,
}

/// Why an upload does not end with a stored image.
#[derive(Debug)]
enum Verdict {
    /// The client's doing, or the host's: another may try the same image.
    Upload(Refusal),
    /// What the image is: the same for all.
    Image(Refusal),
    /// Cancelled, or its session has closed.
    Abandoned,
}

impl Engine {
    pub(crate) fn image_push(&mut self, asker: Asker, grant: Grant, digest: Digest, bytes: u64) {
        if bytes == 0 || bytes > IMAGE_BYTES_MAX {
            return self.refuse(asker, Refusal::ImageSize { max: IMAGE_BYTES_MAX });
        }
        // One that an upload is about to remove may be known, if a create has looked into it.
        let settled = !self.uploads.contains_key(&digest);
        if let Some(image) = self.images.known(digest).filter(|_| settled) {
            // One that a create has looked into may be left from an upload that was cut, and run nowhere here.
            let runs = self.shim.monitor_for(image);
            self.store.touch(digest);
            let stored = |_| Response::ImageStored(digest);
            return self.answer(asker, runs.map_or_else(Response::Refused, stored));
        }
        if !self.shim.is_ready() {
            return self.refuse(asker, Refusal::ShimAway);
        }
        let offer = Offer { asker, grant, bytes };
        if let Some(upload) = self.uploads.get_mut(&digest) {
            upload.waiting.push_back(offer);
        } else if self.uploads.len() >= policy::share(&offer.grant.scope(), UPLOADS_MAX) {
            return self.refuse(asker, Refusal::Full(Table::Uploads));
        } else {
            self.upload_begin(digest, offer, VecDeque::new());
        }
        self.set_kind(asker, Kind::Upload(digest));
    }

    fn upload_begin(&mut self, digest: Digest, owner: Offer, waiting: VecDeque<Offer>) {
        self.make_room_for_image();
        let op = Op::ImageBegin { digest, bytes: owner.bytes };
        self.ask(&owner.grant, op, Waiting::ImageBegin(digest));
        let left = owner.bytes;
        let phase = Phase::Beginning;
        let (hasher, found, verdict) = (Sha256::new(), false, None);
        let upload = Upload { owner, phase, left, hasher, found, verdict, waiting };
        self.uploads.insert(digest, upload);
    }

    pub(crate) fn upload_begun(&mut self, digest: Digest, result: Result<Reply, Fault>) -> Handled {
        let Some(upload) = self.uploads.get_mut(&digest) else { return Ok(()) };
        let given_up = upload.verdict.is_some();
        let asker = upload.owner.asker;
        match result {
            Ok(Reply::Done) if given_up => self.upload_leave(digest, Op::ImageAbort(digest)),
            Ok(Reply::Done) => {
                upload.phase = Phase::Receiving;
                self.tell(asker, Response::ImageWanted);
            }
            Ok(Reply::Stored { .. }) if given_up => self.upload_end(digest),
            Ok(Reply::Stored { bytes }) => {
                // The offer may be wrong about it.
                (upload.found, upload.owner.bytes) = (true, bytes);
                self.upload_inspect(digest, None);
            }
            Ok(_) => return Err(Nonsense("another reply than done or stored to a begun image")),
            Err(fault) => self.upload_failed(digest, fault),
        }
        Ok(())
    }

    /// The shim could not do it, and holds nothing of it.
    fn upload_failed(&mut self, digest: Digest, fault: Fault) {
        if let Some(upload) = self.uploads.get_mut(&digest) {
            upload.verdict.get_or_insert(Verdict::Upload(Refusal::Shim(fault)));
            self.upload_end(digest);
        }
    }

    pub(crate) fn upload_chunk(&mut self, asker: Asker, digest: Digest, data: Chunk) {
        let Some(upload) = self.uploads.get_mut(&digest) else { return };
        if upload.owner.asker != asker {
            upload.waiting.retain(|offer| offer.asker != asker);
            return self.refuse(asker, Refusal::UnexpectedChunk);
        }
        if upload.verdict.is_some() {
            return;
        }
        let bytes = data.len() as u64;
        if upload.phase != Phase::Receiving || bytes > upload.left {
            return self.upload_give_up(digest, Verdict::Upload(Refusal::UnexpectedChunk));
        }
        upload.left -= bytes;
        upload.hasher.update(&*data);
        let complete = upload.left == 0;
        self.shim.send(&upload.owner.grant, Op::ImageChunk { digest, data }, &mut self.outputs);
        if complete {
            self.upload_complete(digest);
        }
    }

    /// All bytes are there: if they are what the digest names, they are kept.
    fn upload_complete(&mut self, digest: Digest) {
        let Some(upload) = self.uploads.get_mut(&digest) else { return };
        let received = Digest(upload.hasher.finalize_reset().into());
        if received != digest {
            return self.upload_give_up(digest, Verdict::Upload(Refusal::DigestMismatch { received }));
        }
        upload.phase = Phase::Committing;
        let op = Op::ImageCommit(digest);
        self.shim.ask(self.now, &upload.owner.grant, op, Waiting::ImageCommit(digest), &mut self.outputs);
    }

    pub(crate) fn upload_committed(&mut self, digest: Digest, result: Result<Reply, Fault>) -> Handled {
        let Some(upload) = self.uploads.get_mut(&digest) else { return Ok(()) };
        match result {
            Ok(Reply::Done) if upload.verdict.is_some() => {
                self.upload_leave(digest, Op::ImageRemove(digest));
            }
            Ok(Reply::Done) => {
                let bytes = upload.owner.bytes;
                self.upload_inspect(digest, Some(bytes));
            }
            Ok(_) => return Err(Nonsense("another reply than done to a commit")),
            Err(fault) => self.upload_failed(digest, fault),
        }
        Ok(())
    }

    fn upload_inspect(&mut self, digest: Digest, bytes: Option<u64>) {
        if let Some(upload) = self.uploads.get_mut(&digest) {
            upload.phase = Phase::Inspecting;
            self.learn(digest, bytes, Learner::Upload);
        }
    }

    /// What has arrived has been looked into. An image that nothing here can run is not kept.
    pub(crate) fn upload_inspected(&mut self, digest: Digest, outcome: &Result<Image, Refusal>) {
        let Some(upload) = self.uploads.get_mut(&digest) else { return };
        match outcome {
            Ok(image) => {
                if let Err(refusal) = self.shim.monitor_for(image) {
                    upload.verdict.get_or_insert(Verdict::Image(refusal));
                }
            }
            Err(refusal @ Refusal::NotAnImage(_)) => {
                upload.verdict.get_or_insert(Verdict::Image(refusal.clone()));
            }
            Err(refusal) => {
                // It could not be read: if it came with this upload, nobody has been told that it is there.
                upload.verdict.get_or_insert(Verdict::Upload(refusal.clone()));
            }
        }
        let useless = matches!(upload.verdict, Some(Verdict::Image(_)));
        if useless || (upload.verdict.is_some() && !upload.found) {
            self.upload_leave(digest, Op::ImageRemove(digest));
        } else {
            self.upload_end(digest);
        }
    }

    /// The owner cannot go on. What is under way at the shim is awaited first.
    fn upload_give_up(&mut self, digest: Digest, verdict: Verdict) {
        let Some(upload) = self.uploads.get_mut(&digest) else { return };
        upload.verdict.get_or_insert(verdict);
        if upload.phase == Phase::Receiving {
            self.upload_leave(digest, Op::ImageAbort(digest));
        }
    }

    /// Whether the shim was asked to delete the image, which was not to be kept.
    pub(crate) fn is_leaving(&self, digest: Digest) -> bool {
        self.uploads.get(&digest).is_some_and(|upload| upload.phase == Phase::Leaving)
    }

    /// Has the shim delete what it holds of the image.
    fn upload_leave(&mut self, digest: Digest, op: Op) {
        if matches!(op, Op::ImageRemove(_)) && self.state.uses_image(digest) {
            // It was there before, and is needed to start those again that are of it.
            return self.upload_end(digest);
        }
        self.images.forget(digest);
        self.store.gone(digest);
        if let Some(upload) = self.uploads.get_mut(&digest) {
            upload.phase = Phase::Leaving;
            self.shim.ask(self.now, &upload.owner.grant, op, Waiting::ImageGone(digest), &mut self.outputs);
        }
    }

    pub(crate) fn upload_left(&mut self, digest: Digest, result: Result<Reply, Fault>) -> Handled {
        self.images.forget(digest);
        match result {
            Ok(Reply::Done) | Err(Fault::NotFound) => {}
            Ok(_) => return Err(Nonsense("another reply than done to an abort or a removal")),
            Err(fault) => {
                self.log(Level::Error, format!("image {digest}: could not be deleted: {fault:?}"));
            }
        }
        self.upload_end(digest);
        Ok(())
    }

    /// Answers the owner, and those who wait or the first of them gets its turn.
    fn upload_end(&mut self, digest: Digest) {
        let Some(Upload { owner, verdict, mut waiting, .. }) = self.uploads.remove(&digest) else { return };
        let for_all = match verdict {
            None => {
                self.happened(owner.grant.who(), What::ImageStored(digest), None);
                self.store.used(digest, owner.bytes);
                Response::ImageStored(digest)
            }
            Some(Verdict::Image(refusal)) => {
                let what = What::ImageRefused(digest, Box::new(refusal.clone()));
                self.happened(owner.grant.who(), what, None);
                Response::Refused(refusal)
            }
            Some(verdict) => {
                if let Verdict::Upload(refusal) = verdict {
                    self.refuse(owner.asker, refusal);
                }
                if let Some(next) = waiting.pop_front() {
                    self.upload_begin(digest, next, waiting);
                }
                return;
            }
        };
        for offer in core::iter::once(owner).chain(waiting) {
            self.answer(offer.asker, for_all.clone());
        }
    }

    /// Nobody waits any more for the answer to this offer.
    pub(crate) fn upload_abandoned(&mut self, asker: Asker, digest: Digest) {
        let Some(upload) = self.uploads.get_mut(&digest) else { return };
        if upload.owner.asker == asker {
            self.upload_give_up(digest, Verdict::Abandoned);
        } else {
            upload.waiting.retain(|offer| offer.asker != asker);
        }
    }

    /// The link is gone, and with it all that the shim held of uploads.
    pub(crate) fn uploads_lost(&mut self) {
        for (digest, upload) in core::mem::take(&mut self.uploads) {
            // A create may have looked into it before it was removed.
            self.images.forget(digest);
            let refusal = match upload.verdict {
                Some(Verdict::Upload(refusal) | Verdict::Image(refusal)) => refusal,
                Some(Verdict::Abandoned) | None => Refusal::ShimAway,
            };
            self.refuse(upload.owner.asker, refusal);
            for offer in upload.waiting {
                self.refuse(offer.asker, Refusal::ShimAway);
            }
        }
    }
}
