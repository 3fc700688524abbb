//! The unified kernel image: kernel, initramfs and command line as one EFI program, on systemd's stub
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::run;
use crate::{about, read};

/// Where a section is loaded, beyond the stub's own; each has room up to the next.
const OSREL: u64 = 0x2_0000;
const CMDLINE: u64 = 0x3_0000;
const LINUX: u64 = 0x200_0000;
const INITRD: u64 = 0x400_0000;
/// Where a PE file's headers have the time of making and the sum.
const TIME: usize = 8;
const SUM: usize = 88;

/// What signs for UEFI Secure Boot: a private key and its certificate, both PEM.
pub struct Signer {
    /// The private key.
    pub key: PathBuf,
    /// The certificate that firmware knows.
    pub certificate: PathBuf,
}

/// Makes the image. Its version is always the same: which of two is tried first is told by their names.
pub fn make(stub: &Path, linux: &Path, initrd: &Path, cmdline: &str, to: &Path) -> Result<(), String> {
    let beside = |extension: &str| to.with_extension(extension);
    let release =
        format!("ID=petrel\nPRETTY_NAME=\"Petrel appliance {}\"\nVERSION_ID=1\n", env!("CARGO_PKG_VERSION"));
    let write = |path: &Path, text: &str| fs::write(path, text).map_err(about(path));
    write(&beside("osrel"), &release)?;
    write(&beside("cmdline"), cmdline)?;
    let mut objcopy = Command::new("objcopy");
    let (osrel, line) = (beside("osrel"), beside("cmdline"));
    let sections = [
        (".osrel", OSREL, osrel.as_path()),
        (".cmdline", CMDLINE, &line),
        (".linux", LINUX, linux),
        (".initrd", INITRD, initrd),
    ];
    for (name, address, file) in sections {
        objcopy.arg("--add-section").arg(format!("{name}={}", file.display()));
        objcopy.arg("--change-section-vma").arg(format!("{name}={address:#x}"));
    }
    run(objcopy.arg(stub).arg(to))?;
    [osrel, line].iter().try_for_each(|file| fs::remove_file(file).map_err(about(file)))?;
    timeless(to)
}

/// Takes the time of making out of a PE file's headers, and the sum over it, which nobody asks for in EFI.
fn timeless(file: &Path) -> Result<(), String> {
    let mut bytes = read(file)?;
    let field =
        |at: usize| bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
    // The file header begins where the number at 0x3c says, with "PE\0\0", machine and number of sections.
    let header = field(0x3c).and_then(|at| usize::try_from(at).ok()).ok_or("no PE file came of it")?;
    for at in [header + TIME, header + SUM] {
        bytes.get_mut(at..at + 4).ok_or("no PE file came of it")?.fill(0);
    }
    fs::write(file, bytes).map_err(about(file))
}

/// Signs an EFI program in its place.
pub fn sign(file: &Path, signer: &Signer) -> Result<(), String> {
    let mut sbsign = Command::new("sbsign");
    sbsign.arg("--key").arg(&signer.key).arg("--cert").arg(&signer.certificate);
    run(sbsign.arg("--output").arg(file).arg(file)).map(drop)
}
