//! The images that the host has: what they are for, and which can go.
//!
//! An image is used while a unikernel is made of it, or can go back to it. Others are kept, since whoever creates the
//! same again need not upload it; but only some of them after a create that came to nothing, and none when an
//! upload needs their place.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    vec::Vec,
};
use core::ops::Bound;

use petrel_wire::{
    Digest, List,
    limits::{IMAGE_PAGE_MAX, IMAGE_USERS_MAX, IMAGES_MAX},
    operator::{ImageRequest, ImageResponse, Refusal, Response, StoredImage, What, Who},
    shim::{Fault, Op, Reply},
};

use crate::{
    Engine, Level,
    limits::IMAGES_SPARE_MAX,
    policy::{self, Grant},
    session::Asker,
    shim_client::{Handled, Nonsense, Waiting},
    stream::Source,
};

/// The stored images.
#[derive(Debug, Default)]
pub(crate) struct Store {
    images: BTreeMap<Digest, Stored>,
    /// Counts what images were used for.
    uses: u64,
    /// Those that the shim has been told to delete.
    removals: BTreeMap<Digest, Removal>,
    collections: Vec<Collection>,
    /// While learning, those that the shim has not listed yet.
    unlisted: BTreeSet<Digest>,
    listed_up_to: Option<Digest>,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    bytes: u64,
    /// The number of its last use.
    used: u64,
}

/// An image that the shim has been told to delete.
#[derive(Debug)]
struct Removal {
    image: Stored,
    who: Who,
    /// Who asked for just this.
    asker: Option<Asker>,
    /// Who asked for all that can go.
    collector: Option<Asker>,
}

/// A request to delete all that can go.
#[derive(Debug)]
struct Collection {
    asker: Asker,
    left: usize,
    images: u32,
    bytes: u64,
}

impl Store {
    /// The image is there, and was of use just now.
    pub fn used(&mut self, digest: Digest, bytes: u64) {
        self.uses += 1;
        let used = self.uses;
        self.images.entry(digest).or_insert(Stored { bytes, used }).used = used;
    }

    /// The image was of use just now, if it is there.
    pub fn touch(&mut self, digest: Digest) {
        if let Some(&Stored { bytes, .. }) = self.images.get(&digest) {
            self.used(digest, bytes);
        }
    }

    /// The image is not there, or not any more.
    pub fn gone(&mut self, digest: Digest) {
        self.images.remove(&digest);
    }
}

#[cfg(feature = "inspect")]
impl Store {
    pub fn len(&self) -> usize {
        self.images.len()
    }

    pub fn removals_len(&self) -> usize {
        self.removals.len()
    }

    pub fn collections_len(&self) -> usize {
        self.collections.len()
    }
}

impl Engine {
    pub(crate) fn image_request(&mut self, asker: Asker, grant: Grant, request: ImageRequest) {
        let begun = match request {
            ImageRequest::List if self.shim.ever_ready() => {
                self.open_stream(asker, Source::Images { after: None });
                Ok(())
            }
            ImageRequest::List => Err(Refusal::ShimAway),
            ImageRequest::Pull(digest) => match self.store.images.get(&digest) {
                Some(&Stored { bytes, .. }) if self.sees_image(&grant, digest) => {
                    self.image_pull(asker, grant, digest, bytes)
                }
                _ => Err(self.unknown_image()),
            },
            ImageRequest::Remove(digest) => self.image_remove(asker, &grant, digest),
            ImageRequest::Collect => self.images_collect(asker, &grant),
        };
        if let Err(refusal) = begun {
            self.refuse(asker, refusal);
        }
    }

    /// Whether a session may read an image: one that is not of the whole host, those that its own unikernels are of.
    fn sees_image(&self, grant: &Grant, digest: Digest) -> bool {
        let scope = grant.scope();
        scope.is_root() || self.state.image_users(digest).any(|name| scope.is_above(name))
    }

    /// Why there is no image of some digest.
    fn unknown_image(&self) -> Refusal {
        if self.shim.ever_ready() { Refusal::NoSuchImage } else { Refusal::ShimAway }
    }

