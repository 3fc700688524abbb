//! The block device "state". A write is on it when it has returned; one that is cut short by a crash leaves some of its
//! blocks as they were, and one of them in part.

use petrel_engine::StateDevice;

use crate::random::Random;

/// A block device.
pub struct Disk {
    bytes: Vec<u8>,
    block_bytes: usize,
    /// Nothing can be read or written.
    pub failing: bool,
}

impl Disk {
    /// An empty one.
    pub fn new(bytes: usize, block_bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], block_bytes, failing: false }
    }

    /// What the engine is told of it.
    pub fn device(&self, seed: u64) -> StateDevice {
        StateDevice { bytes: self.bytes.len() as u64, block_bytes: self.block_bytes, seed }
    }

    /// All that is on it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fills `data` from what is at `offset`.
    ///
    /// # Errors
    /// If nothing can be read.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), &'static str> {
        if self.failing {
            return Err("it fails");
        }
        self.look(offset, data)
    }

    /// What is really there.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn look(&self, offset: u64, data: &mut [u8]) -> Result<(), &'static str> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let whole =
            offset.is_multiple_of(self.block_bytes as u64) && data.len().is_multiple_of(self.block_bytes);
        let place = self.bytes.get(from..from.saturating_add(data.len())).filter(|_| whole);
        place.map(|place| data.copy_from_slice(place)).ok_or("no whole blocks of this device")
    }

    /// Writes whole blocks. Returns whether they are there to stay; if not, anything may be.
    pub fn write(&mut self, offset: u64, data: &[u8], random: &mut Random) -> bool {
        if self.failing {
            self.tear(offset, data, random);
            return false;
        }
        self.place(offset, data.len()).copy_from_slice(data);
        true
    }

    /// A write that a crash cuts short: the first blocks of it, or any of them, and of one block a part.
    pub fn tear(&mut self, offset: u64, data: &[u8], random: &mut Random) {
        let block_bytes = self.block_bytes;
        let blocks = data.len() / block_bytes;
        let (in_order, cut) = (random.chance(500), random.index(blocks + 1));
        let place = self.place(offset, data.len());
        for (index, (old, new)) in place.chunks_mut(block_bytes).zip(data.chunks(block_bytes)).enumerate() {
            if index == cut {
                let bytes = random.index(block_bytes);
                old[..bytes].copy_from_slice(&new[..bytes]);
            } else if if in_order { index < cut } else { random.chance(500) } {
                old.copy_from_slice(new);
            }
        }
    }

    fn place(&mut self, offset: u64, bytes: usize) -> &mut [u8] {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let to = from.saturating_add(bytes).min(self.bytes.len());
        &mut self.bytes[from..to]
    }
}
