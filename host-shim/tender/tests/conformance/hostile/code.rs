//! The hostile guests' machine code: whole ones from the files here, and small ones made of numbers.

use core::arch::global_asm;

global_asm!(
    include_str!("macros.s"),
    include_str!("guests.s"),
    include_str!("registers.s"),
    include_str!("ring.s"),
);

/// The guest of this name in one of these files.
macro_rules! guest {
    ($name:ident) => {{
        unsafe extern "C" {
            #[link_name = concat!("guest_", stringify!($name))]
            static START: u8;
            #[link_name = concat!("guest_", stringify!($name), "_end")]
            static END: u8;
        }
        let (start, end) = (&raw const START, &raw const END);
        // SAFETY: both are labels around one guest's bytes, in one section that only holds such bytes.
        unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
    }};
}
pub(crate) use guest;

/// Scratch memory of the guests made here, and their hypercalls' arguments.
pub const SCRATCH: u32 = 0x18_0000;

/// The registers that a system call takes, as `mov`'s operand has them: a prefix and an opcode.
const NUMBER: [u8; 2] = [0x48, 0xb8];
const ARGUMENTS: [[u8; 2]; 6] =
    [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];

/// Machine code in the making.
#[derive(Default)]
pub struct Code(Vec<u8>);

impl Code {
    /// These bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Code {
        self.0.extend(bytes);
        self
    }

    /// `syscall`.
    pub fn system_call(mut self, number: u64, arguments: [u64; 6]) -> Code {
        for (register, value) in ARGUMENTS.into_iter().zip(arguments) {
            self = self.mov(register, value);
        }
        self.mov(NUMBER, number).raw(&[0x0f, 0x05])
    }

    /// Stores words at an address below 2 GiB, one after the other.
    pub fn store(mut self, address: u32, words: &[u64]) -> Code {
        for (word, address) in words.iter().zip((address..).step_by(8)) {
            // mov %rax, address
            self = self.mov(NUMBER, *word).raw(&[0x48, 0x89, 0x04, 0x25]).raw(&address.to_le_bytes());
        }
        self
    }

    /// A hypercall with its argument block at this address, as the bindings make it.
    pub fn hypercall(self, number: u16, argument: u32) -> Code {
        let port = u32::from(0x500 + number);
        self.raw(&[0xb8]).raw(&argument.to_le_bytes()).raw(&[0xba]).raw(&port.to_le_bytes()).raw(&[0xef])
    }

    /// Ends with this status.
    pub fn halt(self, status: u32) -> Vec<u8> {
        self.store(SCRATCH, &[0, status.into()]).hypercall(8, SCRATCH).0
    }

    /// Ends with the status that is in this word of memory.
    pub fn halt_with(self, address: u32) -> Vec<u8> {
        // mov address, %ecx
        let code = self.raw(&[0x8b, 0x0c, 0x25]).raw(&address.to_le_bytes()).store(SCRATCH, &[0]);
        // mov %ecx, SCRATCH + 8
        code.raw(&[0x89, 0x0c, 0x25]).raw(&(SCRATCH + 8).to_le_bytes()).hypercall(8, SCRATCH).0
    }

    fn mov(mut self, register: [u8; 2], value: u64) -> Code {
        self.0.extend(register);
        self.0.extend(value.to_le_bytes());
        self
    }
}
