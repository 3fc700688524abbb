//! Whole appliances, made by the program: the same bytes wherever and whenever they are made, and signed as firmware
//! wants it. Where Debian's packages or the programs for it are not there (`make appliance` gets them), this is said and left
//! out, unless `PETREL_APPLIANCE` is set: then it fails.

use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fatfs::{FileSystem, FsOptions};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const OUTPUTS: [&str; 4] = ["initrd.img", "petrel.efi", "petrel.img", "vmlinuz"];
const PROGRAMS: [&str; 8] = ["apt-cache", "objcopy", "mke2fs", "openssl", "sbsign", "sbverify", "xz", "zstd"];

/// The packages that an appliance is made of, if all that it takes is here.
fn packages() -> Option<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/appliance");
    let has = |name: &str| {
        fs::read_dir(&cache).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(name))
        })
    };
    let mut missing: Vec<_> =
        ["linux-image-", "systemd-boot-efi"].into_iter().filter(|name| !has(name)).collect();
    missing.extend(PROGRAMS.into_iter().filter(|program| !is_installed(program)));
    if missing.is_empty() {
        return Some(cache);
    }
    let said = format!("left out: there is no {}; `make appliance` gets them", missing.join(", "));
    assert!(std::env::var_os("PETREL_APPLIANCE").is_none(), "{said}");
    eprintln!("{said}");
    None
}

