//! What outlives a boot: images, volumes, the control plane's journal. It is made at the first boot, in a place that is
//! blank and called so, and belongs to the host that has made it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};

use petrel_wire::Digest;
use rustix::mount::{MountFlags, mount};

use crate::disks::{self, Disk};
use crate::identity::Identity;
use crate::modules::Modules;
use crate::{about, kernel, log};

pub const FOLDER: &str = "/state";
const OWNER: &str = "/state/owner";
/// An empty ext4, to be made as large as its place.
const EMPTY: &str = "/petrel/state.ext4";
const BLOCK_BYTES: u64 = 4096;
/// What must be blank for a place to be taken.
const BLANK_BYTES: usize = 1024 * 1024;

/// Mounts it.
pub fn open(identity: &Identity, modules: &mut Modules) -> Result<(), String> {
    let disk = disks::state(modules)?;
    let about_disk = || format!("state on {}", disk.path().display());
    let start = disk.start(BLANK_BYTES).map_err(about(about_disk()))?;
    if start.iter().all(|byte| *byte == 0) {
        log(format_args!("{}: blank, so this is the first boot", about_disk()));
        make(&disk).map_err(about(about_disk()))?;
    }
    fs::create_dir_all(FOLDER).map_err(about(FOLDER))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    mount(disk.path(), FOLDER, "ext4", flags, c"errors=remount-ro").map_err(|error| {
        format!(
            "{}: damaged, or nothing of ours ({error}). It is left as it is: repair it with e2fsck in another \
             machine, or blank its first MiB to begin anew",
            about_disk()
        )
    })?;
    fill(&disk).map_err(about(about_disk()))?;
    own(identity).map_err(about(about_disk()))
}

fn make(disk: &Disk) -> io::Result<()> {
    let mut place = OpenOptions::new().write(true).open(disk.path())?;
    // The superblock last: a boot that ends meanwhile finds the place blank, and begins again.
    let empty = fs::read(EMPTY)?;
    let (start, rest) = empty.split_at_checked(BLANK_BYTES).ok_or(io::ErrorKind::InvalidData)?;
    use std::os::unix::fs::FileExt;
    place.write_all_at(rest, BLANK_BYTES as u64)?;
    place.sync_all()?;
    place.write_all(start)?;
    place.sync_all()
}

/// Lets it have its whole place; at later boots it has it already.
fn fill(disk: &Disk) -> io::Result<()> {
    Ok(kernel::resize_ext4(File::open(FOLDER)?, disk.bytes() / BLOCK_BYTES)?)
}

/// The first host to come takes it; from then on it is that host's alone.
fn own(identity: &Identity) -> Result<(), String> {
    let us = format!("{}\n{}\n", identity.host, Digest(identity.signer));
    match fs::read_to_string(OWNER) {
        Ok(owner) if owner == us => Ok(()),
        Ok(owner) => Err(refusal(&owner, &us)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => take(&us).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn take(us: &str) -> io::Result<()> {
    let mut file = File::create(format!("{OWNER}.new"))?;
    file.write_all(us.as_bytes())?;
    file.sync_all()?;
    fs::rename(format!("{OWNER}.new"), OWNER)?;
    File::open(FOLDER)?.sync_all()
}

fn refusal(owner: &str, us: &str) -> String {
    let host = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let what = if host(owner) == host(us) {
        "the sealed host is signed by other operators than those of".to_owned()
    } else {
        format!("the sealed host is {}, and this is the state of", host(us))
    };
    format!("{what} {}: put the right seal in, or another disk for the state", host(owner))
}
