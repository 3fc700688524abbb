//! Bytes that wait: appended at the back, taken from the front.

use alloc::vec::Vec;

/// What an empty queue may keep allocated, in bytes.
const IDLE_CAPACITY_MAX: usize = 4 * 1024;
/// Taken bytes are moved over once there are so many of them.
const COMPACT_BYTES_MIN: usize = 32 * 1024;

/// A queue of bytes whose content is always one slice. An idle one holds almost no memory.
#[derive(Default)]
pub struct ByteQueue {
    bytes: Vec<u8>,
    taken: usize,
}

impl ByteQueue {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that waits, the oldest first.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// All that waits, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends what `write` puts into the first bytes of a space of `space` bytes and counts.
    pub fn push_with<E>(
        &mut self,
        space: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.resize(start + space, 0);
        let written = write(&mut self.bytes[start..]);
        self.bytes.truncate(start + written.as_ref().map_or(0, |count| (*count).min(space)));
        written.map(|_| ())
    }

    /// The vector to append to; what is in it must stay.
    pub fn back(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes `count` bytes, or all if fewer wait, off the front.
    pub fn take(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.bytes.len());
        if self.is_empty() {
            self.taken = 0;
            self.bytes.clear();
            if self.bytes.capacity() > IDLE_CAPACITY_MAX {
                self.bytes = Vec::new();
            }
        } else if self.taken >= COMPACT_BYTES_MIN && self.taken >= self.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let mut queue = ByteQueue::default();
        let mut expected = (0..=255u8).cycle();
        let mut sent = (0..=255u8).cycle();
        for round in 1..200 {
            let bytes: Vec<u8> = sent.by_ref().take(round * 7).collect();
            queue.push(&bytes);
            let count = (round * 5).min(queue.len());
            assert!(queue.as_slice()[..count].iter().copied().eq(expected.by_ref().take(count)));
            queue.take(count);
        }
        let count = queue.len();
        assert!(queue.as_slice().iter().copied().eq(expected.take(count)));
    }

    #[test]
    fn a_drained_queue_gives_its_memory_back() {
        let mut queue = ByteQueue::default();
        queue.push(&vec![1; 100_000]);
        queue.take(200_000);
        assert!(queue.is_empty());
        assert!(queue.bytes.capacity() <= IDLE_CAPACITY_MAX);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let mut queue = ByteQueue::default();
        queue.push(b"ab");
        assert_eq!(queue.push_with(10, |_| Err(())), Err(()));
        assert_eq!(
            queue.push_with(10, |space| {
                space[0] = b'c';
                Ok::<_, ()>(1)
            }),
            Ok(())
        );
        assert_eq!(queue.as_slice(), b"abc");
    }
}
