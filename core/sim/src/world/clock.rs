//! The clocks: one that only goes on, one that people set.

use petrel_engine::Now;

use crate::random::Random;

/// 1 January 2026, in milliseconds since 1970.
pub const WALL_START_MS: u64 = 1_767_225_600_000;

/// A day, in milliseconds.
pub const DAY_MS: u64 = 86_400_000;

/// The time.
pub struct Clock {
    /// As the engine is told it.
    pub now: Now,
    /// How far the wall clock has been set ahead, in milliseconds.
    ahead_ms: u64,
}

impl Clock {
    /// The beginning.
    pub fn new() -> Self {
        let mut clock = Self { now: Now::default(), ahead_ms: WALL_START_MS };
        clock.pass(1_000_000_000);
        clock
    }

    /// Time passes.
    pub fn pass(&mut self, ns: u64) {
        self.now.monotonic_ns += ns;
        self.now.wall_ms = self.ahead_ms + self.now.monotonic_ns / 1_000_000;
    }

    /// Somebody sets the wall clock, by up to a day in either direction.
    pub fn set_wall(&mut self, random: &mut Random) {
        let most = *random.pick(&[10, 10_000, DAY_MS]);
        self.ahead_ms = (self.ahead_ms - most) + random.below(2 * most);
        self.pass(0);
    }

    /// Monotonic nanoseconds.
    pub fn ns(&self) -> u64 {
        self.now.monotonic_ns
    }
}
