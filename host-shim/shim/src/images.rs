//! The image store: `images/<SHA-256>`, read-only files that are whole or not there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{collections::BTreeSet, os::fd::AsRawFd, os::unix::fs::FileExt};

use petrel_shim::check::Refusal;
use petrel_wire::{Blob, Digest};
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, linkat};

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
        let names = fs::read_dir(&self.0)?.filter_map(|entry| Some(entry.ok()?.file_name()));
        Ok(names.filter_map(|name| name.to_str()?.parse().ok()).collect())
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
            return Err(Refusal::Violation("an image of another digest than announced"));
        }
        received.result?;
        Ok(give_name(&received.file, &self.path(&digest))?)
    }

    /// Up to `bytes` bytes of an image from `offset`, fewer at its end.
    pub fn read<const N: usize>(&self, digest: &Digest, offset: u64, bytes: usize) -> io::Result<Blob<N>> {
        let mut data = vec![0; bytes];
        let count = File::open(self.path(digest))?.read_at(&mut data, offset)?;
        Ok(Blob::try_from(&data[..count]).unwrap_or_default())
    }
}

fn give_name(file: &File, path: &Path) -> io::Result<()> {
    fchmod(file, Mode::RUSR | Mode::RGRP | Mode::ROTH)?; // whatever the umask is
    // Otherwise a power failure could leave the name without the bytes, and the name is all that is trusted.
    file.sync_data()?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
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
