//! `petrel state`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use petrel_wire::limits::STATE_FILE_BYTES_MAX;

use crate::args::StateVerb;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::session::Session;

/// Runs the command; returns what to print.
pub fn run(verb: &StateVerb, open: impl FnOnce() -> Result<Session, Failure>) -> Result<String, Failure> {
    match verb {
        StateVerb::Export { file } => export(file, open),
        StateVerb::Import { file, force } => import(file, *force, open),
    }
}

/// The file appears when it is whole, so that a backup is never half of one.
fn export(place: &Path, open: impl FnOnce() -> Result<Session, Failure>) -> Result<String, Failure> {
    let unwritable = |error: &io::Error| {
        Failure::local(
            format!("{} cannot be written ({error})", place.display()),
            "a file in a writable folder that exists, with room in it",
            "correct the path, or the mode of the folder that holds it",
        )
    };
    let mut session = open()?;
    let (temporary, mut file) = Temporary::beside(place).map_err(|error| unwritable(&error))?;
    let records = session.export_state(|bytes| file.write_all(bytes).map_err(|error| unwritable(&error)))?;
    let done = file.sync_all().and_then(|()| fs::rename(&temporary.0, place));
    done.map_err(|error| unwritable(&error))?;
    Ok(format!("{records} records saved in {}\n", place.display()))
}

/// A file in the making, removed when it is given up.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(place: &Path) -> io::Result<(Self, File)> {
        let mut name = std::ffi::OsString::from(".");
        name.push(place.file_name().ok_or(io::ErrorKind::IsADirectory)?);
        name.push(format!(".{}", std::process::id()));
        let path = place.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((Self(path), file))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is not there any more when it has been renamed.
        let _ = fs::remove_file(&self.0);
    }
}

fn import(
    place: &Path,
    force: bool,
    open: impl FnOnce() -> Result<Session, Failure>,
) -> Result<String, Failure> {
    let file = read(place).map_err(|error| {
        Failure::local(
            format!("{} cannot be read ({error})", place.display()),
            format!("a file of at most {STATE_FILE_BYTES_MAX} bytes that `petrel state export` has made"),
            "give the path of one",
        )
    })?;
    let mut progress = Progress::new("uploading", file.len() as u64);
    let records = open()?.import_state(&file, force, |done| progress.update(done))?;
    drop(progress);
    Ok(format!("{records} records are kept now\n"))
}

/// A file that is longer than any is not read to its end.
fn read(place: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(place)?.take(STATE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > STATE_FILE_BYTES_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long")),
        false => Ok(bytes),
    }
}
