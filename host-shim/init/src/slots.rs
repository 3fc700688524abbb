//! The system's partition, which has room for two systems. A new one gets a name that the boot manager tries once
//! (`petrel-2+1.efi`, of systemd-boot's boot counting); kept, it loses the count. One that is not kept is not tried again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use petrel_wire::{Digest, UPGRADE_VOLUME};
use ring::digest::SHA256;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{about, disks};

const SYSTEM: &str = "petrel-system";
const MOUNTED: &str = "/run/system";
const FOLDER: &str = "/run/system/EFI/Linux";
const VOLUMES: &str = "/state/host/volumes";
/// What the boot manager tells, in variables of its own (<https://systemd.io/BOOT_LOADER_INTERFACE/>).
const VARIABLES: &str = "/sys/firmware/efi/efivars";
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// What stands before the signer's key and signature at the end of a signed system, and is signed with it.
const MARK: &[u8; 8] = b"PETRSYST";

/// The system that was booted.
pub struct Booted {
    /// Its file; none where no boot manager of ours has started it.
    pub file: Option<String>,
    /// It was started once, and is to be kept or not.
    pub is_trial: bool,
}

/// Asks what the boot manager has told.
pub fn booted() -> Booted {
    let _ = mount("efivarfs", VARIABLES, "efivarfs", MountFlags::RDONLY | MountFlags::NOSUID, None);
    // A path, while tries are counted; else there is only the name.
    let counted = variable("LoaderBootCountPath");
    let is_trial = counted.is_some();
    let file = counted.or_else(|| variable("LoaderEntrySelected"));
    let _ = unmount(VARIABLES, UnmountFlags::empty());
    Booted { file: file.and_then(|path| path.rsplit('\\').next().map(str::to_owned)), is_trial }
}

/// A variable's text: four bytes of attributes, UTF-16, a NUL.
fn variable(name: &str) -> Option<String> {
    let bytes = fs::read(format!("{VARIABLES}/{name}-{VENDOR}")).ok()?;
    let units = bytes.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: Vec<_> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&text).ok()
}

/// Puts a system, which has been put into a volume, where it is booted next, once.
pub fn install(digest: Digest, signer: &[u8; 32], booted: &Booted) -> Result<String, String> {
    let own = booted.file.as_deref().ok_or("this machine was not booted from the system's partition")?;
    if booted.is_trial {
        // The other one, whose place this would take, is the only one that has shown that it starts.
        return Err("the system that runs is on trial: keep it first (`petrel appliance confirm`)".into());
    }
    let image = fs::read(Path::new(VOLUMES).join(UPGRADE_VOLUME)).map_err(about(UPGRADE_VOLUME))?;
    if ring::digest::digest(&SHA256, &image).as_ref() != digest.0 {
        return Err("another system was put into the volume meanwhile".into());
    }
    let system = verify(&image, signer)?;
    with_partition(|| {
        let mut newest = number(own);
        for entry in fs::read_dir(FOLDER).map_err(about(FOLDER))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            newest = newest.max(number(&name));
            // There is room for two.
            if name != own {
                fs::remove_file(entry.path()).map_err(about(&name))?;
            }
        }
        let name = format!("petrel-{}+1.efi", newest + 1);
        write(&name, system).map_err(about(&name))?;
        Ok(name)
    })
}

/// Keeps the system that was booted once.
pub fn keep(booted: &mut Booted) -> Result<(), String> {
    let Some(own) = booted.file.clone().filter(|_| booted.is_trial) else { return Ok(()) };
    let kept = format!("petrel-{}.efi", number(&own));
    with_partition(|| {
        let rename = fs::rename(Path::new(FOLDER).join(&own), Path::new(FOLDER).join(&kept));
        rename.and_then(|()| File::open(FOLDER)?.sync_all()).map_err(about(&own))
    })?;
    *booted = Booted { file: Some(kept), is_trial: false };
    Ok(())
}

/// What is signed, if those have signed it who signed this host.
fn verify<'a>(image: &'a [u8], signer: &[u8; 32]) -> Result<&'a [u8], String> {
    let unsigned = "it is not signed: use `petrel appliance sign`";
    let (signed, signature) = image.split_last_chunk::<64>().ok_or(unsigned)?;
    let (marked, key) = signed.split_last_chunk::<32>().ok_or(unsigned)?;
    let system = marked.strip_suffix(MARK).ok_or(unsigned)?;
    if key != signer {
        return Err("it is signed by others than this host's operators".into());
    }
    let verified = UnparsedPublicKey::new(&ED25519, key).verify(signed, signature);
    verified.map(|()| system).map_err(|_| "it was altered since it was signed".into())
}

fn with_partition<T>(action: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let disk = disks::called(SYSTEM)?.ok_or_else(|| format!("there is no partition {SYSTEM}"))?;
    fs::create_dir_all(MOUNTED).map_err(about(MOUNTED))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(disk.path(), MOUNTED, "vfat", flags, c"iocharset=ascii").map_err(about(SYSTEM))?;
    let done = action();
    unmount(MOUNTED, UnmountFlags::empty()).map_err(about(SYSTEM))?;
    done
}

/// A name that the boot manager knows is given to nothing that is not whole.
fn write(name: &str, system: &[u8]) -> std::io::Result<()> {
    let (new, place) = (PathBuf::from(MOUNTED).join("new"), Path::new(FOLDER).join(name));
    let mut file = File::create(&new)?;
    file.write_all(system)?;
    file.sync_all()?;
    fs::rename(new, place)?;
    File::open(FOLDER)?.sync_all()
}

/// The number in `petrel-2+0-1.efi`; 0 of what is called otherwise.
fn number(name: &str) -> u32 {
    let rest = name.strip_prefix("petrel-").unwrap_or_default();
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn signed(seed: u8) -> (Vec<u8>, [u8; 32]) {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
        let image = [&b"a system"[..], MARK, &public].concat();
        ([&image, key.sign(&image).as_ref()].concat(), public)
    }

    #[test]
    fn a_system_is_taken_from_this_hosts_operators_only_and_unaltered() {
        let ((image, signer), (_, other)) = (signed(1), signed(2));
        assert_eq!(verify(&image, &signer), Ok(&b"a system"[..]));
        assert!(verify(&image, &other).unwrap_err().contains("signed by others"));
        for at in 0..image.len() {
            let mut altered = image.clone();
            altered[at] ^= 1;
            assert!(verify(&altered, &signer).is_err(), "byte {at}");
        }
        assert!((0..image.len()).all(|cut| verify(&image[..cut], &signer).is_err()));
    }

    #[test]
    fn a_system_on_trial_installs_no_other() {
        let booted = Booted { file: Some("petrel-2+0-1.efi".into()), is_trial: true };
        let refused = install(Digest([0; 32]), &[0; 32], &booted).unwrap_err();
        assert!(refused.contains("is on trial"), "{refused}");
    }

    #[test]
    fn systems_are_numbered() {
        assert_eq!(
            ["petrel-1.efi", "petrel-12+1.efi", "petrel-3+0-1.efi", "else.efi"].map(number),
            [1, 12, 3, 0]
        );
    }
}
