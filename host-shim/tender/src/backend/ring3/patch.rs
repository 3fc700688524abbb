//! Replaces hypercalls in the guest's code by jumps to the tender: a trap by signal costs microseconds, a jump
//! nanoseconds.
//!
//! A site is what compilers make of Solo5's inline assembly: `mov $0x50n, %edx` (5 bytes) and `out %eax, (%dx)`. The
//! `mov` becomes a jump of the same length; the `out` stays, so that a jump straight to it still traps. A hypercall that
//! looks otherwise traps as well: patching is for speed only.

use std::ops::Range;

use hvt_abi::GuestAddr;
use hvt_abi::hypercall::Hypercall;
use memchr::memmem;

use super::low::{self, field};
use crate::memory::{GuestMemory, usize_from};

const SITE_LEN: usize = 6;
const MOV_EDX: u8 = 0xba;
/// The end of a site: the high bytes of the port, and `out`.
const TAIL: [u8; 4] = [0x05, 0x00, 0x00, 0xef];
/// In front of [`MOV_EDX`] they would make it a `mov` to another register.
const REX: std::ops::RangeInclusive<u8> = 0x40..=0x4f;

const STUB_LEN: u64 = 32;

/// Patches all hypercalls in `code` and returns where their stubs end.
pub fn patch(memory: &mut GuestMemory, code: &[Range<u64>]) -> u64 {
    let mut stub_at = low::STUBS;
    for range in code {
        for (site, port) in sites(memory, range) {
            if stub_at + STUB_LEN > low::STUBS_END {
                return stub_at;
            }
            if patch_site(memory, site, port, stub_at).is_some() {
                stub_at += STUB_LEN;
            }
        }
    }
    stub_at
}

/// Addresses and ports of the hypercalls in `range`.
fn sites(memory: &GuestMemory, range: &Range<u64>) -> Vec<(u64, u8)> {
    let len = range.end.saturating_sub(range.start);
    // Section headers are only a hint, and may name what is no memory at all.
    let Ok(bytes) = memory.bytes(GuestAddr::new(range.start), len) else {
        return Vec::new();
    };
    let site = |tail: usize| {
        let at = tail.checked_sub(2)?;
        let [mov, port, ..] = *bytes.get(at..at + SITE_LEN)? else { return None };
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let known = Hypercall::from_port(0x500 | u16::from(port)).is_some();
        let whole = mov == MOV_EDX && known && !before.is_some_and(|byte| REX.contains(byte));
        whole.then_some((range.start + at as u64, port))
    };
    memmem::find_iter(bytes, &TAIL).filter_map(site).collect()
}

/// Writes a stub and the jump to it; nothing where they are too far apart.
fn patch_site(memory: &mut GuestMemory, site: u64, port: u8, stub_at: u64) -> Option<()> {
    let distance = stub_at.cast_signed() - (site + 5).cast_signed();
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    let code = stub(site + SITE_LEN as u64, port)?;
    memory.private_mut(stub_at, STUB_LEN).ok()?.copy_from_slice(&code);
    let jump = memory.bytes_mut(GuestAddr::new(site), 5).ok()?;
    jump.copy_from_slice(&[0xe9, a, b, c, d]);
    Some(())
}

/// Remembers the guest's stack pointer and where it goes on, does what the `mov` did, and goes to the tender. It
/// touches neither the guest's stack nor its flags.
fn stub(back_to: u64, port: u8) -> Option<[u8; usize_from(STUB_LEN)]> {
    let back_to = i32::try_from(back_to).ok()?;
    let mut code = Vec::with_capacity(usize_from(STUB_LEN));
    let mut put = |opcode: &[u8], address: usize| {
        code.extend_from_slice(opcode);
        code.extend(u32::try_from(address).ok()?.to_le_bytes());
        Some(())
    };
    put(&[0x48, 0x89, 0x24, 0x25], field!(guest_rsp))?; // mov %rsp, guest_rsp
    put(&[0x48, 0xc7, 0x04, 0x25], field!(guest_rip))?; // movq $back_to, guest_rip
    code.extend(back_to.to_le_bytes());
    code.extend([MOV_EDX, port, 0x05, 0x00, 0x00]);
    code.extend([0xff, 0x24, 0x25]); // jmp *from_stub
    code.extend(u32::try_from(field!(from_stub)).ok()?.to_le_bytes());
    code.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: [u8; SITE_LEN] = [0xba, 0x02, 0x05, 0x00, 0x00, 0xef];
    const TEXT: u64 = 0x10_0000;

    fn patched(code: &[u8]) -> (Vec<u8>, u64) {
        let mut memory = GuestMemory::anywhere(2 << 20).unwrap();
        let addr = GuestAddr::new(TEXT);
        memory.bytes_mut(addr, code.len() as u64).unwrap().copy_from_slice(code);
        let range = TEXT..TEXT + code.len() as u64;
        let end = patch(&mut memory, std::slice::from_ref(&range));
        (memory.bytes(addr, code.len() as u64).unwrap().to_vec(), end)
    }

    #[test]
    fn given_a_hypercall_when_patched_then_the_mov_is_a_jump_to_a_stub_and_the_out_stays() {
        let (code, end) = patched(&[&[0x90], &SITE[..], &[0xc3]].concat());
        let distance = i32::from_le_bytes(code[2..6].try_into().unwrap());
        assert_eq!(code[1], 0xe9);
        assert_eq!((TEXT + 6).wrapping_add_signed(distance.into()), low::STUBS);
        assert_eq!(code[6..], [0xef, 0xc3]);
        assert_eq!(end, low::STUBS + STUB_LEN);
    }

    #[test]
    fn given_what_is_no_hypercall_when_patched_then_it_stays() {
        for port in [0x00, 0x09, 0xff] {
            let code = [0x90, 0xba, port, 0x05, 0x00, 0x00, 0xef];
            assert_eq!(patched(&code), (code.to_vec(), low::STUBS));
        }
        let to_r10 = [&[0x41], &SITE[..]].concat();
        assert_eq!(patched(&to_r10), (to_r10, low::STUBS));
        let cut = &SITE[1..];
        assert_eq!(patched(cut), (cut.to_vec(), low::STUBS));
    }

    #[test]
    fn given_more_hypercalls_than_stubs_when_patched_then_the_rest_stays() {
        let (code, end) = patched(&SITE.repeat(20_000));
        assert!(end <= low::STUBS_END);
        assert!(code.ends_with(&SITE));
    }

    #[test]
    fn given_sections_that_are_no_memory_when_patched_then_nothing_happens() {
        let mut memory = GuestMemory::anywhere(2 << 20).unwrap();
        for range in [0..u64::MAX, u64::MAX - 5..u64::MAX, 0x20_0000..0x20_1000, Range { start: 8, end: 4 }] {
            assert_eq!(patch(&mut memory, &[range]), low::STUBS);
        }
    }
}
