//! The volumes: sparse files of one folder, each for one monitor at a time. Names and sizes are durable before that is
//! answered; what is written is durable once it is synced or renamed.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::{collections::BTreeMap, fs, fs::File, io, path::PathBuf};

use petrel_shim::{check::Refusal, ledger::Ledger};
use petrel_wire::shim::{Fault, Reply, VolumeFile, VolumeOp};
use petrel_wire::{Blob, List, VolumeName, limits::CHUNK_BYTES_MAX};
use rustix::fs::{Mode, OFlags, SeekFrom, ioctl_ficlone, open, seek};
use rustix::io::Errno;

/// The folder of volumes.
pub struct Volumes(pub PathBuf);

impl Volumes {
    /// What is in the folder, and the size of each.
    pub fn list(&self) -> io::Result<BTreeMap<VolumeName, u64>> {
        let files = fs::read_dir(&self.0)?.flatten().filter_map(|entry| {
            let file = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((entry.file_name().to_str()?.parse().ok()?, file.len()))
        });
        Ok(files.collect())
    }

    /// Opens one, or makes a new one. A link to elsewhere is none.
    pub fn open(&self, volume: &VolumeName, is_new: bool) -> Result<File, Refusal> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let more = if is_new { OFlags::CREATE | OFlags::EXCL } else { OFlags::empty() };
        match open(self.0.join(&**volume), flags | more, Mode::RUSR | Mode::WUSR) {
            Err(Errno::NOENT | Errno::LOOP) => Err(Fault::NoVolume.into()),
            opened => Ok(opened.map_err(io::Error::from)?.into()),
        }
    }

    pub fn carry_out(&self, op: VolumeOp, ledger: &mut Ledger) -> Result<Reply, Refusal> {
        let sizes = &mut ledger.volume_bytes;
        let file = |volume| self.open(volume, false);
        match op {
            VolumeOp::Create { volume, bytes } | VolumeOp::Resize { volume, bytes } => {
                let is_new = !sizes.contains_key(&volume);
                let file = self.open(&volume, is_new)?;
                let sized = file.set_len(bytes).and_then(|()| file.sync_all());
                sized.inspect_err(|_| drop(is_new.then(|| fs::remove_file(self.0.join(&*volume)))))?;
                sizes.insert(volume, bytes);
            }
            VolumeOp::Remove(volume) => {
                fs::remove_file(self.0.join(&*volume))?;
                sizes.remove(&volume);
            }
            VolumeOp::Rename { from, to } => {
                file(&from)?.sync_data()?;
                fs::rename(self.0.join(&*from), self.0.join(&*to))?;
                sizes.remove(&from).map(|bytes| sizes.insert(to, bytes));
            }
            VolumeOp::Clone { from, to } => {
                ioctl_ficlone(file(&to)?, file(&from)?).map_err(io::Error::from)?;
            }
            VolumeOp::Read { volume, offset } => {
                let (file, mut data) = (file(&volume)?, [0; CHUNK_BYTES_MAX]);
                let offset = match seek(&file, SeekFrom::Data(offset)) {
                    Err(Errno::NXIO) => file.metadata()?.len(), // nothing but holes
                    found => found.map_err(io::Error::from)?,
                };
                let count = file.read_at(&mut data, offset)?;
                let data = Blob::try_from(&data[..count]).unwrap_or_default();
                return Ok(Reply::Extent { offset, data });
            }
            VolumeOp::Write { volume, offset, data } => {
                return Ok(file(&volume)?.write_all_at(&data, offset).map(|()| Reply::Done)?);
            }
            VolumeOp::Sync(volume) => file(&volume)?.sync_data()?,
            VolumeOp::List { after } => {
                *sizes = self.list()?; // somebody may have put one there by hand
                let following = sizes.iter().filter(|(volume, _)| Some(*volume) > after.as_ref());
                let (page, more) = List::page(following, |(volume, &bytes)| {
                    let file = fs::symlink_metadata(self.0.join(&**volume));
                    let disk_bytes = file.map_or(0, |file| 512 * file.blocks());
                    VolumeFile { volume: volume.clone(), bytes, disk_bytes }
                });
                return Ok(Reply::Volumes { page, more });
            }
        }
        Ok(File::open(&self.0)?.sync_all().map(|()| Reply::Done)?)
    }
}
