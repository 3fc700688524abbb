//! The images that a host has.

use serde::{Deserialize, Serialize};

use crate::limits::{IMAGE_PAGE_MAX, IMAGE_USERS_MAX};
use crate::{Digest, List, Name};

/// A request about stored images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageRequest {
    /// All images, in the order of their digests.
    List,
    /// The content of an image.
    Pull(Digest),
    /// Deletes an image that no unikernel is made of.
    Remove(Digest),
    /// Deletes all images that no unikernel is made of.
    Collect,
}

/// An answer about stored images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageResponse {
    /// A page of the listing.
    Listed {
        /// The images of this page.
        page: List<StoredImage, IMAGE_PAGE_MAX>,
        /// Whether another page follows.
        more: bool,
    },
    /// The image is gone.
    Removed,
    /// The images that no unikernel is made of are gone.
    Collected {
        /// How many there were.
        images: u32,
        /// How many bytes they took.
        bytes: u64,
    },
}

/// An image that a host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Which.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// How many unikernels are made of it, or can go back to it.
    pub users: u32,
    /// The first of them, in the order of their names.
    pub names: List<Name, IMAGE_USERS_MAX>,
}
