//! The volumes, as the records tell them, and what the shim has told of their files.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use petrel_wire::{Name, operator::Held, shim::InstanceId};
use serde::{Deserialize, Serialize};

/// A change to the volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VolumeRecord {
    /// A volume is to be: its name and its space are taken from here on.
    Creating { name: Name, bytes: u64 },
    /// It is there, and stays.
    Kept(Name),
    /// It has this size, or is to have it.
    Resized { name: Name, bytes: u64 },
    /// It is to be deleted.
    Removing(Name),
    /// Nothing of it is left.
    Removed(Name),
}

impl VolumeRecord {
    /// Which volume it is about.
    pub fn name(&self) -> &Name {
        match self {
            Self::Creating { name, .. } | Self::Resized { name, .. } => name,
            Self::Kept(name) | Self::Removing(name) | Self::Removed(name) => name,
        }
    }
}

/// A volume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub bytes: u64,
    pub phase: Phase,
    /// What the shim told last of its file. Not recorded, as are the rest.
    pub file: File,
    /// Another one whenever what is read of it need not go with what was read before.
    pub edition: u64,
    /// The unikernel that had it last.
    pub last_user: Option<InstanceId>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Creating,
    Kept,
    Removing,
}

/// What is known of a volume's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Untold,
    There { disk_bytes: u64 },
    Missing,
}

/// All volumes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    volumes: BTreeMap<Name, Volume>,
    /// The sum of their sizes.
    bytes: u64,
    /// Counts the editions of all.
    editions: u64,
}

impl Book {
    /// Makes a change. One about a volume that is not there changes nothing.
    pub fn apply(&mut self, record: VolumeRecord) {
        match record {
            VolumeRecord::Creating { name, bytes } => {
                self.remove(&name);
                let (phase, file) = (Phase::Creating, File::Untold);
                self.bytes = self.bytes.saturating_add(bytes);
                self.editions += 1;
                let edition = self.editions;
                self.volumes.insert(name, Volume { bytes, phase, file, edition, last_user: None });
            }
            VolumeRecord::Kept(name) => {
                self.set_phase(&name, Phase::Kept);
                // What was told before of a file of this name was told of another.
                if let Some(volume) = self.volumes.get_mut(&name) {
                    volume.file = File::Untold;
                }
            }
            VolumeRecord::Removing(name) => self.set_phase(&name, Phase::Removing),
            VolumeRecord::Resized { name, bytes } => {
                if let Some(volume) = self.volumes.get_mut(&name) {
                    self.bytes = self.bytes.saturating_sub(volume.bytes).saturating_add(bytes);
                    volume.bytes = bytes;
                }
            }
            VolumeRecord::Removed(name) => self.remove(&name),
        }
    }

    fn set_phase(&mut self, name: &Name, phase: Phase) {
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.phase = phase;
        }
    }

    fn remove(&mut self, name: &Name) {
        if let Some(volume) = self.volumes.remove(name) {
            self.bytes = self.bytes.saturating_sub(volume.bytes);
        }
    }

    /// What takes `record` back if it could not be made durable. Ask before it is applied.
    pub fn undo(&self, record: &VolumeRecord) -> Option<VolumeRecord> {
        match record {
            VolumeRecord::Creating { name, .. } => Some(VolumeRecord::Removed(name.clone())),
            VolumeRecord::Removing(name) => {
                let kept = self.get(name).is_some_and(|volume| volume.phase == Phase::Kept);
                kept.then(|| VolumeRecord::Kept(name.clone()))
            }
            // What has happened on the host has happened; a size that was not given is taken back by who asked for it.
            VolumeRecord::Kept(_) | VolumeRecord::Resized { .. } | VolumeRecord::Removed(_) => None,
        }
    }

    /// The records that make a book like this one.
    pub fn records(&self) -> impl Iterator<Item = VolumeRecord> {
        self.volumes.iter().flat_map(|(name, volume)| {
            let second = match volume.phase {
                Phase::Creating => None,
                Phase::Kept => Some(VolumeRecord::Kept(name.clone())),
                Phase::Removing => Some(VolumeRecord::Removing(name.clone())),
            };
            let bytes = volume.bytes;
            core::iter::once(VolumeRecord::Creating { name: name.clone(), bytes }).chain(second)
        })
    }

    /// Whether what is counted is what a count gives.
    #[cfg(feature = "inspect")]
    pub fn audit(&self) -> bool {
        self.bytes == self.volumes.values().fold(0, |sum: u64, volume| sum.saturating_add(volume.bytes))
    }

    pub fn get(&self, name: &Name) -> Option<&Volume> {
        self.volumes.get(name)
    }

    /// What is read of it from here on need not go with what was read before.
    pub fn new_edition(&mut self, name: &Name) {
        self.editions += 1;
        if let Some(volume) = self.volumes.get_mut(name) {
            volume.edition = self.editions;
        }
    }

    /// What is not recorded may be changed at will.
    pub fn get_mut(&mut self, name: &Name) -> Option<&mut Volume> {
        self.volumes.get_mut(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.volumes.len()
    }

    /// The sum of all sizes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What policies count of a volume.
    pub fn held(&self, name: &Name) -> Option<Held> {
        self.get(name).map(|volume| space(volume.bytes))
    }

    /// Those with names greater than `after`, in the order of their names.
    pub fn after(&self, after: Option<&Name>) -> impl Iterator<Item = (&Name, &Volume)> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(&**after));
        self.volumes.range::<str, _>((from, Bound::Unbounded))
    }
}

/// What policies count of so many bytes.
pub(crate) fn space(bytes: u64) -> Held {
    Held { volume_mib: bytes.div_ceil(1 << 20), ..Held::default() }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn book() -> Book {
        let mut book = Book::default();
        for (volume, bytes) in [("acme", 1), ("acme-b:x", 2), ("acme:a", 4), ("acme:b:c", 8), ("b", 16)] {
            book.apply(VolumeRecord::Creating { name: name(volume), bytes });
        }
        book
    }

    #[test]
    fn policies_count_whole_mebibytes() {
        assert_eq!(book().bytes(), 31);
        assert_eq!([0, 1, 1 << 20, (1 << 20) + 1].map(|bytes| space(bytes).volume_mib), [0, 1, 1, 2]);
    }

    #[test]
    fn its_records_make_the_same_book_again() {
        let mut first = book();
        for record in [
            VolumeRecord::Kept(name("acme")),
            VolumeRecord::Resized { name: name("acme"), bytes: 100 },
            VolumeRecord::Kept(name("b")),
            VolumeRecord::Removing(name("b")),
            VolumeRecord::Removed(name("acme:a")),
        ] {
            first.apply(record);
        }
        let mut second = Book::default();
        first.records().for_each(|record| second.apply(record));
        let all = |book: &Book| {
            book.after(None).map(|(name, v)| (name.clone(), v.bytes, v.phase)).collect::<Vec<_>>()
        };
        assert_eq!((all(&first), first.bytes()), (all(&second), second.bytes()));
        assert_eq!(first.bytes(), 100 + 2 + 8 + 16);
    }

    /// A read of an earlier volume of that name fails while it is made.
    #[test]
    fn a_volume_that_was_made_is_not_missing_because_an_earlier_one_is() {
        let mut book = book();
        book.get_mut(&name("acme")).unwrap().file = File::Missing;
        book.apply(VolumeRecord::Kept(name("acme")));
        assert_eq!(book.get(&name("acme")).unwrap().file, File::Untold);
    }
}
