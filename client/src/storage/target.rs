//! A local file that appears when it is whole, and not before.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The mode of a file that only its owner may read.
pub const OWNERS_ONLY: u32 = 0o600;
/// The mode of a file that is no secret.
pub const EVERYBODYS: u32 = 0o666;

/// A file being written, beside the place that it is for.
pub struct Target {
    path: PathBuf,
    part: PathBuf,
    file: File,
    done: bool,
}

impl Target {
    /// Begins to write what shall be at `path`, in this mode as the umask leaves it.
    pub fn new(path: &Path, mode: u32) -> Result<Self, Error> {
        let fail = |source| Error::File { path: path.into(), source };
        match std::fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(fail(io::Error::other("it is there, and not a regular file")));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let name = path.file_name().ok_or_else(|| fail(io::Error::other("it has no file name")))?;
        let mut part = OsString::from(".");
        part.push(name);
        part.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(part);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part).map_err(fail)?;
        Ok(Self { path: path.into(), part, file, done: false })
    }

    /// It has this size; what is not written reads as zeros.
    pub fn set_size(&self, bytes: u64) -> Result<(), Error> {
        self.file.set_len(bytes).map_err(|source| self.failed(source))
    }

    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(data, offset).map_err(|source| self.failed(source))
    }

    /// It is whole: puts it in its place.
    pub fn finish(mut self) -> Result<(), Error> {
        let moved = self.file.sync_all().and_then(|()| std::fs::rename(&self.part, &self.path));
        moved.map_err(|source| self.failed(source))?;
        self.done = true;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File { path: self.path.clone(), source }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_made_for_its_owner_only_is_so_from_the_start_and_in_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, "old").unwrap();
        let target = Target::new(&path, OWNERS_ONLY).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&target.part), OWNERS_ONLY);
        target.finish().unwrap();
        assert_eq!(mode(&path), OWNERS_ONLY);
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, "old").unwrap();
        let target = Target::new(&path, EVERYBODYS).unwrap();
        target.write(0, b"new").unwrap();
        drop(target);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let target = Target::new(&path, EVERYBODYS).unwrap();
        target.set_size(6).unwrap();
        target.write(3, b"new").unwrap();
        target.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0\0new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        assert!(Target::new(Path::new("/dev/null"), EVERYBODYS).is_err());
        assert!(Target::new(Path::new("/"), EVERYBODYS).is_err());
    }
}
