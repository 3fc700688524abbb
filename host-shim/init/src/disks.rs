//! Which disk or partition is what. A sealed host is known by its first bytes; where the state is kept, by its name:
//! the GPT name of a partition, or the serial number of a whole disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::thread::sleep;

use petrel_wire::sealed::{MAGIC, SEALED_HOST_BYTES_MAX};

use crate::limits::{DISK_LOOK, DISK_LOOKS};
use crate::modules::Modules;
use crate::watchdog::Watchdog;
use crate::{about, log, partition};

const STATE: &str = "petrel-state";

/// A disk or a partition.
pub struct Disk {
    name: String,
}

impl Disk {
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/dev").join(&self.name)
    }

    fn about(&self, file: &str) -> String {
        let text = fs::read_to_string(format!("/sys/class/block/{}/{file}", self.name));
        text.unwrap_or_default()
    }

    pub fn bytes(&self) -> u64 {
        self.about("size").trim().parse::<u64>().unwrap_or(0).saturating_mul(512)
    }

    fn is_called(&self, name: &str) -> bool {
        let partition = format!("PARTNAME={name}");
        self.about("serial").trim() == name || self.about("uevent").lines().any(|line| line == partition)
    }

    /// Its first bytes; fewer if it has no more.
    pub fn start(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        File::open(self.path())?.take(bytes as u64).read_to_end(&mut start)?;
        Ok(start)
    }
}

fn all() -> Result<Vec<Disk>, String> {
    let entries = fs::read_dir("/sys/class/block").map_err(about("disks"))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut disks: Vec<_> = names.map(|name| Disk { name }).filter(|disk| disk.bytes() > 0).collect();
    disks.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(disks)
}

/// The sealed host, and what it was found on. Disks may take a while to appear, most of all those on USB.
pub fn sealed_host(watchdog: &mut Watchdog, modules: &mut Modules) -> Result<(String, Vec<u8>), String> {
    for look in 0..DISK_LOOKS {
        for disk in all()? {
            // One that cannot be read (a drive without a medium) holds no seal.
            if disk.start(MAGIC.len()).is_ok_and(|start| start == MAGIC) {
                let image = disk.start(SEALED_HOST_BYTES_MAX).map_err(about(disk.path().display()))?;
                return Ok((disk.path().display().to_string(), image));
            }
        }
        if look == DISK_LOOKS / 10 {
            log(format_args!("no disk with a sealed host yet: waiting for one"));
        }
        watchdog.feed();
        sleep(DISK_LOOK);
        modules.load();
    }
    Err("no disk holds a sealed host. Make one with `petrel seal`, into this image's partition petrel-seal or on a \
         disk of its own"
        .into())
}

/// The disk or partition of this name, if there is one now.
pub fn called(name: &str) -> Result<Option<Disk>, String> {
    Ok(all()?.into_iter().find(|disk| disk.is_called(name)))
}

/// Where the state is kept. The disk of the system gets a partition for it if there is no such place.
pub fn state(modules: &mut Modules) -> Result<Disk, String> {
    let mut is_made = false;
    for look in 0..DISK_LOOKS {
        let mut found: Vec<_> = all()?.into_iter().filter(|disk| disk.is_called(STATE)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(disk), true) => return Ok(disk),
            (Some(_), false) => {
                return Err(format!("several disks are called {STATE}: leave one in the machine"));
            }
            // Not at once: a disk with an older state may appear a little later.
            (None, _) if !is_made && look >= DISK_LOOKS / 10 => is_made = partition::make(STATE)?,
            (None, _) => {
                sleep(DISK_LOOK);
                modules.load();
            }
        }
    }
    Err(format!(
        "no place for the state: the system's disk has no room for a partition. Write the image to a larger one, name \
         a GPT partition {STATE}, or give a disk that serial number"
    ))
}
