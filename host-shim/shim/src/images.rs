//! An image on its way into the store: `images/<SHA-256>`, read-only files that are whole or not there.

use std::{fs::File, io, io::Write, os::fd::AsRawFd, path::Path};

use petrel_shim::check::Refusal;
use petrel_wire::Digest;
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, linkat, open};

/// An image being written: a file without a name, which goes by itself if nobody gives it one.
pub struct Receiving {
    file: File,
    hash: Context,
    result: io::Result<()>,
}

impl Receiving {
    pub fn begin(folder: &Path) -> io::Result<Self> {
        let file = open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR)?;
        Ok(Self { file: file.into(), hash: Context::new(&SHA256), result: Ok(()) })
    }

    /// Takes the next bytes. What goes wrong is told at the commit.
    pub fn append(&mut self, data: &[u8]) {
        self.hash.update(data);
        if self.result.is_ok() {
            self.result = self.file.write_all(data);
        }
    }

    /// Gives the file its name, if it is what it was announced as.
    pub fn commit(self, digest: Digest, path: &Path) -> Result<(), Refusal> {
        if self.hash.finish().as_ref() != digest.0 {
            return Err(Refusal::Violation("an image of another digest than announced"));
        }
        self.result?;
        fchmod(&self.file, Mode::RUSR | Mode::RGRP | Mode::ROTH).map_err(io::Error::from)?; // whatever the umask is
        // Otherwise a power failure could leave the name without the bytes, and the name is all that is trusted.
        self.file.sync_data()?;
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)?;
        Ok(self.file.sync_all()?) // the name too: file systems with a journal write all that was done to a file
    }
}
