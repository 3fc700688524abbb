//! From the tender's jump to the guest's main function.

use crate::ticks::TickRate;
use crate::{memory, traps};
use core::ffi::CStr;
use hvt_abi::GuestAddr;
use hvt_abi::boot::BootInfo;
use hvt_abi::manifest::{Entry, MAX_ENTRIES, ManifestHeader};
use hvt_abi::note::{Abi1Note, INTERP, OpenBsdNote};
use spin::Once;

#[used]
#[unsafe(link_section = ".interp")]
static INTERPRETER: [u8; 24] = INTERP;

#[used]
#[unsafe(link_section = ".note.solo5.not_openbsd")]
static NOT_OPENBSD: OpenBsdNote = OpenBsdNote::IDENT;

#[used]
#[unsafe(link_section = ".note.solo5.abi")]
static ABI: Abi1Note = Abi1Note::HVT;

/// What the tender has told about this run.
pub struct Info {
    /// The rate of the time-stamp counter.
    pub tick_rate: TickRate,
    /// The command line as it came, without its NUL.
    pub cmdline: &'static [u8],
    /// The manifest, as the tender filled it in.
    pub manifest: &'static [Entry],
}

static INFO: Once<Info> = Once::new();

/// What the tender has told about this run.
///
/// # Panics
/// Before [`_start`] has recorded it, which is before any of the guest's own code.
pub fn info() -> &'static Info {
    INFO.get().expect("the guest has started")
}

/// The manifest, as the tender filled it in.
pub fn manifest() -> &'static [Entry] {
    info().manifest
}

/// The command line as it came.
pub fn cmdline() -> &'static [u8] {
    info().cmdline
}

unsafe extern "Rust" {
    /// The guest's, defined by [`main!`](crate::main).
    safe fn __solo5_main() -> !;
}

/// The entry point. The tender jumps here as C would call it: the argument in rdi, the stack aligned as after a
/// call and at the top of memory, interrupts off, memory identity-mapped, SSE on.
#[unsafe(no_mangle)]
extern "C" fn _start(boot_info: *const BootInfo) -> ! {
    // SAFETY: the first thing that this CPU does, and never again.
    unsafe { traps::init() };
    // SAFETY: the tender passes the address of its boot information. Only these fields: the later ones are not
    // there before Solo5 v0.11.
    let (mem_size, cpu_cycle_freq, cmdline, mft) = unsafe {
        ((*boot_info).mem_size, (*boot_info).cpu_cycle_freq, (*boot_info).cmdline, (*boot_info).mft)
    };
    // SAFETY: called once, with the size that the tender gave, while nothing is above the image but the stack.
    unsafe { memory::init(mem_size) };
    let tick_rate =
        TickRate::of(cpu_cycle_freq).expect("the tender gives the frequency of the CPU's cycle counter");
    // SAFETY: the addresses are the tender's, of a C string and a manifest that stay as they are.
    let (cmdline, manifest) = unsafe { (cmdline_at(cmdline), manifest_at(mft)) };
    INFO.call_once(|| Info { tick_rate, cmdline, manifest });
    __solo5_main()
}

/// # Safety
/// `address` must be that of a NUL-terminated string that is never written.
unsafe fn cmdline_at(address: GuestAddr) -> &'static [u8] {
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(pointer_to(address)) }.to_bytes()
}

/// # Safety
/// `address` must be that of a manifest that is never written.
unsafe fn manifest_at(address: GuestAddr) -> &'static [Entry] {
    let header: *const ManifestHeader = pointer_to(address);
    // SAFETY: as the caller says; pointer_to has checked the alignment.
    let count = unsafe { (*header).entries } as usize;
    assert!(count <= MAX_ENTRIES, "the manifest has {count} entries, and {MAX_ENTRIES} at most are expected");
    // SAFETY: the entries follow the header, `count` of them, aligned as it is (8 bytes are in between).
    unsafe { core::slice::from_raw_parts(header.add(1).cast::<Entry>(), count) }
}

/// A pointer to the tender's data at `address`: memory is identity-mapped.
fn pointer_to<T>(address: GuestAddr) -> *const T {
    let pointer = address.raw() as *const T;
    assert!(!pointer.is_null() && pointer.is_aligned(), "the tender's data at {address:?} are misplaced");
    pointer
}
