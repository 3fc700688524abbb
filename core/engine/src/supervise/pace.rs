//! How long a unikernel that ends again and again is left alone before it is started once more.

use petrel_wire::Name;
use sha2::{Digest as _, Sha256};

use crate::limits::{BACK_OFF_MAX_NS, BACK_OFF_MIN_NS, QUICK_ENDS_MAX};

/// Whether one that has ended so often in a row, soon after it was started, will go on so.
pub(crate) fn is_loop(quick_ends: u32) -> bool {
    quick_ends >= QUICK_ENDS_MAX
}

/// How long to wait after so many quick ends in a row, in nanoseconds: each time twice as long, and the longest once it
/// is a loop. Up to a quarter less, so that what ended together does not start together; how much less follows from
/// the name and the count, since the engine knows no chance.
pub(crate) fn delay_ns(name: &Name, quick_ends: u32) -> u64 {
    let doublings = quick_ends.saturating_sub(1);
    let longest = is_loop(quick_ends) || doublings >= u64::BITS;
    let full_ns = if longest { BACK_OFF_MAX_NS } else { BACK_OFF_MIN_NS << doublings };
    let hash = Sha256::new().chain_update(name.as_bytes()).chain_update(quick_ends.to_le_bytes()).finalize();
    let [low, high, ..]: [u8; 32] = hash.into();
    full_ns - full_ns / 4 * u64::from(u16::from_le_bytes([low, high])) / u64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, format, vec::Vec};

    use super::*;

    #[test]
    fn the_delay_doubles_up_to_the_longest_and_differs_by_name() {
        let name: Name = "web".parse().unwrap();
        for quick_ends in 0..200 {
            let delay = delay_ns(&name, quick_ends);
            let full = match quick_ends {
                0 => BACK_OFF_MIN_NS,
                n if n < QUICK_ENDS_MAX => BACK_OFF_MIN_NS << (n - 1),
                _ => BACK_OFF_MAX_NS,
            };
            assert!((full - full / 4..=full).contains(&delay), "{quick_ends}: {delay}");
        }
        let names: Vec<Name> = (0..50).map(|i| format!("web{i}").parse().unwrap()).collect();
        let delays: BTreeSet<u64> = names.iter().map(|name| delay_ns(name, 3)).collect();
        assert!(delays.len() > 45);
        assert!(names.iter().all(|name| delay_ns(name, 3) == delay_ns(name, 3)));
    }
}
