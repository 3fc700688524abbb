//! The parts of the sealed appliance's making. The same inputs give the same bytes: nothing in an image tells when or
//! where it was made.
//!
//! * [`packages`]: Debian's packages, unpacked and not installed
//! * [`modules`]: the kernel's modules that go in, and their order
//! * [`archive`]: the initramfs, as a cpio archive
//! * [`uki`]: kernel, initramfs and command line as one EFI program
//! * [`image`]: the bootable image
//! * [`run`]: other programs
#![allow(clippy::missing_errors_doc, reason = "all errors here are sentences for whoever makes an appliance")]

pub mod archive;
pub mod image;
pub mod modules;
pub mod packages;
pub mod run;
pub mod uki;

use std::fs;
use std::path::Path;

/// The bytes of a file.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(about(file))
}

/// Says what an error is about.
pub fn about<E: std::fmt::Display>(what: &Path) -> impl FnOnce(E) -> String {
    move |error| format!("{}: {error}", what.display())
}
