//! The proof that the checkers bite: each fault that is planted in the engine is found within a thousand seeds, and
//! without one the same seeds hold.

use petrel_engine::{Planted, plant};
use petrel_sim::{Options, run_many};

/// The choice of a fault is the program's, so this is one test.
#[test]
fn each_planted_fault_is_found_within_a_thousand_seeds() {
    let options = Options { steps: 10_000, without: Vec::new() };
    let mut missed = Vec::new();
    for &fault in Planted::ALL {
        plant(Some(fault));
        match run_many(0..1000, &options) {
            Ok(_) => missed.push(fault),
            Err(failure) => {
                println!("{fault:?}: seed {}, step {}: {}", failure.seed, failure.step, failure.what)
            }
        }
    }
    plant(None);
    assert!(run_many(0..50, &options).is_ok());
    assert!(missed.is_empty(), "not found: {missed:?}");
}
