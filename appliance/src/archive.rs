//! The initramfs: a cpio archive in the "newc" format (the kernel's Documentation/driver-api/early-userspace/
//! buffer-format.rst), with no times and no owners but root.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::{about, read, run};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// Files and folders, by path.
#[derive(Default)]
pub struct Archive(BTreeMap<String, (u32, Vec<u8>)>);

impl Archive {
    /// Puts a folder in. That above it must be there.
    pub fn folder(&mut self, path: &str) {
        self.0.insert(path.into(), (FOLDER | 0o755, Vec::new()));
    }

    /// Puts a file in. Its folder must be there.
    pub fn file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        self.0.insert(path.into(), (FILE | mode, bytes));
    }

    /// The archive, in the order of paths: folders come before what is in them.
    pub fn finish(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for (inode, (path, (mode, bytes))) in (1..).zip(&self.0) {
            put(&mut archive, inode, *mode, path, bytes);
        }
        put(&mut archive, 0, 0, "TRAILER!!!", &[]);
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive
    }
}

fn put(archive: &mut Vec<u8>, inode: usize, mode: u32, path: &str, bytes: &[u8]) {
    // inode, mode, owner, group, links, time, size, the file's device and its own, the path's length with a NUL, no sum
    let fields = [inode, mode as usize, 0, 0, 1, 0, bytes.len(), 0, 0, 0, 0, path.len() + 1, 0];
    archive.extend_from_slice(b"070701");
    fields.iter().for_each(|field| archive.extend_from_slice(format!("{field:08x}").as_bytes()));
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// Compresses `archive` into `file`: by one thread, since what several make depends on their number.
pub fn compress(archive: &[u8], file: &Path) -> Result<(), String> {
    let plain = file.with_extension("cpio");
    std::fs::write(&plain, archive).map_err(about(&plain))?;
    let options = ["-q", "-f", "-19", "--single-thread", "--no-progress", "--rm"];
    run::run(Command::new("zstd").args(options).arg(&plain).arg("-o").arg(file))?;
    // What may follow it begins where the kernel looks for an archive.
    let mut compressed = read(file)?;
    compressed.resize(compressed.len().next_multiple_of(4), 0);
    std::fs::write(file, compressed).map_err(about(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_no_trace_of_the_order_in_which_it_was_filled() {
        let (mut one, mut other) = (Archive::default(), Archive::default());
        one.folder("a");
        one.file("a/b", 0o600, b"content".to_vec());
        other.file("a/b", 0o600, b"content".to_vec());
        other.folder("a");
        assert_eq!(one.finish(), other.finish());
    }

    #[test]
    fn headers_and_contents_are_aligned() {
        let mut archive = Archive::default();
        archive.file("abc", 0o644, vec![7; 5]);
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081a4", "a regular file with mode 0644");
        assert_eq!(&bytes[54..62], b"00000005", "five bytes");
        assert_eq!(&bytes[110..114], b"abc\0");
        assert_eq!(&bytes[116..121], &[7; 5]);
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(bytes.len() % 512, 0);
    }
}
