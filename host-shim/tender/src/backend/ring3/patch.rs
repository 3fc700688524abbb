//! Replaces hypercalls in the guest's code by jumps to the tender: a trap by signal costs microseconds, a jump
//! nanoseconds.
//!
//! A site's `mov` becomes a jump of the same length; its `out` stays, so that a jump straight to it still traps. A hypercall
//! that looks otherwise traps as well: patching is for speed only.

use std::ops::Range;

use hvt_abi::GuestAddr;
use hvt_abi::sites::{MOV_EDX, SITE_LEN, sites};

use super::low::{self, field};
use crate::memory::{GuestMemory, usize_from};

/// `jmp` to a distance of 32 bits.
const JUMP: u8 = 0xe9;

const STUB_LEN: u64 = 48;

/// Patches all hypercalls in `code` and returns where their stubs end.
pub fn patch(memory: &mut GuestMemory, code: &[Range<u64>]) -> u64 {
    let mut stub_at = low::STUBS;
    for range in code {
        for (site, port) in sites_in(memory, range) {
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
fn sites_in(memory: &GuestMemory, range: &Range<u64>) -> Vec<(u64, u16)> {
    let len = range.end.saturating_sub(range.start);
    // Section headers are only a hint, and may name what is no memory at all.
    let Ok(bytes) = memory.bytes(GuestAddr::new(range.start), len) else {
        return Vec::new();
    };
    sites(bytes).map(|site| (range.start + site.at as u64, site.hypercall.port())).collect()
}

/// Writes a stub and the jump to it; nothing where they are too far apart.
fn patch_site(memory: &mut GuestMemory, site: u64, port: u16, stub_at: u64) -> Option<()> {
    let code = stub(stub_at, site + SITE_LEN as u64, port)?;
    memory.private_mut(stub_at, STUB_LEN).ok()?.copy_from_slice(&code);
    let jump = memory.bytes_mut(GuestAddr::new(site), 5).ok()?;
    jump[0] = JUMP;
    jump[1..].copy_from_slice(&distance(site + 5, stub_at)?);
    Some(())
}

/// Goes over to the tender's stack, does what the `mov` did, has the tender do what the `out` asks for, and goes back. It
/// touches neither the guest's stack nor its flags.
fn stub(at: u64, back_to: u64, port: u16) -> Option<[u8; usize_from(STUB_LEN)]> {
    let mut code = Vec::with_capacity(usize_from(STUB_LEN));
    let mut put = |opcode: &[u8], address: usize| {
        code.extend_from_slice(opcode);
        code.extend(u32::try_from(address).ok()?.to_le_bytes());
        Some(())
    };
    put(&[0x48, 0x89, 0x24, 0x25], field!(guest_rsp))?; // mov %rsp, guest_rsp
    put(&[0x48, 0x8b, 0x24, 0x25], field!(host_rsp))?; // mov host_rsp, %rsp
    put(&[MOV_EDX], usize::from(port))?;
    put(&[0xff, 0x14, 0x25], field!(from_stub))?; // call *from_stub
    put(&[0x48, 0x8b, 0x24, 0x25], field!(guest_rsp))?; // mov guest_rsp, %rsp
    code.push(JUMP);
    code.extend(distance(at + code.len() as u64 + 4, back_to)?);
    code.resize(usize_from(STUB_LEN), 0xcc);
    code.try_into().ok()
}

/// A jump's operand: how far it is from the end of the jump to its target.
fn distance(end: u64, target: u64) -> Option<[u8; 4]> {
    i32::try_from(target.cast_signed() - end.cast_signed()).ok().map(i32::to_le_bytes)
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
