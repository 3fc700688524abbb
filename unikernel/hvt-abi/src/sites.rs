//! Hypercalls in machine code: where an image makes them in the one way that compilers have for Solo5's inline assembly,
//! `mov $0x50n, %edx` and `out %eax, (%dx)`.
//!
//! A tender that runs guests without virtualisation replaces these by jumps, which is much faster than to let the `out`
//! trap. So that nothing else is ever taken for one, a decoder is asked whether an instruction begins there at all.

use memchr::memmem;
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::amd64::InstDecoder;

use crate::hypercall::{Hypercall, PORT_BASE};

/// Length of a site in bytes: the `mov`'s five, and the `out`.
pub const SITE_LEN: usize = 6;

/// `mov` of 32 bits to `%edx`.
pub const MOV_EDX: u8 = 0xba;

/// The end of a site: the high bytes of the port, and `out`.
const TAIL: [u8; 4] = [0x05, 0x00, 0x00, 0xef];

/// A hypercall in machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Offset of its `mov` in bytes.
    pub at: usize,
    /// What it asks for.
    pub hypercall: Hypercall,
}

/// All sites in `code`, in order.
pub fn sites(code: &[u8]) -> impl Iterator<Item = Site> {
    memmem::find_iter(code, &TAIL).filter_map(|tail| {
        let at = tail.checked_sub(2)?;
        let [mov, number, ..] = *code.get(at..at + SITE_LEN)? else { return None };
        let hypercall = Hypercall::from_port(PORT_BASE | u16::from(number))?;
        (mov == MOV_EDX && is_boundary(code, at)).then_some(Site { at, hypercall })
    })
}

/// Whether an instruction begins at `at`.
///
/// Machine code can be read forwards only, and where to begin is unknown: not all code has symbols. But reading that begins
/// in the middle of an instruction falls into step after a few, so what most of several readings say is true.
fn is_boundary(code: &[u8], at: usize) -> bool {
    /// How far before to begin, and how many readings to begin there.
    const BEFORE: usize = 64;
    const READINGS: usize = 8;
    let first = at.saturating_sub(BEFORE);
    let starts = first..at.min(first + READINGS);
    let readings = starts.len();
    let hits = starts.filter(|start| reaches(code, *start, at)).count();
    2 * hits > readings || at == 0
}

/// Whether reading from `start` comes to `at`.
fn reaches(code: &[u8], start: usize, at: usize) -> bool {
    let decoder = InstDecoder::default();
    let mut here = start;
    while here < at {
        let rest = code.get(here..).unwrap_or_default();
        // What is no instruction is data, or read out of step: on with the next byte.
        let len = decoder.decode_slice(rest).map_or(1, |instruction| instruction.len().to_const());
        here = here.saturating_add(usize::try_from(len).unwrap_or(1).max(1));
    }
    here == at
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::{Hypercall, SITE_LEN, Site, sites};

    const PUTS: [u8; SITE_LEN] = [0xba, 0x02, 0x05, 0x00, 0x00, 0xef];

    fn found(code: &[&[u8]]) -> Vec<Site> {
        sites(&code.concat()).collect()
    }

    #[test]
    fn given_hypercalls_between_instructions_when_searched_then_all_are_found() {
        // push %rbp; mov %rsp, %rbp; sub $0x20, %rsp; lea -0x10(%rbp), %rax
        let before = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0x48, 0x8d, 0x45, 0xf0];
        let poll = [0xba, 0x03, 0x05, 0x00, 0x00, 0xef];
        let expected =
            [Site { at: 12, hypercall: Hypercall::Puts }, Site { at: 30, hypercall: Hypercall::Poll }];
        assert_eq!(found(&[&before, &PUTS, &before, &poll, &[0xc9, 0xc3]]), expected);
        assert_eq!(found(&[&PUTS]), [Site { at: 0, hypercall: Hypercall::Puts }]);
        // After a long way.
        let nops = [0x90; 1000];
        assert_eq!(found(&[&nops, &PUTS]), [Site { at: 1000, hypercall: Hypercall::Puts }]);
    }

    #[test]
    fn given_ports_that_are_no_hypercalls_when_searched_then_they_are_left() {
        for port in [0x00, 0x09, 0xff] {
            assert_eq!(found(&[&[0x90, 0xba, port, 0x05, 0x00, 0x00, 0xef]]), []);
        }
        assert_eq!(found(&[&PUTS[1..]]), []);
    }

    #[test]
    fn given_the_same_bytes_within_other_instructions_when_searched_then_they_are_left() {
        let code = [0x55, 0x48, 0x89, 0xe5].repeat(20);
        // movabs $…, %rax: six of its eight bytes are those of a site.
        assert_eq!(found(&[&code, &[0x48, 0xb8, 0x11], &PUTS, &[0x22], &code]), []);
        // mov $0x502, %r10d; out.
        assert_eq!(found(&[&code, &[0x41], &PUTS, &code]), []);
        // movl $0x502ba…, 0x7(%rax) and so on: the last four bytes are an operand's.
        assert_eq!(found(&[&code, &[0xc7, 0x80, 0xba, 0x02, 0x05, 0x00, 0x00, 0xef, 0x11, 0x22], &code]), []);
    }
}
