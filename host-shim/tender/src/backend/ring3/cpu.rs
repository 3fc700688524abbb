//! The privileged state that a guest believes it has, and the delivery of exceptions to its own handlers.

use hvt_abi::GuestAddr;

use super::decode::{RSP, Registers};
use crate::hypercalls::Fault;
use crate::memory::{BadAccess, GuestMemory};

/// Bit 47 and all above are zero in the addresses that a guest may use.
pub const USER_LIMIT: u64 = 1 << 47;

/// Selectors of the guest's flat segments, as it finds them in the frame of an exception.
pub const CODE_SELECTOR: u64 = 0x08;
pub const DATA_SELECTOR: u64 = 0x10;

/// RFLAGS: the trap flag, which is clear in handlers.
const TRAP_FLAG: u64 = 1 << 8;

/// Bit of a page fault's error code: the access came from user mode. To the guest it did not.
const PAGE_FAULT_USER: u64 = 1 << 2;

/// Exception vectors.
pub const GENERAL_PROTECTION: u8 = 13;
pub const PAGE_FAULT: u8 = 14;

/// The registers that describe tables of descriptors.
#[derive(Clone, Copy, Debug, Default)]
struct Table {
    base: u64,
    limit: u16,
}

/// What a guest has set up.
#[derive(Debug, Default)]
pub struct Cpu {
    gdt: Table,
    idt: Table,
    task: u64,
    /// Address of the last page fault.
    pub cr2: u64,
}

/// An exception at the instruction `rip`.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    pub vector: u8,
    pub error_code: u64,
    pub rip: u64,
    pub flags: u64,
}

/// Where a guest goes on in its handler.
#[derive(Clone, Copy, Debug)]
pub struct Handler {
    pub rip: u64,
    pub rsp: u64,
    pub flags: u64,
}

impl Cpu {
    pub fn load_gdt(&mut self, memory: &GuestMemory, at: u64) -> Result<(), BadAccess> {
        self.gdt = Table::read(memory, at)?;
        Ok(())
    }

    pub fn load_idt(&mut self, memory: &GuestMemory, at: u64) -> Result<(), BadAccess> {
        self.idt = Table::read(memory, at)?;
        Ok(())
    }

    /// Takes the TSS's address from its descriptor (Intel SDM volume 3, figure 9-4).
    pub fn load_task(&mut self, memory: &GuestMemory, selector: u16) -> Result<(), BadAccess> {
        let [_, _, b0, b1, b2, _, _, b3, b4, b5, b6, b7, ..]: [u8; 16] =
            memory.read(GuestAddr::new(self.gdt.base.wrapping_add(u64::from(selector & !7))))?;
        self.task = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        Ok(())
    }

    /// Makes the stack frame of an exception and returns the state in which the handler starts.
    pub fn deliver(
        &self,
        memory: &mut GuestMemory,
        registers: &Registers,
        exception: Exception,
    ) -> Result<Handler, Fault> {
        let Exception { vector, error_code: code, rip, .. } = exception;
        let unhandled = || Fault::Exception { vector, code, address: self.cr2, rip };
        let offset = u16::from(exception.vector) * 16;
        if self.idt.limit < offset + 15 {
            return Err(unhandled());
        }
        let gate: [u8; 16] = memory
            .read(GuestAddr::new(self.idt.base.wrapping_add(u64::from(offset))))
            .map_err(|_| unhandled())?;
        let [o0, o1, _, _, ist, kind, o2, o3, o4, o5, o6, o7, ..] = gate;
        let stack = match ist & 7 {
            0 => registers[RSP],
            ist => self.interrupt_stack(memory, ist).map_err(|_| unhandled())?,
        };
        let present = kind & 0x80 != 0;
        let frame = present.then(|| push_frame(memory, stack & !0xf, registers, exception));
        let rsp = frame.ok_or_else(unhandled)?.map_err(|_| unhandled())?;
        let rip = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        Ok(Handler { rip, rsp, flags: exception.flags & !TRAP_FLAG })
    }

