//! The partition for the state: made at the first boot, behind all others on the disk that the system was written to.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use gpt::partition::Partition;
use gpt::partition_types::LINUX_FS;

use crate::{kernel, log};

/// A partition that only a disk with the system has.
const SEAL: &str = "PARTNAME=petrel-seal";
const SECTORS_PER_MIB: u64 = 2048;
/// What is needed to begin with.
const LEAST_MIB: u64 = 48;

/// Makes it, if the machine has such a disk with room on it. Whether it has.
pub fn make(name: &str) -> Result<bool, String> {
    let Some(disk) = system_disk() else { return Ok(false) };
    let device = Path::new("/dev").join(&disk);
    make_on(&device, name).map_err(|error| format!("{}: {error}", device.display()))
}

/// The disk that has the partition for the sealed host.
fn system_disk() -> Option<String> {
    let entries = fs::read_dir("/sys/class/block").ok()?.flatten();
    let is_seal = |path: &Path| {
        fs::read_to_string(path.join("uevent")).is_ok_and(|text| text.lines().any(|line| line == SEAL))
    };
    let seal = entries.map(|entry| entry.path()).find(|path| is_seal(path))?;
    // A partition's folder is in its disk's.
    Some(seal.canonicalize().ok()?.parent()?.file_name()?.to_str()?.to_owned())
}

fn make_on(device: &Path, name: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let mut table = gpt::GptConfig::new().writable(true).open(device)?;
    let mut partitions = table.partitions().clone();
    partitions.retain(|_, partition| partition.is_used());
    let used = partitions.values().map(|partition| partition.last_lba).max().unwrap_or(0);
    // Told of the disk's real size first: the table may be that of a smaller image.
    table.update_partitions(partitions.clone())?;
    let (first, last) = room(used, table.header().last_usable);
    if last < first + LEAST_MIB * SECTORS_PER_MIB {
        return Ok(false);
    }
    // An earlier, smaller image may have had the copy of its table there.
    let blank = vec![0; usize::try_from(SECTORS_PER_MIB * 512)?];
    OpenOptions::new().write(true).open(device)?.write_all_at(&blank, first * 512)?;
    let id = partitions.keys().max().unwrap_or(&0) + 1;
    let mut state = Partition::zero();
    (state.part_type_guid, state.name) = (LINUX_FS, name.into());
    (state.first_lba, state.last_lba) = (first, last);
    state.part_guid = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().parse()?;
    partitions.insert(id, state);
    table.update_partitions(partitions)?;
    table.write()?.sync_all()?;
    kernel::read_partitions(OpenOptions::new().read(true).open(device)?)?;
    log(format_args!("partition {id} made on {} for the state", device.display()));
    Ok(true)
}

/// The whole MiBs behind the sector `used`, up to `last_usable`: first and last sector.
fn room(used: u64, last_usable: u64) -> (u64, u64) {
    let first = (used + 1).next_multiple_of(SECTORS_PER_MIB);
    let end = (last_usable + 1) / SECTORS_PER_MIB * SECTORS_PER_MIB;
    (first, end.max(first + 1) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_behind_is_whole_mebibytes() {
        assert_eq!(room(2047, 8191), (2048, 8191));
        assert_eq!(room(2048, 8200), (4096, 8191));
        assert_eq!(room(8000, 8100), (8192, 8192), "none");
    }
}
