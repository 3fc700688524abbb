//! The connection between control plane and shim. It delivers in order and whole frames, at any time; when one
//! side drops it, the other may still read some of what was sent before, and then its end.

use std::collections::VecDeque;

use crate::random::Random;

/// The link.
#[derive(Default)]
pub struct Link {
    /// Whether the control plane takes it for open.
    pub plane_has: bool,
    /// Whether the shim takes it for open.
    pub shim_has: bool,
    /// When the control plane tries again to connect, in monotonic nanoseconds.
    pub retry_ns: u64,
    /// Nothing gets through before this moment.
    stalled_until_ns: u64,
    to_shim: Way,
    to_plane: Way,
}

/// One direction.
#[derive(Default)]
struct Way {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Way {
    fn push(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// The sender is gone: what it sent last may be lost.
    fn cut(&mut self, random: &mut Random) {
        self.frames.truncate(random.index(self.frames.len() + 1));
        self.bytes = self.frames.iter().map(Vec::len).sum();
    }
}

impl Link {
    /// A new connection, in the place of what there was.
    pub fn open(&mut self) {
        (self.plane_has, self.shim_has) = (true, true);
        self.to_shim.clear();
        self.to_plane.clear();
    }

    /// The control plane has dropped it, or is no more.
    pub fn drop_plane_end(&mut self, retry_ns: u64, random: &mut Random) {
        self.retry_ns = retry_ns;
        if std::mem::take(&mut self.plane_has) {
            self.to_plane.clear();
            self.to_shim.cut(random);
        }
        if !self.shim_has {
            self.to_shim.clear();
        }
    }

    /// The shim has dropped it, or is no more.
    pub fn drop_shim_end(&mut self, random: &mut Random) {
        if std::mem::take(&mut self.shim_has) {
            self.to_shim.clear();
            self.to_plane.cut(random);
        }
    }

    /// Nothing gets through for a while.
    pub fn stall(&mut self, until_ns: u64) {
        self.stalled_until_ns = self.stalled_until_ns.max(until_ns);
    }

    /// Whether nothing gets through now.
    pub fn is_stalled(&self, now_ns: u64) -> bool {
        now_ns < self.stalled_until_ns
    }

    /// All stalls are over.
    pub fn unstall(&mut self) {
        self.stalled_until_ns = 0;
    }

    /// The control plane sends a frame.
    pub fn send_to_shim(&mut self, frame: Vec<u8>) {
        self.to_shim.push(frame);
    }

    /// The shim sends a frame.
    pub fn send_to_plane(&mut self, frame: Vec<u8>) {
        if self.plane_has {
            self.to_plane.push(frame);
        }
    }

    /// What the shim reads next.
    pub fn next_for_shim(&mut self) -> Option<Vec<u8>> {
        self.to_shim.pop()
    }

    /// What the control plane reads next.
    pub fn next_for_plane(&mut self) -> Option<Vec<u8>> {
        self.to_plane.pop()
    }

    /// The bytes that wait for the control plane.
    pub fn queued_for_plane(&self) -> usize {
        self.to_plane.bytes
    }

    /// The bytes that wait for the shim.
    pub fn queued_for_shim(&self) -> usize {
        self.to_shim.bytes
    }

    /// Whether all that was sent has been read.
    pub fn is_quiet(&self) -> bool {
        self.to_shim.frames.is_empty() && self.to_plane.frames.is_empty()
    }

    /// Whether the shim has read all that the control plane sent before it dropped the link.
    pub fn ended_for_shim(&self) -> bool {
        self.shim_has && !self.plane_has && self.to_shim.frames.is_empty()
    }

    /// Whether the control plane has read all that the shim sent before it dropped the link.
    pub fn ended_for_plane(&self) -> bool {
        self.plane_has && !self.shim_has && self.to_plane.frames.is_empty()
    }
}
