//! From ticks of a counter to nanoseconds.

const NSEC_PER_SEC: u128 = 1_000_000_000;

/// Converts ticks of a counter to nanoseconds: `ticks * multiplier / 2^shift`, without a division at run time.
#[derive(Clone, Copy, Debug)]
pub struct TickRate {
    multiplier: u64,
    shift: u32,
}

impl TickRate {
    /// The rate of a counter of `frequency_hz`, or nothing where that is zero.
    ///
    /// The shift is the largest whose multiplier fits 64 bits, at least 34: the error is below one part in 2^60
    /// for gigahertz counters.
    pub fn of(frequency_hz: u64) -> Option<Self> {
        let mut multiplier = (NSEC_PER_SEC << 64).checked_div(frequency_hz.into())?;
        let mut shift = 64;
        loop {
            if let Ok(multiplier) = u64::try_from(multiplier) {
                return Some(Self { multiplier, shift });
            }
            multiplier >>= 1;
            shift -= 1;
        }
    }

    /// What `ticks` amount to in nanoseconds; [`u64::MAX`], 584 years, when it is more.
    pub fn nanoseconds(self, ticks: u64) -> u64 {
        // Two factors below 2^64: the product fits.
        let product = u128::from(ticks) * u128::from(self.multiplier);
        u64::try_from(product >> self.shift).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_rate_is_exact_over_a_century() {
        for frequency_hz in [1, 999, 19_200_000, 1_000_000_000, 2_099_998_000, 3_000_000_000, 5_700_000_001] {
            let rate = TickRate::of(frequency_hz).unwrap();
            for seconds in [0, 1, 60, 86_400, 3_155_760_000] {
                let Some(ticks) = frequency_hz.checked_mul(seconds) else { continue };
                let expected_ns = seconds * 1_000_000_000;
                let ns = rate.nanoseconds(ticks);
                assert!(expected_ns - ns <= 5, "{frequency_hz} Hz, {seconds} s: {ns} ns");
            }
        }
    }

    #[test]
    fn a_tick_rate_never_goes_back() {
        let rate = TickRate::of(2_400_000_001).unwrap();
        for ticks in (0..5_000).chain(u64::MAX - 5_000..u64::MAX) {
            assert!(rate.nanoseconds(ticks) <= rate.nanoseconds(ticks + 1));
        }
    }

    #[test]
    fn the_slowest_and_the_fastest_counter_do_not_overflow() {
        assert_eq!(TickRate::of(1).unwrap().nanoseconds(u64::MAX), u64::MAX);
        assert_eq!(TickRate::of(u64::MAX).unwrap().nanoseconds(u64::MAX), 999_999_999);
        assert!(TickRate::of(0).is_none());
    }
}
