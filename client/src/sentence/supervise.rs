//! Why a unikernel is not kept as it was asked for.

use petrel_wire::operator::{Refusal, Setback};

use super::{Sentence, say};

/// The sentence for a refusal about keeping the unikernel `name` running.
pub(super) fn supervise(reason: &Refusal, name: &str) -> Sentence {
    match reason {
        Refusal::MonitorUnknown(monitor) => say(
            format!("the monitor \"{monitor}\", which ran {name}, is no longer offered by this host"),
            "one of the host's monitors",
            "see `petrel host` for those, and create it anew with --force",
        ),
        Refusal::NotEnding { seconds } => say(
            format!("{name} was killed and has not ended in {seconds} s"),
            "the host's kernel to let it go",
            "it is done as soon as it has ended: see `petrel ps`, and the host's kernel log",
        ),
        Refusal::AfterUnknown(after) => say(
            format!("{name} cannot be started after \"{after}\", which there is not"),
            "the names of unikernels that are listed",
            "create that one first, or correct --after",
        ),
        Refusal::AfterCycle(after) => say(
            format!("{name} would wait for itself, by way of \"{after}\""),
            "an order in which each can be started",
            "leave one --after out",
        ),
        Refusal::NoSuchGeneration => say(
            format!("{name} has no such generation to go back to"),
            "the number of another generation that is kept",
            "see `petrel history` for those",
        ),
        Refusal::RolledBack { failed, generation, why } => rolled_back(name, *failed, *generation, *why),
        Refusal::Superseded => say(
            format!("another request about {name} came meanwhile"),
            "to be the last who asks",
            "see `petrel info` for what it is now",
        ),
        Refusal::BeingDestroyed => say(
            format!("{name} is being destroyed, and is not gone yet"),
            "a unikernel that is kept, or the host to let it go",
            "it goes on until it is gone: see `petrel info` for what it waits for",
        ),
        // The only one that is left; those of others never come here.
        _ => say(
            "a liveness probe's interval or number of failures, or an update's window, is out of its bounds",
            "at least 1 of each, and a window of at most an hour",
            "correct the option",
        ),
    }
}

/// What a generation did that was given up.
pub(crate) fn setback(why: Setback) -> String {
    match why {
        Setback::NotReady => "was not ready in time".into(),
        Setback::Ended(status) => format!("ended ({status})"),
    }
}

fn rolled_back(name: &str, failed: u32, generation: u32, why: Setback) -> Sentence {
    let what = setback(why);
    say(
        format!("generation {failed} of {name} {what}, so it is generation {generation} again"),
        "a generation that gets ready within the window or, without --ready, runs through it",
        "see `petrel console` for what it wrote",
    )
}