    fn image_remove(&mut self, asker: Asker, grant: &Grant, digest: Digest) -> Result<(), Refusal> {
        if !self.shim.is_ready() {
            return Err(Refusal::ShimAway);
        }
        if !self.store.images.contains_key(&digest) {
            return Err(Refusal::NoSuchImage);
        }
        if self.image_is_used(digest) {
            let names = self.state.image_users(digest).take(IMAGE_USERS_MAX).cloned().collect::<Vec<_>>();
            return Err(Refusal::ImageInUse(List::try_from(names).unwrap_or_default()));
        }
        self.remove_image(grant, digest, Some(asker), None);
        Ok(())
    }

    fn images_collect(&mut self, asker: Asker, grant: &Grant) -> Result<(), Refusal> {
        if !self.shim.is_ready() {
            return Err(Refusal::ShimAway);
        }
        let spare = self.spare_images();
        self.store.collections.push(Collection { asker, left: spare.len(), images: 0, bytes: 0 });
        for digest in spare {
            self.remove_image(grant, digest, None, Some(asker));
        }
        self.answer_collections();
        Ok(())
    }

    /// Whether it cannot go: a unikernel is made of it, or somebody is at it.
    fn image_is_used(&self, digest: Digest) -> bool {
        let at_it = self.uploads.contains_key(&digest) || self.images.is_looked_into(digest);
        at_it || self.state.uses_image(digest)
    }

    /// The images that can go, the one that was of use last the last.
    fn spare_images(&self) -> Vec<Digest> {
        let used: BTreeSet<Digest> = self.state.images().map(|(digest, _)| digest).collect();
        let free = |digest: &Digest| {
            !used.contains(digest)
                && !self.uploads.contains_key(digest)
                && !self.images.is_looked_into(*digest)
        };
        let mut spare: Vec<_> = self.store.images.iter().filter(|(digest, _)| free(digest)).collect();
        spare.sort_unstable_by_key(|(_, image)| image.used);
        spare.into_iter().map(|(digest, _)| *digest).collect()
    }

    fn remove_image(
        &mut self,
        grant: &Grant,
        digest: Digest,
        asker: Option<Asker>,
        collector: Option<Asker>,
    ) {
        let Some(image) = self.store.images.remove(&digest) else { return };
        self.images.forget(digest);
        self.store.removals.insert(digest, Removal { image, who: grant.who(), asker, collector });
        self.ask(grant, Op::ImageRemove(digest), Waiting::ImageRemoved(digest));
    }

    pub(crate) fn image_removed(&mut self, digest: Digest, result: Result<Reply, Fault>) -> Handled {
        let failure = match result {
            Ok(Reply::Done) | Err(Fault::NotFound) => None,
            Ok(_) => return Err(Nonsense("another reply than done to the removal of an image")),
            Err(fault) => Some(fault),
        };
        let Some(Removal { image, who, asker, collector }) = self.store.removals.remove(&digest) else {
            return Ok(());
        };
        if let Some(fault) = failure {
            self.log(Level::Error, format!("image {digest}: could not be deleted: {fault:?}"));
            self.store.images.entry(digest).or_insert(image);
        } else {
            self.happened(who, What::ImageRemoved(digest), None);
        }
        if let Some(asker) = asker {
            self.answer(
                asker,
                match failure {
                    None => Response::Image(ImageResponse::Removed),
                    Some(fault) => Response::Refused(Refusal::Shim(fault)),
                },
            );
        }
        let of = |collection: &&mut Collection| Some(collection.asker) == collector;
        if let Some(collection) = self.store.collections.iter_mut().find(of) {
            collection.left -= 1;
            if failure.is_none() {
                collection.images += 1;
                collection.bytes = collection.bytes.saturating_add(image.bytes);
            }
            self.answer_collections();
        }
        Ok(())
    }

