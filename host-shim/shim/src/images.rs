//! The image store: `images/<SHA-256>`, read-only files that are whole or not there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Bound;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use petrel_shim::check::{Refusal, Violation};
use petrel_wire::Digest;
use petrel_wire::limits::PAGE_ENTRIES_MAX;
use petrel_wire::shim::Reply;
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, linkat};

use crate::fault;

/// The folder of images.
pub struct Images(pub PathBuf);

/// An image being written: a file without a name, which goes by itself if nobody gives it one.
pub struct Receiving {
    file: File,
    hash: Context,
    result: io::Result<()>,
}

impl Images {
    /// What is in the store.
    pub fn list(&self) -> io::Result<BTreeSet<Digest>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    /// The page of `images` with digests greater than `after`.
    pub fn page(&self, images: &BTreeSet<Digest>, after: Option<Digest>) -> io::Result<Reply> {
        let mut following = images.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let size = |digest: &Digest| Ok((*digest, fs::metadata(self.path(digest))?.len()));
        let page = following.by_ref().take(PAGE_ENTRIES_MAX).map(size).collect::<io::Result<Vec<_>>>()?;
        let page = page.try_into().unwrap_or_default(); // as many as fit are taken
        Ok(Reply::Images { page, more: following.next().is_some() })
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.to_string())
    }

    pub fn begin(&self) -> io::Result<Receiving> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.0, flags, Mode::RUSR)?;
        Ok(Receiving { file: file.into(), hash: Context::new(&SHA256), result: Ok(()) })
    }

    /// Gives the file its name, if it is what it was announced as.
    pub fn commit(&self, digest: Digest, received: Receiving) -> Result<(), Refusal> {
        if received.hash.finish().as_ref() != digest.0 {
            return Err(Violation::ImageBytes(digest).into());
        }
        let file = received.file;
        let link = |()| {
            fchmod(&file, Mode::RUSR | Mode::RGRP | Mode::ROTH)?; // whatever the umask is
            // Otherwise a power failure could leave the name without the bytes, and the name is all that is trusted.
            file.sync_data()?;
            let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
            Ok(linkat(CWD, unnamed, CWD, self.path(&digest), AtFlags::SYMLINK_FOLLOW)?)
        };
        received.result.and_then(link).map_err(|error| fault(&error).into())
    }

    /// Up to `bytes` bytes of an image from `offset`, fewer at its end.
    pub fn read(&self, digest: &Digest, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut data = vec![0; bytes];
        let count = File::open(self.path(digest))?.read_at(&mut data, offset)?;
        data.truncate(count);
        Ok(data)
    }
}

impl Receiving {
    /// Takes the next bytes. What goes wrong is told at the commit.
    pub fn append(&mut self, data: &[u8]) {
        self.hash.update(data);
        if self.result.is_ok() {
            self.result = self.file.write_all(data);
        }
    }
}