    /// Entry `ist`, from 1, of the TSS's table of stacks.
    fn interrupt_stack(&self, memory: &GuestMemory, ist: u8) -> Result<u64, BadAccess> {
        const IST: u64 = 36;
        memory.read(GuestAddr::new(self.task.wrapping_add(IST + 8 * (u64::from(ist) - 1))))
    }
}

impl Table {
    fn read(memory: &GuestMemory, at: u64) -> Result<Self, BadAccess> {
        let limit = memory.read(GuestAddr::new(at))?;
        let base = memory.read(GuestAddr::new(at.wrapping_add(2)))?;
        Ok(Self { base, limit })
    }
}

/// Pushes what the CPU pushes on an exception; returns the new stack pointer.
fn push_frame(
    memory: &mut GuestMemory,
    stack: u64,
    registers: &Registers,
    exception: Exception,
) -> Result<u64, BadAccess> {
    let Exception { vector, error_code, rip, flags } = exception;
    let error_code = match vector {
        8 | 10..=13 | 17 | 21 => Some(error_code),
        PAGE_FAULT => Some(error_code & !PAGE_FAULT_USER),
        _ => None,
    };
    let fixed = [DATA_SELECTOR, registers[RSP], flags, CODE_SELECTOR, rip];
    let mut rsp = stack;
    for word in fixed.into_iter().chain(error_code) {
        rsp = rsp.wrapping_sub(8);
        memory.write(GuestAddr::new(rsp), word)?;
    }
    Ok(rsp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDT: u64 = 0x12_0000;
    const GDT: u64 = 0x12_1000;
    const TSS: u64 = 0x12_2000;
    const TASK_SELECTOR: u16 = 0x18;

    fn guest() -> (GuestMemory, Cpu) {
        let mut memory = GuestMemory::anywhere(2 << 20).unwrap();
        let mut put = |at: u64, bytes: &[u8]| {
            memory.bytes_mut(GuestAddr::new(at), bytes.len() as u64).unwrap().copy_from_slice(bytes);
        };
        // A page-fault gate on IST 2 to 0x101234.
        put(IDT + 14 * 16, &[0x34, 0x12, 8, 0, 2, 0x8e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        put(GDT + 0x18, &[103, 0, 0x00, 0x20, 0x12, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        put(TSS + 36 + 8, &0x13_1000_u64.to_le_bytes());
        let mut pointer = |at, limit: u16, base: u64| {
            put(at, &limit.to_le_bytes());
            put(at + 2, &base.to_le_bytes());
        };
        pointer(0x12_3000, 0xfff, IDT);
        pointer(0x12_3010, 0x2f, GDT);
        let mut cpu = Cpu::default();
        cpu.load_idt(&memory, 0x12_3000).unwrap();
        cpu.load_gdt(&memory, 0x12_3010).unwrap();
        cpu.load_task(&memory, TASK_SELECTOR).unwrap();
        (memory, cpu)
    }

    const FAULT: Exception = Exception { vector: PAGE_FAULT, error_code: 6, rip: 0x10_0020, flags: 0x302 };

    #[test]
    fn given_a_handler_on_its_own_stack_when_an_exception_comes_then_its_frame_is_as_the_cpu_makes_it() {
        let (mut memory, cpu) = guest();
        let mut registers = [0; 16];
        registers[RSP] = 0x1f_fff8;
        let handler = cpu.deliver(&mut memory, &registers, FAULT).unwrap();
        assert_eq!((handler.rip, handler.rsp, handler.flags), (0x10_1234, 0x13_1000 - 48, 0x202));
        let frame = [2, 0x10_0020, 8, 0x302, 0x1f_fff8, 0x10];
        for (at, word) in (handler.rsp..).step_by(8).zip(frame) {
            assert_eq!(memory.read::<u64>(GuestAddr::new(at)), Ok(word));
        }
    }

    #[test]
    fn given_no_handler_when_an_exception_comes_then_it_is_the_guests_end() {
        let (mut memory, cpu) = guest();
        let other = Exception { vector: 6, ..FAULT };
        assert!(cpu.deliver(&mut memory, &[0; 16], other).is_err());
        assert!(Cpu::default().deliver(&mut memory, &[0; 16], FAULT).is_err());
    }
}