fn is_installed(program: &str) -> bool {
    let path = petrel_appliance::run::path();
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// A folder with all that an appliance is made of. What is in our programs is nothing to who makes it.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["petrel-init", "petrel-shim", "petrel-tender", "petrel.hvt"] {
            fs::write(folder.path().join(name), name.repeat(1000)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command that makes it, into the folder `out`.
    fn make(&self, cache: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_petrel-appliance"));
        command.arg("--programs").arg(self.0.path()).arg("--control-plane").arg(self.path("petrel.hvt"));
        command.arg("--cache").arg(cache).arg("--out").arg(self.path("out"));
        command
    }

    /// The packages again, in a folder of its own, and the list of modules the other way round: as depmod may write it where
    /// the file system tells files in another order.
    fn other_cache(&self, cache: &Path) -> PathBuf {
        let own = self.path("cache");
        fs::create_dir(&own).unwrap();
        link_all(cache, &own, &["packages"]);
        let kernel = names(&own).into_iter().find(|name| name.starts_with("linux-image-")).unwrap();
        let mut folder = PathBuf::from(kernel);
        for part in ["lib", "modules"] {
            open_up(&own.join(&folder), &cache.join(&folder), part);
            folder.push(part);
        }
        let version = names(&own.join(&folder)).remove(0);
        open_up(&own.join(&folder), &cache.join(&folder), &version);
        let list = own.join(&folder).join(&version).join("modules.dep");
        let text = fs::read_to_string(&list).unwrap();
        let reversed: Vec<_> = text.lines().rev().collect();
        fs::remove_file(&list).unwrap();
        fs::write(&list, reversed.join("\n") + "\n").unwrap();
        own
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Links to all that a folder holds, but for some.
fn link_all(from: &Path, to: &Path, but: &[&str]) {
    for name in names(from).iter().filter(|name| !but.contains(&name.as_str())) {
        symlink(from.canonicalize().unwrap().join(name), to.join(name)).unwrap();
    }
}

/// Makes the link `to` a folder of links, and in that the link `part`.
fn open_up(to: &Path, from: &Path, part: &str) {
    if to.is_symlink() {
        fs::remove_file(to).unwrap();
        fs::create_dir(to).unwrap();
        link_all(from, to, &[]);
    }
    fs::remove_file(to.join(part)).unwrap();
    fs::create_dir(to.join(part)).unwrap();
    link_all(&from.join(part), &to.join(part), &[]);
}

#[track_caller]
fn ok(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn the_same_inputs_give_the_same_bytes_wherever_and_whenever() {
    let Some(cache) = packages() else { return };
    let (one, other) = (Workshop::new(), Workshop::new());
    ok(&mut one.make(&cache));
    // Seconds later, in another folder, from other folders, by somebody with other habits.
    let umask = "umask 077; cd /; exec \"$@\"";
    let mut again = Command::new("sh");
    let make = other.make(&other.other_cache(&cache));
    again.args(["-c", umask, "sh"]).arg(make.get_program()).args(make.get_args());
    ok(again.env("TZ", "Asia/Tokyo").env("LC_ALL", "C").env("HOME", "/nonexistent").env("USER", "somebody"));
    let mut made = names(&one.path("out"));
    made.sort();
    assert_eq!(made, OUTPUTS);
    for name in OUTPUTS {
        let read = |workshop: &Workshop| fs::read(workshop.path("out").join(name)).unwrap();
        assert!(read(&one) == read(&other), "{name} differs");
    }
}

/// A key to sign with, and its certificate.
fn signer(workshop: &Workshop, name: &str, kind: &str) -> (PathBuf, PathBuf) {
    let (key, certificate) = (workshop.path(&format!("{name}.key")), workshop.path(&format!("{name}.pem")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", kind, "-nodes", "-days", "2", "-subj", &format!("/CN={name}")]);
    ok(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
    (key, certificate)
}

/// A file of the image's system partition, which is behind the first MiB.
fn of_image(image: &Path, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(image).unwrap().read_to_end(&mut bytes).unwrap();
    let volume = FileSystem::new(Cursor::new(&mut bytes[MIB..]), FsOptions::new()).unwrap();
    let mut contents = Vec::new();
    io::copy(&mut volume.root_dir().open_file(path).unwrap(), &mut contents).unwrap();
    contents
}

/// Whether `sbverify` finds a program to be signed by whom a certificate is of.
fn is_signed(program: &Path, certificate: &Path) -> bool {
    Command::new("sbverify").arg("--cert").arg(certificate).arg(program).output().unwrap().status.success()
}

/// What an initramfs holds of a file.
fn of_initramfs(file: &Path, path: &str, bytes: usize) -> Vec<u8> {
    // It is followed by zeros, of which zstd says that they are not its own.
    let archive = Command::new("zstd").arg("-dcq").arg(file).output().unwrap().stdout;
    let name = [path.as_bytes(), b"\0"].concat();
    let at = archive.windows(name.len()).position(|window| window == name).expect("the archive names it");
    let start = (at + name.len()).next_multiple_of(4);
    archive[start..start + bytes].to_vec()
}

#[test]
fn a_signed_image_of_operators_holds_two_signed_programs_and_the_operators_key() {
    let Some(cache) = packages() else { return };
    let workshop = Workshop::new();
    let ((key, certificate), (_, stranger)) =
        (signer(&workshop, "firmware", "rsa:2048"), signer(&workshop, "stranger", "rsa:2048"));
    let (ca_key, ca) = signer(&workshop, "operators", "ed25519");
    let mut make = workshop.make(&cache);
    make.arg("--key").arg(&key).arg("--certificate").arg(&certificate).arg("--operators").arg(&ca);
    ok(&mut make);

    let public =
        ok(Command::new("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&ca_key)).stdout;
    let held = of_initramfs(&workshop.path("out/initrd.img"), "petrel/operators.key", 32);
    assert!(public.ends_with(&held), "{held:?}");

    let image = workshop.path("out/petrel.img");
    let kernel = of_image(&image, "EFI/Linux/petrel-1.efi");
    assert!(fs::read(workshop.path("out/petrel.efi")).unwrap() == kernel, "it is the one for upgrades");
    for (name, bytes) in [("kernel", kernel), ("boot", of_image(&image, "EFI/BOOT/BOOTX64.EFI"))] {
        let program = workshop.path(name);
        fs::write(&program, &bytes).unwrap();
        assert!(is_signed(&program, &certificate), "{name}");
        assert!(!is_signed(&program, &stranger), "{name}");
        let mut altered = bytes;
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        fs::write(&program, altered).unwrap();
        assert!(!is_signed(&program, &certificate), "{name}, altered");
    }
}

#[test]
fn a_certificate_that_names_no_operators_is_refused() {
    let Some(cache) = packages() else { return };
    let workshop = Workshop::new();
    let (_, certificate) = signer(&workshop, "rsa", "rsa:2048");
    let output = workshop.make(&cache).arg("--operators").arg(certificate).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("rsa.pem: not of an Ed25519 key"), "{said}");
}
