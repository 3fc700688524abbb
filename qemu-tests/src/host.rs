//! What an operator makes for a host.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use petrel_appliance::archive::Archive;
use petrel_appliance::image;
use petrel_appliance::uki::{self, Signer};
use petrel_tests::{Ended, out};
use tempfile::TempDir;

use crate::Disk;

/// The control plane's address in QEMU's user network, if it is set.
pub const ADDRESS: &str = "10.0.2.16";
/// What QEMU's DHCP server leases to the first that asks.
const LEASED: &str = "10.0.2.15";

const FIRMWARE_KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil";

/// The size of a state disk.
pub const STATE_MIB: u64 = 512;

/// A host's keys, its sealed host, its state disk. All of it goes when it is dropped.
pub struct Host {
    folder: TempDir,
    /// Where the control plane is in QEMU's user network.
    pub address: &'static str,
    /// Where the appliance keeps its state.
    pub state: Disk,
}

impl Host {
    /// Makes one.
    #[track_caller]
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with(name, STATE_MIB, |_| {})
    }

    /// Makes one that asks for its address.
    #[track_caller]
    #[must_use]
    pub fn with_dhcp(name: &str) -> Self {
        Self::made(name, STATE_MIB, (LEASED, "dhcp"), |_| {})
    }

    /// Makes one with a state disk of this size.
    #[track_caller]
    #[must_use]
    pub fn with_disk(name: &str, mib: u64) -> Self {
        Self::with(name, mib, |_| {})
    }

    /// Makes one, whose `shim.toml` is edited before it is sealed.
    #[track_caller]
    #[must_use]
    pub fn with(name: &str, mib: u64, edit: impl FnOnce(&mut String)) -> Self {
        Self::made(name, mib, (ADDRESS, &format!("{ADDRESS}/24")), edit)
    }

    #[track_caller]
    fn made(
        name: &str,
        mib: u64,
        (address, ipv4): (&'static str, &str),
        edit: impl FnOnce(&mut String),
    ) -> Self {
        let folder = tempfile::tempdir().expect("room for a host");
        let state = Disk::blank(folder.path().join("state.img"), mib);
        let host = Self { folder, address, state };
        let site = host.path("site");
        let init = ["init", "--appliance", "--no-profile", "--host", name, "--ipv4", ipv4];
        let _ = run(Command::new(out("petrel")).args(init).arg(&site)).ok();
        let toml = site.join("host/shim.toml");
        let mut text = std::fs::read_to_string(&toml).expect("shim.toml");
        edit(&mut text);
        std::fs::write(&toml, text).expect("writable");
        let _ = host.seal(&["--uplink", "service=first"], "seal.img").ok();
        host
    }

    /// Runs `petrel` without a machine.
    #[must_use]
    pub fn petrel(&self, arguments: &[&str]) -> Ended {
        run(Command::new(out("petrel")).args(arguments))
    }

    /// Seals it into a file of this name.
    #[must_use]
    pub fn seal(&self, options: &[&str], name: &str) -> Ended {
        run(Command::new(out("petrel")).arg("seal").args(options).arg(self.path("site")).arg(self.path(name)))
    }

    /// A file to be put over the appliance's root file system: these files, each by its path there.
    #[must_use]
    pub fn overlay<S: AsRef<str>>(&self, files: &[(S, PathBuf)]) -> PathBuf {
        let mut archive = Archive::default();
        for (path, file) in files {
            let path = path.as_ref().trim_start_matches('/');
            // The folders above it, which may be there already.
            for (end, _) in path.match_indices('/') {
                archive.folder(&path[..end]);
            }
            archive.file(path, 0o755, std::fs::read(file).expect("what goes into an overlay"));
        }
        let overlay = self.path("overlay.cpio");
        std::fs::write(&overlay, archive.finish()).expect("room for an overlay");
        overlay
    }

    /// A file of its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The operator's profile, for where the machine is reached.
    #[must_use]
    pub fn profile(&self, address: &str, port: u16) -> PathBuf {
        let profile = self.path("site/profile");
        let file = profile.join("profile.toml");
        let text = std::fs::read_to_string(&file).expect("a profile");
        let lines = text.lines().map(|line| match line.starts_with("address") {
            true => format!("address = \"{address}:{port}\""),
            false => line.to_owned(),
        });
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("writable");
        profile
    }
}

fn run(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).output().expect("it is installed").into()
}

/// The bootable image again, with its programs signed by the key that Debian's firmware package has for tests.
#[track_caller]
pub fn sign_for_firmware(host: &Host, image: &Path) {
    let signer = Signer { key: host.path("firmware.key"), certificate: format!("{FIRMWARE_KEY}.pem").into() };
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-passin", "pass:snakeoil", "-in", &format!("{FIRMWARE_KEY}.key"), "-out"]);
    let _ = run(openssl.arg(&signer.key)).ok();
    let boot_manager =
        out("../target/appliance/systemd-boot-efi/usr/lib/systemd/boot/efi/systemd-bootx64.efi");
    let [kernel, boot] =
        [("kernel.efi", appliance("petrel.efi")), ("boot.efi", boot_manager)].map(|(name, from)| {
            let program = host.path(name);
            std::fs::copy(from, &program).expect("what `make appliance` has made");
            uki::sign(&program, &signer).expect("sbsign signs");
            program
        });
    image::make(&kernel, &boot, image).expect("room for an image");
}

/// A part of the appliance that `make appliance` has made.
#[must_use]
pub fn appliance(file: &str) -> PathBuf {
    let path = Path::new("appliance").join(file);
    out(path.to_str().expect("of ASCII"))
}

/// A program of this machine for an overlay, at this path there: with the libraries that it is linked with, each where it
/// is looked for.
#[track_caller]
#[must_use]
pub fn with_libraries(path: &str, program: PathBuf) -> Vec<(String, PathBuf)> {
    let said = Command::new("ldd").arg(&program).output().expect("ldd runs");
    assert!(said.status.success(), "{}: {said:?}", program.display());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let libraries = said.split_whitespace().filter(|word| word.starts_with('/'));
    let libraries = libraries.map(|library| (library.to_owned(), library.into()));
    libraries.chain([(path.to_owned(), program)]).collect()
}
