//! What a simulation has to be to say anything: the same each time, and everywhere.

use std::collections::BTreeSet;

use petrel_sim::{Event, Options, run, run_many};

#[test]
fn the_same_seed_gives_the_same_history() {
    let options = Options { steps: 5000, without: Vec::new() };
    for seed in [3, 1_000_000] {
        let [first, second] = [(); 2].map(|()| run(seed, &options, true).expect("a world that holds"));
        assert!(first.trace.len() > 1000);
        assert!(first == second);
    }
}

#[test]
fn what_is_left_out_of_a_world_does_not_happen_there() {
    let all = Event::ALL.iter().copied();
    let without: Vec<_> = all.filter(|event| !event.is_essential()).collect();
    let options = Options { steps: 2000, without: without.clone() };
    let counts = run_many(0..10, &options).expect("worlds that hold").counts;
    assert!(without.iter().all(|event| !counts.contains_key(event.name())));
    assert!(counts["Created"] > 0);
}

#[test]
fn worlds_get_everywhere() {
    let options = Options { steps: 5000, without: Vec::new() };
    let counts = run_many(0..100, &options).expect("worlds that hold").counts;
    let answers = "CertRevoked Console ConsoleBegan ConsoleEnd ConsoleMissed Consoles Created Destroyed Download Ended Events EventsEnd \
        Generation Hello Host Image ImageStored ImageWanted Info Listed Policies PolicyRemoved PolicySet Revocations Started StateData StateExported StateImported StateWanted Stats Stopped Updated Volume";
    let refusals = "Arguments BridgeUnknown CpuUnknown DeviceMissing DeviceTwice DeviceUnknown DigestMismatch \
        FrameTooLong Full(Requests) Full(Uploads) HelloExpected IdInUse ImageSize Malformed Memory \
        NameTaken NoMonitor NoSuchImage NoSuchUnikernel NotAnImage ReadOnly ShimAway StateFile StateInUse \
        UnexpectedChunk Volume AfterUnknown BeingDestroyed BridgePolicy Certificate CpuPolicy NoSuchGeneration NoSuchPolicy OutsideScope OverPolicy RightMissing \
        RolledBack Shim Superseded Supervision";
    let faults = "both-crash disk-fails guest-hangs host-fails link-breaks link-stalls plane-crashes plane-crashes-midway \
        power-fails shim-crashes shim-crashes-midway time-leaps wall-jumps";
    let refusals = refusals.split_whitespace().map(|refusal| format!("Refused({refusal})"));
    let others = answers.split_whitespace().chain(faults.split_whitespace()).map(String::from);
    let never: BTreeSet<_> = refusals.chain(others).filter(|what| !counts.contains_key(what)).collect();
    assert!(never.is_empty(), "never met: {never:?}");
}
