//! What is shown at rest is what there is, and is as it was wished.

use petrel_wire::{
    ExitStatus,
    operator::{State, UnikernelInfo, Wish},
};

use super::{Checked, Violation, ensure, starts_again};
use crate::host::Host;

/// Whether what is shown of a unikernel is what the host has.
pub fn shows_truth(shown: &UnikernelInfo, running: bool, host: &Host) -> Checked {
    let unikernel = &shown.unikernel;
    let name = &unikernel.name;
    let wished = match unikernel.state {
        State::Stopped => Wish::Stopped,
        _ => Wish::Running,
    };
    ensure(unikernel.wish == wished, || {
        format!("{name} is to be {:?}, and is {:?}", unikernel.wish, unikernel.state)
    })?;
    let is_up = matches!(unikernel.state, State::Running | State::Ready);
    ensure(is_up == running, || format!("{name} is shown as {:?}; it runs: {running}", unikernel.state))?;
    match unikernel.state {
        State::Ended(status) => is_final(shown, status, host),
        State::Waiting => {
            ensure(!shown.watching.waits_for.is_empty(), || format!("{name} waits for nothing"))
        }
        State::Failed => ensure(shown.watching.failure.is_some(), || format!("{name} fails for no reason")),
        State::Running | State::Ready | State::Stopped | State::CrashLoop => Ok(()),
        State::Starting | State::Stopping | State::BackOff => {
            Err(Violation(format!("{name} is {:?} at rest", unikernel.state)))
        }
    }
}

/// It has ended as is said, and its policy lets it rest.
fn is_final(shown: &UnikernelInfo, status: ExitStatus, host: &Host) -> Checked {
    let name = &shown.unikernel.name;
    let truth = host.end_of(name);
    let is_true = status == ExitStatus::Unknown || truth.is_none_or(|truth| truth == status);
    ensure(is_true, || format!("{name} is shown as ended by {status}, and it was {truth:?}"))?;
    let restart = &shown.watching.supervision.restart;
    ensure(!starts_again(restart, status), || format!("{name} has ended by {status} in spite of {restart:?}"))
}
