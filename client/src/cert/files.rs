//! The files of keys, requests and certificates.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use petrel_certificate::Certificate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::failure::Failure;
use crate::limits::PROFILE_FILE_BYTES_MAX;

/// Reads a file, which none of these makes long.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let taken =
        File::open(path).and_then(|file| file.take(PROFILE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match taken {
        Ok(taken) if taken as u64 <= PROFILE_FILE_BYTES_MAX => Ok(bytes),
        Ok(_) => Err(unusable(path, "it is far too large")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::local(
            format!("there is no file {}", path.display()),
            "the file of a certificate, a key or a request, in PEM",
            "correct the path",
        )),
        Err(error) => Err(unusable(path, &error.to_string())),
    }
}

/// The certificates in a file, in their order: at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| unusable(path, "it holds no certificate in PEM"))
}

/// What the first certificate in a file says.
pub fn first_certificate(path: &Path) -> Result<Certificate, Failure> {
    let first = certificates(path)?.swap_remove(0);
    Certificate::read(&first).map_err(|_| unusable(path, "its certificate is malformed"))
}

/// Makes a file that its owner alone reads, where none is yet.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::local(
            format!("{} exists already", path.display()),
            "a place where nothing is yet, since no such file is ever overwritten",
            "choose another place, or move that one away",
        )),
        Err(error) => Err(unwritable(path, &error)),
    }
}

/// Puts a file in the place of another; at no time is there none, nor half of one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = Path::new(&beside);
    write_new(beside, bytes)?;
    std::fs::rename(beside, path).map_err(|error| {
        // The error that led here is the one to tell.
        let _ = std::fs::remove_file(beside);
        unwritable(path, &error)
    })
}

/// A file that does not hold what it should.
pub fn unusable(path: &Path, why: &str) -> Failure {
    Failure::local(
        format!("{} cannot be used ({why})", path.display()),
        "a readable file in PEM with what belongs in it",
        "give the path of another file",
    )
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::local(
        format!("{} cannot be made ({error})", path.display()),
        "a writable folder that exists, with room in it",
        "correct the path, or the mode of the folder that holds it",
    )
}
