//! The few privileged instructions that Solo5 guests execute.

use std::array;

/// A guest's general registers by their numbers in machine code: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
pub type Registers = [u64; 16];

/// The numbers of the registers that instructions use by name.
pub const RAX: usize = 0;
/// See [`RAX`].
pub const RCX: usize = 1;
/// See [`RAX`].
pub const RDX: usize = 2;
/// See [`RAX`].
pub const RSP: usize = 4;

/// A privileged instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileged {
    /// `out %eax, (%dx)`: a hypercall.
    Out,
    /// Any other access to a port.
    OtherPort,
    /// `lgdt` from this address.
    LoadGdt(u64),
    /// `lidt` from this address.
    LoadIdt(u64),
    /// `ltr` of this selector.
    LoadTask(u16),
    /// `ltr` from this address.
    LoadTaskAt(u64),
    /// `mov` to a segment register.
    LoadSegment,
    /// `lretq`.
    FarReturn,
    /// `wrmsr`.
    WriteMsr,
    /// `mov %cr2` to this register.
    ReadCr2(usize),
    /// `cli` or `sti`.
    InterruptFlag,
    /// `hlt`.
    Halt,
}

/// Decodes the instruction at the start of `code`, which lies at `rip`: what it is and its length in bytes. Nothing
/// where it is none of these.
pub fn decode(code: &[u8], rip: u64, registers: &Registers) -> Option<(Privileged, u64)> {
    let mut cursor = Cursor { code, at: 0, rex: 0, rip, registers };
    let mut opcode = cursor.byte()?;
    if opcode & 0xf0 == 0x40 {
        cursor.rex = opcode;
        opcode = cursor.byte()?;
    }
    let what = match opcode {
        0xef => Privileged::Out,
        0xe4..=0xe7 | 0xec..=0xee | 0x66 => cursor.other_port(opcode)?,
        0x8e => {
            cursor.operand()?;
            Privileged::LoadSegment
        }
        0xcb if cursor.rex & 8 != 0 => Privileged::FarReturn,
        0xfa | 0xfb => Privileged::InterruptFlag,
        0xf4 => Privileged::Halt,
        0x0f => cursor.two_byte()?,
        _ => return None,
    };
    Some((what, cursor.at as u64))
}

/// What an instruction works on.
enum Operand {
    Register(usize),
    Memory(u64),
}

