//! Exceptions: each ends the guest, with a report on the console in Solo5's format.
//!
//! The descriptor tables follow upstream's (bindings/cpu_x86_64.c), as tenders that run a guest without
//! virtualization know the instructions that set them up.

use crate::abort::abort;
use crate::limits::TRAP_STACK_BYTES;
use crate::println;
use core::arch::{asm, global_asm};
use core::panic::Location;
use hvt_abi::GuestAddr;
use hvt_abi::hypercall::HALT_COOKIE_MAX;

const VECTORS: usize = 32;

/// Selectors: the tables' indexes times 8.
const CODE: u16 = 1 << 3;
const DATA: u16 = 2 << 3;
const TASK: u16 = 3 << 3;

/// 64-bit code, ring 0, execute only, accessed; and flat data, ring 0, writable, accessed.
const CODE_DESCRIPTOR: u64 = 0x00af_9900_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

/// Which stack of the task state an exception is handled on (from 1): one of its own, for the guest's may be what is
/// broken, and another for what can come while the first is in use.
const STACK_TRAP: u8 = 1;
const STACK_NMI_AND_DOUBLE_FAULT: u8 = 2;

/// Vectors whose exceptions push an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX.
const WITH_ERROR_CODE: u32 = 1 << 8 | 0b1_1111 << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

const NAMES: [&str; VECTORS] = [
    "#DE", "#DB", "#NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS", "#GP", "#PF",
    "#15", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP", "#22", "#23", "#24", "#25", "#26", "#27", "#HV", "#VC",
    "#SX", "#31",
];

const PAGE_FAULT: usize = 14;

/// One gate of the interrupt descriptor table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    /// An interrupt gate, present, for ring 0.
    fn new(handler: u64, stack: u8) -> Self {
        const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
        let low = (handler & 0xffff)
            | u64::from(CODE) << 16
            | u64::from(stack) << 32
            | PRESENT_INTERRUPT_GATE
            | (handler >> 16 & 0xffff) << 48;
        Self { low, high: handler >> 32 }
    }
}

/// The task state segment, of which only the interrupt stacks are used.
#[repr(C, packed(4))]
struct TaskState {
    reserved_0: u32,
    privilege_stacks: [u64; 3],
    reserved_1: u64,
    interrupt_stacks: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    io_map_base: u16,
}

const _: () = assert!(size_of::<TaskState>() == 104);

/// A stack for exceptions. Above its first word lie the bytes that a debugging tender reads at the trap frame.
#[repr(C, align(16))]
struct Stack {
    bytes: [u8; TRAP_STACK_BYTES],
    above: [u8; HALT_COOKIE_MAX as usize],
}

impl Stack {
    const EMPTY: Self = Self { bytes: [0; TRAP_STACK_BYTES], above: [0; HALT_COOKIE_MAX as usize] };
}

/// All that the CPU looks up when an exception comes.
struct Tables {
    descriptors: [u64; 5],
    gates: [Gate; VECTORS],
    task: TaskState,
    stacks: [Stack; 2],
}

static mut TABLES: Tables = Tables {
    descriptors: [0; 5],
    gates: [Gate { low: 0, high: 0 }; VECTORS],
    task: TaskState {
        reserved_0: 0,
        privilege_stacks: [0; 3],
        reserved_1: 0,
        interrupt_stacks: [0; 7],
        reserved_2: 0,
        reserved_3: 0,
        io_map_base: 0,
    },
    stacks: [Stack::EMPTY; 2],
};

/// What `lgdt` and `lidt` take.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

impl TablePointer {
    fn to<T>(table: *const T) -> Self {
        Self { limit: size_of::<T>() as u16 - 1, base: table.addr() as u64 }
    }
}

unsafe extern "C" {
    /// The handlers' entries, 16 bytes each.
    static solo5_trap_entries: u8;
}

