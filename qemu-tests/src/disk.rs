//! A machine's disks: files here.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A disk that outlives machines.
pub struct Disk(PathBuf);

impl Disk {
    /// A blank one.
    #[must_use]
    pub fn blank(path: PathBuf, mib: u64) -> Self {
        File::create_new(&path).and_then(|file| file.set_len(mib << 20)).expect("room for a disk");
        Self(path)
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Overwrites a part of it.
    pub fn damage(&self, offset: u64, bytes: usize) {
        let noise: Vec<u8> = (0..bytes).map(|n| u8::try_from(n * 7 % 251).expect("below 251")).collect();
        let file = OpenOptions::new().write(true).open(&self.0).expect("the disk");
        file.write_all_at(&noise, offset).expect("the disk is writable");
    }
}