struct Cursor<'a> {
    code: &'a [u8],
    at: usize,
    rex: u8,
    rip: u64,
    registers: &'a Registers,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn other_port(&mut self, opcode: u8) -> Option<Privileged> {
        match opcode {
            0x66 => matches!(self.byte()?, 0xe5 | 0xe7 | 0xed | 0xef).then_some(Privileged::OtherPort),
            0xe4..=0xe7 => self.byte().map(|_| Privileged::OtherPort),
            _ => Some(Privileged::OtherPort),
        }
    }

    fn two_byte(&mut self) -> Option<Privileged> {
        match self.byte()? {
            0x00 => match self.operand()? {
                (3, Operand::Register(register)) => {
                    let [low, high, ..] = self.registers[register].to_le_bytes();
                    Some(Privileged::LoadTask(u16::from_le_bytes([low, high])))
                }
                (3, Operand::Memory(at)) => Some(Privileged::LoadTaskAt(at)),
                _ => None,
            },
            0x01 => match self.operand()? {
                (2, Operand::Memory(at)) => Some(Privileged::LoadGdt(at)),
                (3, Operand::Memory(at)) => Some(Privileged::LoadIdt(at)),
                _ => None,
            },
            0x20 => match self.operand()? {
                (2, Operand::Register(to)) => Some(Privileged::ReadCr2(to)),
                _ => None,
            },
            0x30 => Some(Privileged::WriteMsr),
            _ => None,
        }
    }

    /// A ModR/M byte with all that belongs to it (Intel SDM volume 2, section 2.1.5): its `reg` field, and what its
    /// other fields name.
    fn operand(&mut self) -> Option<(u8, Operand)> {
        let modrm = self.byte()?;
        let (mode, reg, low) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        if mode == 3 {
            return Some((reg, Operand::Register(self.extended(low, 0))));
        }
        let mut rip_relative = false;
        let base = match (low, mode) {
            (4, _) => self.scaled(mode)?,
            (5, 0) => {
                rip_relative = true;
                0
            }
            _ => self.registers[self.extended(low, 0)],
        };
        let displacement = match mode {
            1 => i64::from(self.byte()?.cast_signed()),
            2 => self.displacement32()?,
            _ if rip_relative => self.displacement32()?,
            _ => 0,
        };
        // None of these instructions has an immediate, so here the instruction ends.
        let base = if rip_relative { self.rip.wrapping_add(self.at as u64) } else { base };
        Some((reg, Operand::Memory(base.wrapping_add_signed(displacement))))
    }

    /// A SIB byte: base and scaled index.
    fn scaled(&mut self, mode: u8) -> Option<u64> {
        let sib = self.byte()?;
        let (scale, index, base) = (sib >> 6, self.extended(sib >> 3 & 7, 1), sib & 7);
        let index = if index == RSP { 0 } else { self.registers[index] << scale };
        let base = if base == 5 && mode == 0 {
            self.displacement32()?.cast_unsigned()
        } else {
            self.registers[self.extended(base, 0)]
        };
        Some(base.wrapping_add(index))
    }

    /// A register's number, with the bit of the REX prefix that belongs to it.
    fn extended(&self, low: u8, rex_bit: u8) -> usize {
        usize::from(low | (self.rex >> rex_bit & 1) << 3)
    }

    fn displacement32(&mut self) -> Option<i64> {
        let bytes: [Option<u8>; 4] = array::from_fn(|_| self.byte());
        let [Some(a), Some(b), Some(c), Some(d)] = bytes else { return None };
        Some(i64::from(i32::from_le_bytes([a, b, c, d])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIP: u64 = 0x10_0000;

    fn registers() -> Registers {
        array::from_fn(|number| 0x1000 * (number as u64 + 1))
    }

    #[track_caller]
    fn expect(code: &[u8], what: Privileged) {
        let padded = [code, &[0x90; 8]].concat();
        assert_eq!(decode(&padded, RIP, &registers()), Some((what, code.len() as u64)));
        // Cut anywhere, it is no instruction.
        for len in 0..code.len() {
            assert_eq!(decode(&code[..len], RIP, &registers()), None);
        }
    }

    #[test]
    fn given_what_solo5_executes_when_decoded_then_all_of_it_is_known() {
        expect(&[0xef], Privileged::Out);
        expect(&[0x0f, 0x01, 0x12], Privileged::LoadGdt(0x3000)); // lgdt (%rdx)
        expect(&[0x0f, 0x01, 0x18], Privileged::LoadIdt(0x1000)); // lidt (%rax)
        expect(&[0x0f, 0x00, 0xd8], Privileged::LoadTask(0x1000)); // ltr %ax
        expect(&[0x48, 0xcb], Privileged::FarReturn);
        for segment in [0xd0, 0xd8, 0xc0] {
            expect(&[0x8e, segment], Privileged::LoadSegment);
        }
        expect(&[0x0f, 0x30], Privileged::WriteMsr);
        expect(&[0x0f, 0x20, 0xd7], Privileged::ReadCr2(7)); // mov %cr2, %rdi
        expect(&[0xfa], Privileged::InterruptFlag);
        expect(&[0xf4], Privileged::Halt);
    }

    #[test]
    fn given_any_form_of_address_when_decoded_then_it_is_computed() {
        expect(&[0x41, 0x0f, 0x01, 0x11], Privileged::LoadGdt(0xa000)); // lgdt (%r9)
        expect(&[0x0f, 0x01, 0x55, 0xf0], Privileged::LoadGdt(0x5ff0)); // lgdt -0x10(%rbp)
        expect(&[0x0f, 0x01, 0x54, 0x24, 0x08], Privileged::LoadGdt(0x5008)); // lgdt 8(%rsp)
        expect(&[0x0f, 0x01, 0x14, 0xc8], Privileged::LoadGdt(0x1000 + 8 * 0x2000)); // lgdt (%rax,%rcx,8)
        expect(&[0x0f, 0x01, 0x90, 0, 0, 1, 0], Privileged::LoadGdt(0x1_1000)); // lgdt 0x10000(%rax)
        expect(&[0x0f, 0x01, 0x15, 0x10, 0, 0, 0], Privileged::LoadGdt(RIP + 7 + 0x10)); // lgdt 0x10(%rip)
        expect(&[0x0f, 0x01, 0x14, 0x25, 0, 0x20, 0, 0], Privileged::LoadGdt(0x2000)); // lgdt 0x2000
    }

    #[test]
    fn given_ports_used_otherwise_when_decoded_then_they_are_told_apart() {
        expect(&[0xee], Privileged::OtherPort);
        expect(&[0x66, 0xef], Privileged::OtherPort);
        expect(&[0xe4, 0x60], Privileged::OtherPort);
    }

    #[test]
    fn given_ordinary_instructions_when_decoded_then_they_are_none_of_these() {
        for code in
            [&[0x90][..], &[0x48, 0x89, 0x07], &[0x0f, 0x0b], &[0xcb], &[0x0f, 0x01, 0xf9], &[0x48, 0xcf]]
        {
            assert_eq!(decode(&[code, &[0; 8]].concat(), RIP, &registers()), None);
        }
    }
}
