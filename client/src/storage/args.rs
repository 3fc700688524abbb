//! The command lines of what is stored.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use petrel_wire::{Digest, Name};

use crate::args::{Json, name};
use crate::units::parse_size;

const SIZE: &str = "SIZE";

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume that reads as zeros
    #[command(after_help = super::VOLUME_FIELDS)]
    Create {
        /// What to call it: labels of letters, digits, '-', '_' and '.', joined by ':'
        #[arg(value_parser = name)]
        name: Name,
        /// Its size: bytes, or with a binary suffix as 512K, 10M, 4G, 1T; a multiple of 512 bytes
        #[arg(value_name = SIZE, value_parser = parse_size)]
        bytes: u64,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// List the volumes
    #[command(after_help = super::VOLUMES_FIELDS)]
    Ls(Json),
    /// Give a volume the content of a file
    ///
    /// The new content appears when all of it is on the host, and not before. What the volume has beyond the end of the
    /// file reads as zeros. A volume that a unikernel has cannot be pushed.
    #[command(after_help = super::VOLUME_FIELDS)]
    Push {
        /// The volume
        #[arg(value_parser = name)]
        name: Name,
        /// The file, no larger than the volume
        file: PathBuf,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// Download the content of a volume into a file
    ///
    /// A volume that a unikernel has is pulled as it is at one moment if the host's file system can share blocks. Where
    /// it cannot, and the unikernel writes meanwhile, the file is a mixture: a warning says so.
    #[command(after_help = super::PULL_FIELDS)]
    Pull {
        /// The volume
        #[arg(value_parser = name)]
        name: Name,
        /// The file; one that is there is replaced when the download is complete
        file: PathBuf,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// Make a new volume that is the same as another
    ///
    /// By sharing blocks where the host's file system can, and then also while a unikernel writes; else by copying.
    #[command(after_help = super::SNAPSHOT_FIELDS)]
    Snapshot {
        /// The volume
        #[arg(value_parser = name)]
        name: Name,
        /// What to call the new one
        #[arg(value_parser = name)]
        new: Name,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// Change the size of a volume
    ///
    /// One that a unikernel has can only grow, and the unikernel sees that when it starts anew.
    #[command(after_help = super::VOLUME_FIELDS)]
    Resize {
        /// The volume
        #[arg(value_parser = name)]
        name: Name,
        /// Its size from here on: bytes, or with a binary suffix as 512K, 10M, 4G, 1T; a multiple of 512 bytes
        #[arg(value_name = SIZE, value_parser = parse_size)]
        bytes: u64,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// Delete a volume that no unikernel has
    Rm {
        /// The volume
        #[arg(value_parser = name)]
        name: Name,
    },
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Upload an image, unless the host has it
    #[command(after_help = super::PUSH_FIELDS)]
    Push {
        /// The image's file
        file: PathBuf,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// List the images that the host has
    #[command(after_help = super::IMAGES_FIELDS)]
    Ls(Json),
    /// Delete an image that no unikernel is made of
    Rm {
        /// Its digest, with or without sha256: before it
        #[arg(value_name = "DIGEST", value_parser = digest)]
        digest: Digest,
    },
    /// Delete all images that no unikernel is made of
    #[command(after_help = super::COLLECTED_FIELDS)]
    Gc(Json),
}

/// What `get` takes.
#[derive(Debug, Args)]
pub struct Get {
    /// The unikernel, or sha256:HEX of an image that the host has
    #[arg(value_name = "NAME|sha256:HEX", value_parser = source)]
    pub source: Source,
    /// Where to put it; the last label of the unikernel's name, or the digest, with .hvt when absent
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// Which image is meant.
#[derive(Clone, Debug)]
pub enum Source {
    /// That of a unikernel.
    Unikernel(Name),
    /// This one.
    Image(Digest),
}

fn source(text: &str) -> Result<Source, String> {
    match text.strip_prefix("sha256:") {
        Some(_) => digest(text).map(Source::Image),
        None => name(text).map(Source::Unikernel),
    }
}

fn digest(text: &str) -> Result<Digest, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.parse().map_err(|error: petrel_wire::ParseDigestError| error.to_string())
}
