//! The bootable image: a GPT with the system's partition (FAT, as firmware wants it), which has room for two systems, and
//! a place for the sealed host. Where the state is kept is made at the first boot, behind both.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{EFI, LINUX_FS};
use uuid::Uuid;

use crate::{about, read};

const SECTOR_BYTES: u64 = 512;
const MIB: u64 = 1024 * 1024;
/// What of the system's partition is not for the two systems: the boot manager, and FAT's own.
const REST_MIB: u64 = 3;
/// The same in all images, as all are the same.
const DISK: Uuid = uuid::uuid!("70657472-656c-4000-8000-000000000000");
const SYSTEM: Uuid = uuid::uuid!("70657472-656c-4000-8000-000000000001");
const SEAL: Uuid = uuid::uuid!("70657472-656c-4000-8000-000000000002");

/// Makes the image, of a unified kernel and a boot manager.
pub fn make(kernel: &Path, boot_manager: &Path, to: &Path) -> Result<(), String> {
    let (kernel, boot_manager) = (read(kernel)?, read(boot_manager)?);
    let system_mib = 2 * (kernel.len() as u64).div_ceil(MIB) + REST_MIB;
    let system = system(&kernel, &boot_manager, system_mib).map_err(about(to))?;
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(to).map_err(about(to))?;
    // A MiB before, for the table; one for the sealed host; one behind, for the table's copy.
    file.set_len((1 + system_mib + 1 + 1) * MIB).map_err(about(to))?;
    partition(&file, system_mib).map_err(about(to))?;
    file.write_all_at(&system, MIB).map_err(about(to))
}

/// The system's partition.
fn system(kernel: &[u8], boot_manager: &[u8], mib: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(mib * MIB).map_err(std::io::Error::other)?];
    let options = FormatVolumeOptions::new().volume_id(0x5045_5452).volume_label(*b"PETREL     ");
    fatfs::format_volume(Cursor::new(&mut bytes[..]), options)?;
    let volume = FileSystem::new(Cursor::new(&mut bytes[..]), FsOptions::new())?;
    let root = volume.root_dir();
    ["EFI", "EFI/BOOT", "EFI/Linux", "loader"].iter().try_for_each(|path| root.create_dir(path).map(drop))?;
    // The menu is not shown, and nobody edits what is booted.
    let settings = b"timeout 0\neditor no\n";
    let files: [(&str, &[u8]); 3] = [
        ("EFI/BOOT/BOOTX64.EFI", boot_manager),
        ("EFI/Linux/petrel-1.efi", kernel),
        ("loader/loader.conf", settings),
    ];
    for (path, contents) in files {
        root.create_file(path)?.write_all(contents)?;
    }
    drop(root);
    volume.unmount()?;
    Ok(bytes)
}

fn partition(file: &File, system_mib: u64) -> Result<(), Box<dyn std::error::Error>> {
    let sectors = file.metadata()?.len() / SECTOR_BYTES;
    let mut device = file.try_clone()?;
    let protected = u32::try_from(sectors - 1)?;
    ProtectiveMBR::with_lb_size(protected).overwrite_lba0(&mut device)?;
    let config = gpt::GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(device, Some(DISK))?;
    let entry = |guid, part_type_guid, name: &str, from_mib: u64, mib: u64| Partition {
        part_type_guid,
        part_guid: guid,
        first_lba: from_mib * MIB / SECTOR_BYTES,
        last_lba: (from_mib + mib) * MIB / SECTOR_BYTES - 1,
        flags: 0,
        name: name.into(),
    };
    table.update_partitions(BTreeMap::from([
        (1, entry(SYSTEM, EFI, "petrel-system", 1, system_mib)),
        (2, entry(SEAL, LINUX_FS, "petrel-seal", 1 + system_mib, 1)),
    ]))?;
    table.write()?;
    Ok(())
}
