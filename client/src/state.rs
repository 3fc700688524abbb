//! `petrel state`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use petrel_wire::limits::STATE_FILE_BYTES_MAX;

use crate::args::StateVerb;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::session::Session;
use crate::storage::target::{OWNERS_ONLY, Target};

/// Runs the command; returns what to print.
pub fn run(verb: &StateVerb, open: impl FnOnce() -> Result<Session, Failure>) -> Result<String, Failure> {
    match verb {
        StateVerb::Export { file } => export(file, open),
        StateVerb::Import { file, force } => import(file, *force, open),
    }
}

/// The file appears when it is whole, so that a backup is never half of one.
fn export(place: &Path, open: impl FnOnce() -> Result<Session, Failure>) -> Result<String, Failure> {
    let target = Target::new(place, OWNERS_ONLY)?;
    let mut session = open()?;
    let mut end = 0;
    let records = session.export_state(|bytes| {
        let offset = end;
        end += bytes.len() as u64;
        target.write(offset, bytes)
    })?;
    target.finish()?;
    Ok(format!("{records} records saved in {}\n", place.display()))
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