// Each entry makes the stack look the same, with or without an error code, and names its vector in esi; what
// follows completes a TrapFrame. Nothing is saved, as nothing returns. The vector's address in the table is
// its number times 16.
global_asm!(
    ".pushsection .text.solo5_traps, \"ax\"",
    ".p2align 4",
    ".global solo5_trap_entries",
    "solo5_trap_entries:",
    ".set vector, 0",
    ".rept {vectors}",
    ".p2align 4",
    ".if (({with_error_code} >> vector) & 1) == 0",
    "pushq $0",
    ".endif",
    "movl $vector, %esi",
    "jmp 1f",
    ".set vector, vector + 1",
    ".endr",
    "1:",
    "movq %cr2, %rdi",
    "pushq %rdi",
    "movl %esi, %edi",
    "movq %rsp, %rsi",
    "andq $-16, %rsp",
    "cld",
    "call {report}",
    ".popsection",
    vectors = const VECTORS,
    with_error_code = const WITH_ERROR_CODE,
    report = sym report,
    options(att_syntax),
);

/// What is on the stack when an exception is reported; the layout of upstream's `struct trap_regs`.
#[repr(C)]
struct TrapFrame {
    cr2: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

extern "C" fn report(vector: usize, frame: &TrapFrame) -> ! {
    let TrapFrame { cr2, error_code, rip, rsp, rflags, .. } = *frame;
    let name = NAMES.get(vector).unwrap_or(&"#?");
    println!("Solo5: trap: type={name} ec={error_code:#x} rip={rip:#x} rsp={rsp:#x} rflags={rflags:#x}");
    if vector == PAGE_FAULT {
        println!("Solo5: trap: cr2={cr2:#x}");
    }
    abort(Location::caller(), &"Fatal trap", GuestAddr::of(frame))
}

/// Sets up segments, task state and exception handlers.
///
/// # Safety
/// Called once, first thing.
pub unsafe fn init() {
    // SAFETY: the only reference to the tables, for this is called once; the CPU reads them after it is gone.
    let tables = unsafe { &mut *(&raw mut TABLES) };
    for (index, stack) in (0..).zip(&tables.stacks) {
        tables.task.interrupt_stacks[index] = (&raw const stack.above).addr() as u64;
    }
    tables.task.io_map_base = size_of::<TaskState>() as u16;
    tables.descriptors = descriptors(&tables.task);
    let entries = (&raw const solo5_trap_entries).addr() as u64;
    for ((vector, entry), gate) in (0..).zip((entries..).step_by(16)).zip(&mut tables.gates) {
        let stack = if matches!(vector, 2 | 8) { STACK_NMI_AND_DOUBLE_FAULT } else { STACK_TRAP };
        *gate = Gate::new(entry, stack);
    }
    let descriptors = TablePointer::to(&tables.descriptors);
    let gates = TablePointer::to(&tables.gates);
    // SAFETY: the tables are complete, live for ever and stay where they are; the selectors are theirs.
    unsafe { load(&descriptors, &gates) };
}

/// The global descriptor table: nothing, code, data, and the task state's descriptor, which takes two.
fn descriptors(task: &TaskState) -> [u64; 5] {
    const PRESENT_TASK_STATE: u64 = 0x89 << 40;
    let base = (&raw const *task).addr() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    let low = limit | (base & 0xff_ffff) << 16 | PRESENT_TASK_STATE | (base >> 24 & 0xff) << 56;
    [0, CODE_DESCRIPTOR, DATA_DESCRIPTOR, low, base >> 32]
}

/// # Safety
/// The tables must be what the CPU expects, with the selectors of this module in them, and never go away.
unsafe fn load(descriptors: &TablePointer, gates: &TablePointer) {
    // SAFETY: as the caller says; the far return goes on with the next instruction, in the new code segment.
    unsafe {
        asm!(
            "lgdt ({descriptors})",
            "pushq ${code}",
            "leaq 2f(%rip), {scratch}",
            "pushq {scratch}",
            "lretq",
            "2:",
            "movl {data:e}, %ss",
            "movl {data:e}, %ds",
            "movl {data:e}, %es",
            "ltr {task:x}",
            "lidt ({gates})",
            descriptors = in(reg) descriptors,
            gates = in(reg) gates,
            code = const CODE,
            data = in(reg) u32::from(DATA),
            task = in(reg) TASK,
            scratch = out(reg) _,
            options(att_syntax),
        );
    }
}