    fn answer_collections(&mut self) {
        for Collection { asker, images, bytes, .. } in
            self.store.collections.extract_if(.., |c| c.left == 0).collect::<Vec<_>>()
        {
            self.answer(asker, Response::Image(ImageResponse::Collected { images, bytes }));
        }
    }

    /// A create came to nothing: its image may have been uploaded for it alone, so the oldest of too many go.
    pub(crate) fn trim_images(&mut self) {
        if self.shim.is_ready() {
            let spare = self.spare_images();
            let surplus = spare.len().saturating_sub(IMAGES_SPARE_MAX);
            for digest in spare.into_iter().take(surplus) {
                self.remove_image(&policy::upkeep(), digest, None, None);
            }
        }
    }

    /// Sees to it that one more image can be stored, if any can go. The shim deletes before it begins.
    pub(crate) fn make_room_for_image(&mut self) {
        if self.store.images.len() + self.uploads.len() < IMAGES_MAX {
            return;
        }
        if let Some(oldest) = self.spare_images().first() {
            self.remove_image(&policy::upkeep(), *oldest, None, None);
        }
    }

    // What the shim has.

    pub(crate) fn survey_images(&mut self) {
        self.store.unlisted = self.store.images.keys().copied().collect();
        self.store.listed_up_to = None;
        self.ask(&policy::upkeep(), Op::ImageList { after: None }, Waiting::Images);
    }

    pub(crate) fn images_listed(&mut self, result: Result<Reply, Fault>) -> Handled {
        let (page, more) = match result {
            Ok(Reply::Images { page, more }) => (page.into_vec(), more),
            Ok(_) => return Err(Nonsense("another reply than images to the question for them")),
            Err(fault) => {
                self.log(Level::Error, format!("images: cannot be listed: {fault:?}"));
                (Vec::new(), false)
            }
        };
        if more && page.is_empty() {
            return Err(Nonsense("an empty page of the images, and more to follow"));
        }
        for (digest, bytes) in page {
            if Some(digest) <= self.store.listed_up_to || self.store.images.len() > IMAGES_MAX {
                return Err(Nonsense("images that are not in the order of their digests, or too many"));
            }
            self.store.listed_up_to = Some(digest);
            self.store.unlisted.remove(&digest);
            self.store.images.entry(digest).or_insert(Stored { bytes, used: 0 });
        }
        if more {
            let after = self.store.listed_up_to;
            self.ask(&policy::upkeep(), Op::ImageList { after }, Waiting::Images);
        } else {
            for digest in core::mem::take(&mut self.store.unlisted) {
                self.store.gone(digest);
                self.images.forget(digest);
            }
            self.ask(&policy::upkeep(), Op::List { after: None }, Waiting::List);
        }
        Ok(())
    }

    /// The link is gone: what was asked for is refused, what there is will be told when it is back.
    pub(crate) fn images_lost(&mut self) {
        let removals = core::mem::take(&mut self.store.removals).into_values();
        let askers: Vec<Asker> = removals.filter_map(|removal| removal.asker).collect();
        let collectors = core::mem::take(&mut self.store.collections).into_iter().map(|c| c.asker);
        for asker in askers.into_iter().chain(collectors) {
            self.refuse(asker, Refusal::ShimAway);
        }
    }

    /// A page of the listing: those with greater digests, and whether more follow.
    pub(crate) fn image_page(&self, after: Option<Digest>) -> (List<StoredImage, IMAGE_PAGE_MAX>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.store.images.range((from, Bound::Unbounded));
        let shown = |(&digest, image): (&Digest, &Stored)| {
            (digest, StoredImage { digest, bytes: image.bytes, users: 0, names: List::new() })
        };
        let mut page: BTreeMap<Digest, StoredImage> = rest.by_ref().take(IMAGE_PAGE_MAX).map(shown).collect();
        for (digest, name) in self.state.images() {
            if let Some(image) = page.get_mut(&digest) {
                image.users += 1;
                let _ = image.names.push(name.clone()); // the first ones
            }
        }
        let page = List::try_from(page.into_values().collect::<Vec<_>>()).unwrap_or_default();
        (page, rest.next().is_some())
    }
}
