//! Random numbers from the CPU.

use crate::limits::RANDOM_TRIES;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdrand64_step, _rdseed64_step};

/// Fills `bytes` with random numbers: from the CPU's entropy source (RDSEED) where it has one that keeps up, else
/// from the generator that the source seeds (RDRAND).
///
/// # Panics
/// When the CPU has neither instruction, or both fail again and again: there is no other source in a guest, and
/// to go on without would be to make keys that can be guessed.
pub fn fill(bytes: &mut [u8]) {
    let source = Source::detect();
    for chunk in bytes.chunks_mut(8) {
        let random =
            source.next().expect("the CPU's random number generator does not answer: it is out of order");
        chunk.copy_from_slice(&random.to_ne_bytes()[..chunk.len()]);
    }
}

/// Which instructions the CPU has.
struct Source {
    rdseed: bool,
    rdrand: bool,
}

impl Source {
    fn detect() -> Self {
        let has_leaf_7 = __cpuid(0).eax >= 7;
        let source = Self {
            rdseed: has_leaf_7 && __cpuid_count(7, 0).ebx & (1 << 18) != 0,
            rdrand: __cpuid(1).ecx & (1 << 30) != 0,
        };
        assert!(
            source.rdseed || source.rdrand,
            "this CPU has neither RDSEED nor RDRAND, and a guest has no other source of random numbers: \
             run it on a CPU (or with a CPU model) that has one of them"
        );
        source
    }

    fn next(&self) -> Option<u64> {
        // SAFETY: CPUID says that the CPU has the instruction.
        let seed = || unsafe { rdseed() };
        // SAFETY: as above.
        let rand = || unsafe { rdrand() };
        self.rdseed.then(seed).flatten().or_else(|| self.rdrand.then(rand).flatten())
    }
}

/// # Safety
/// The CPU must have RDSEED.
#[target_feature(enable = "rdseed")]
unsafe fn rdseed() -> Option<u64> {
    retry(|value| _rdseed64_step(value))
}

/// # Safety
/// The CPU must have RDRAND.
#[target_feature(enable = "rdrand")]
unsafe fn rdrand() -> Option<u64> {
    retry(|value| _rdrand64_step(value))
}

/// The first number that `step` gives with success. Broken CPUs are known to claim success with all bits clear
/// or all bits set; a good one loses nothing by a second try.
fn retry(step: impl Fn(&mut u64) -> i32) -> Option<u64> {
    (0..RANDOM_TRIES).find_map(|_| {
        let mut value = 0;
        let good = step(&mut value) == 1 && value != 0 && value != u64::MAX;
        if !good {
            core::hint::spin_loop();
        }
        good.then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_claims_success_with_a_constant_is_not_believed() {
        for constant in [0, u64::MAX] {
            let stuck = |value: &mut u64| {
                *value = constant;
                1
            };
            assert_eq!(retry(stuck), None);
        }
    }

    #[test]
    fn a_generator_that_runs_dry_for_a_while_is_waited_for() {
        let calls = core::cell::Cell::new(0);
        let slow = |value: &mut u64| {
            calls.set(calls.get() + 1);
            *value = 42;
            i32::from(calls.get() > 5)
        };
        assert_eq!(retry(slow), Some(42));
        assert_eq!(calls.get(), 6);
    }

    #[test]
    fn every_length_is_filled_to_its_end() {
        for len in 0..40 {
            // A byte may be zero by chance; that each of them stays zero 32 times is no chance.
            let mut seen = [0_u8; 40];
            for _ in 0..32 {
                let mut bytes = [0; 40];
                fill(&mut bytes[..len]);
                seen.iter_mut().zip(bytes).for_each(|(seen, byte)| *seen |= byte);
            }
            assert!(seen[..len].iter().all(|&byte| byte != 0) && seen[len..].iter().all(|&byte| byte == 0));
        }
    }
}
