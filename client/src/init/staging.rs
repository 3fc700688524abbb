//! Folders that appear whole or not at all. Folders are made with mode 0700 and files with 0600.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{exists, in_the_way};
use crate::failure::Failure;

/// A folder in the making, beside its place. Removed unless committed.
pub struct Staging {
    temporary: PathBuf,
    place: PathBuf,
    committed: bool,
}

impl Staging {
    /// Begins a folder whose place must be free.
    pub fn new(place: &Path) -> Result<Self, Failure> {
        if exists(place) {
            return Err(in_the_way(place));
        }
        let Some(name) = place.file_name() else {
            return Err(in_the_way(place));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let temporary = place.with_file_name(hidden);
        private_folder(&temporary, false)?;
        Ok(Self { temporary, place: place.into(), committed: false })
    }

    /// Makes a folder in it.
    pub fn folder(&self, name: &str) -> Result<(), Failure> {
        private_folder(&self.temporary.join(name), false)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.temporary.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        written.map_err(|error| unwritable(&path, &error))
    }

    /// Moves it to its place.
    pub fn commit(mut self) -> Result<(), Failure> {
        // A rename replaces at most an empty folder, should one have appeared meanwhile.
        std::fs::rename(&self.temporary, &self.place).map_err(|error| unwritable(&self.place, &error))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.committed {
            // The error that led here is the one to tell.
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Makes a folder with mode 0700; with its parents, and unless it is there, if `all`.
pub fn private_folder(path: &Path, all: bool) -> Result<(), Failure> {
    DirBuilder::new().mode(0o700).recursive(all).create(path).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::local(
        format!("{} cannot be made ({error})", path.display()),
        "a writable folder that exists, with room in it",
        "correct the path, or the mode of the folder that holds it",
    )
}
