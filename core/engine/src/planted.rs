//! Faults that are planted to prove that the simulator's checkers find them. Without the feature `planted` none
//! can be chosen and nothing is left of them.
//!
//! The choice is the program's, not an engine's, so that a fault can be planted in any room.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Planted {
    /// What was started for a create that was refused is not ended.
    ForgetOrphan = 1,
    /// The end of a monitor is not taken notice of, now and then.
    DropEvent,
    /// The memory of a unikernel that has ended stays taken.
    KeepMemory,
    /// Now and then a request has its answer twice.
    AnswerTwice,
    /// The taps of a create that failed stay.
    LeakTaps,
    /// A unikernel is said to be destroyed as soon as it is killed.
    DestroyEarly,
    /// Streams go on however much is queued.
    IgnoreCredit,
    /// A name is given though it is taken.
    NameTwice,
    /// What follows from a record leaves before the record is on the disk.
    SkipWriteAhead,
    /// Policies count what lies right below their path, and nothing deeper.
    CountExactPath,
    /// What is started again is started twice, now and then.
    RestartTwice,
    /// What happened does not get into the record, now and then.
    DropRecordedEvent,
    /// The whole state goes out to operators with a scope.
    ExportBeyondScope,
}

impl Planted {
    /// All of them.
    #[cfg(feature = "planted")]
    pub const ALL: &[Self] = &[
        Self::ForgetOrphan,
        Self::DropEvent,
        Self::KeepMemory,
        Self::AnswerTwice,
        Self::LeakTaps,
        Self::DestroyEarly,
        Self::IgnoreCredit,
        Self::NameTwice,
        Self::SkipWriteAhead,
        Self::CountExactPath,
        Self::RestartTwice,
        Self::DropRecordedEvent,
        Self::ExportBeyondScope,
    ];
}

#[cfg(feature = "planted")]
static CHOSEN: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Plants a fault, or none, in all engines of this program.
#[cfg(feature = "planted")]
pub fn plant(fault: Option<Planted>) {
    CHOSEN.store(fault.map_or(0, |fault| fault as u8), core::sync::atomic::Ordering::Relaxed);
}

/// Whether this fault is planted.
#[cfg(feature = "planted")]
pub(crate) fn is(fault: Planted) -> bool {
    CHOSEN.load(core::sync::atomic::Ordering::Relaxed) == fault as u8
}

/// Whether this fault is planted: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Planted) -> bool {
    false
}
