//! The volumes: sparse files of one folder, each for one monitor at a time. Names and sizes are durable before that is
//! answered; what is written is durable once it is synced or renamed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use petrel_shim::ledger::Ledger;
use petrel_wire::limits::{CHUNK_BYTES_MAX, PAGE_ENTRIES_MAX, VOLUME_COPY_BYTES_MAX};
use petrel_wire::shim::{Reply, VolumeFile, VolumeOp};
use petrel_wire::{Blob, VolumeName};
use rustix::fs::{Mode, OFlags, SeekFrom, copy_file_range, ioctl_ficlone, open, seek};
use rustix::io::Errno;

/// The folder of volumes.
pub struct Volumes(pub PathBuf);

impl Volumes {
    /// What is in the folder, and the size of each.
    pub fn list(&self) -> io::Result<BTreeMap<VolumeName, u64>> {
        let files = fs::read_dir(&self.0)?.filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((entry.file_name().to_str()?.parse().ok()?, metadata.len()))
        });
        Ok(files.collect())
    }

    /// Opens a volume for a monitor.
    pub fn open(&self, volume: &VolumeName) -> io::Result<(PathBuf, OwnedFd)> {
        Ok((self.path(volume), self.file(volume, OFlags::empty())?.into()))
    }

    fn path(&self, volume: &VolumeName) -> PathBuf {
        self.0.join(&**volume)
    }

    /// A volume is a regular file of its folder; a link to elsewhere is none.
    fn file(&self, volume: &VolumeName, more: OFlags) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(open(self.path(volume), flags | more, Mode::RUSR | Mode::WUSR)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::NOENT.into()) }
    }

    pub fn carry_out<P, T, U>(&self, op: VolumeOp, ledger: &mut Ledger<P, T, U>) -> io::Result<Reply> {
        let sizes = &mut ledger.volume_bytes;
        let file = |volume| self.file(volume, OFlags::empty());
        match op {
            VolumeOp::Create { volume, bytes } => {
                let file = self.file(&volume, OFlags::CREATE | OFlags::EXCL)?;
                file.set_len(bytes).inspect_err(|_| drop(fs::remove_file(self.path(&volume))))?;
                sizes.insert(volume, bytes);
                file.sync_all()?;
            }
            VolumeOp::Resize { volume, bytes } => {
                let file = file(&volume)?;
                file.set_len(bytes).and_then(|()| file.sync_all())?;
                sizes.insert(volume, bytes);
            }
            VolumeOp::Remove(volume) => {
                fs::remove_file(self.path(&volume))?;
                sizes.remove(&volume);
            }
            VolumeOp::Rename { from, to } => {
                file(&from)?.sync_data()?;
                fs::rename(self.path(&from), self.path(&to))?;
                sizes.remove(&from).map(|bytes| sizes.insert(to, bytes));
            }
            VolumeOp::Clone { from, to } => ioctl_ficlone(file(&to)?, file(&from)?)?,
            VolumeOp::Copy { from, to, offset } => {
                let (from, to) = (file(&from)?, file(&to)?);
                let end = to.metadata()?.len();
                let mut next = data_from(&from, offset)?.min(end);
                let bytes = (end - next).min(VOLUME_COPY_BYTES_MAX).try_into().unwrap_or(0);
                copy_file_range(&from, Some(&mut next.clone()), &to, Some(&mut next), bytes)?;
                return Ok(Reply::Copied { next });
            }
            VolumeOp::Read { volume, offset } => {
                let file = file(&volume)?;
                let (offset, mut data) = (data_from(&file, offset)?, [0; CHUNK_BYTES_MAX]);
                let count = file.read_at(&mut data, offset)?;
                return Ok(Reply::Extent {
                    offset,
                    data: Blob::try_from(&data[..count]).unwrap_or_default(),
                });
            }
            VolumeOp::Write { volume, offset, data } => {
                return file(&volume)?.write_all_at(&data, offset).map(|()| Reply::Done);
            }
            VolumeOp::Sync(volume) => file(&volume)?.sync_data()?,
            VolumeOp::List { after } => {
                if after.is_none() {
                    *sizes = self.list()?; // what somebody has put there by hand
                }
                return Ok(self.page(after.as_ref(), ledger));
            }
        }
        File::open(&self.0)?.sync_all().map(|()| Reply::Done)
    }

    /// The page of volumes with names greater than `after`.
    fn page<P, T, U>(&self, after: Option<&VolumeName>, ledger: &Ledger<P, T, U>) -> Reply {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut following = ledger.volume_bytes.range((first, Bound::Unbounded));
        let page = following.by_ref().take(PAGE_ENTRIES_MAX).map(|(volume, &bytes)| VolumeFile {
            volume: volume.clone(),
            bytes,
            disk_bytes: fs::symlink_metadata(self.path(volume)).map_or(0, |file| 512 * file.blocks()),
            attached: ledger.volumes.contains(volume),
        });
        let page = page.collect::<Vec<_>>().try_into().unwrap_or_default(); // as many as fit are taken
        Reply::Volumes { page, more: following.next().is_some() }
    }
}

/// Where the first byte from `offset` on is that is in no hole; the size if there is none.
fn data_from(file: &File, offset: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(offset)) {
        Err(Errno::NXIO) => Ok(file.metadata()?.len()),
        found => Ok(found?),
    }
}
