//! The heap, from the end of the image to the stack, and the stack above it, to the end of memory.

use crate::limits::{FREE_BYTES_MIN, STACK_BYTES};
use core::sync::atomic::{AtomicPtr, Ordering};
use talc::TalcLock;
use talc::source::Manual;

/// The lock is never contended, as there is one CPU and no interrupt; it costs an atomic exchange, and turns
/// an allocation within an allocation, which would be a defect of this crate, into a hang.
#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, Manual> = TalcLock::new(Manual);

/// What lies below the stack. Nothing can be unmapped there, so an overflow shows by its being overwritten.
const CANARY: [u64; 32] = [0x5010_5d0b_e7fa_11ed; 32];

static CANARY_AT: AtomicPtr<[u64; 32]> = AtomicPtr::new(core::ptr::null_mut());

unsafe extern "C" {
    /// The first byte after the image; the linker script's.
    static _end: u8;
}

/// Makes the heap of what is free in a memory of `mem_size` bytes.
///
/// # Safety
/// Called once, by the entry point, and `mem_size` is the tender's: nothing else uses the memory from `_end` to
/// there, but the stack its upper part.
pub unsafe fn init(mem_size: u64) {
    let start = (&raw const _end).addr();
    let end = usize::try_from(mem_size).unwrap_or(0);
    let free_bytes = end.saturating_sub(start);
    assert!(
        free_bytes >= FREE_BYTES_MIN,
        "not enough memory: {mem_size} bytes leave {free_bytes} beside the image, and {FREE_BYTES_MIN} are needed"
    );
    let stack_bytes = STACK_BYTES.min(free_bytes / 2);
    let canary_at = (end - stack_bytes) & !(align_of_val(&CANARY) - 1);
    let canary = canary_at as *mut [u64; 32];
    // SAFETY: aligned, within free memory, and at least FREE_BYTES_MIN / 2 below the little stack used so far.
    unsafe { canary.write_volatile(CANARY) };
    CANARY_AT.store(canary, Ordering::Relaxed);
    // SAFETY: from the image's end to the canary memory is free, and nobody has a pointer into it.
    unsafe { HEAP.lock().claim(start as *mut u8, canary_at - start) }
        .expect("the heap has room for its own tables");
}

/// Ends the guest when its stack has grown into what lies below it.
pub fn check_stack() {
    let canary = CANARY_AT.load(Ordering::Relaxed);
    // SAFETY: init has written it before any of the guest's own code ran, and nobody refers to it.
    let intact = unsafe { canary.read_volatile() } == CANARY;
    assert!(intact, "the stack has overflowed: it has {STACK_BYTES} bytes at most");
}
