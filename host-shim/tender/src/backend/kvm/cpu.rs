//! The state in which a guest finds its CPU: 64-bit mode, flat segments, memory mapped one to one.
//!
//! The tables lie below the first page that a guest can reach, so it can neither read nor change them. As upstream has
//! it, nothing is mapped below the boot information, the tender's data from there to the guest's base are read-only, and
//! all above can be written; that code cannot is the host's doing (the loader protects its pages). Beyond upstream, only
//! code can be executed.

use std::ops::Range;

use hvt_abi::boot::{BOOT_INFO_BASE, GUEST_MIN_BASE, GUEST_PAGE_SIZE};
use kvm_bindings::{kvm_cpuid_entry2, kvm_dtable, kvm_segment, kvm_sregs};

use crate::memory::usize_from;

/// Where the tables begin, and their length in bytes.
pub const TABLES: u64 = GDT;
pub const TABLES_LEN: u64 = BOOT_INFO_BASE - TABLES;

const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
/// Four page directories one after the other, one for each GiB.
const DIRECTORIES: u64 = 0x4000;
/// From here on page tables, each for 2 MiB in which not all pages are alike. There is room for eight.
const PAGE_TABLES: u64 = 0x8000;

const PAGE: u64 = 0x1000;
const GIB: u64 = 1 << 30;

/// Bits of an entry in a page table (Intel SDM volume 3, section 4.5).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// Code: execute-only, accessed, 64-bit. Data: read-write, accessed. Both flat, as upstream has them.
const CODE: u64 = 0x00af_9900_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
pub const CODE_SELECTOR: u16 = 0x08;
pub const DATA_SELECTOR: u16 = 0x10;
/// Null, code, data.
const GDT_LIMIT: u16 = 3 * 8 - 1;
/// The type of a 64-bit TSS in use, which a CPU must have in its task register to enter 64-bit mode.
const BUSY_TSS: u8 = 11;

const CR0_PROTECTED: u64 = 1 << 0;
const CR0_NUMERIC_ERROR: u64 = 1 << 5;
const CR0_WRITE_PROTECT: u64 = 1 << 16;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_FXSR: u64 = 1 << 9;
const CR4_SIMD_EXCEPTIONS: u64 = 1 << 10;
const EFER_LONG_MODE_ENABLED: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const EFER_NO_EXECUTE: u64 = 1 << 11;

/// Bit 1 of RFLAGS is always set.
pub const RFLAGS_RESERVED: u64 = 1 << 1;

/// Fills `tables`, guest memory from [`TABLES`] on, for a guest with `memory_bytes` of memory (a multiple of
/// GUEST_PAGE_SIZE, at most 4 GiB) that may execute what lies in `code` (whole pages).
pub fn write_tables(tables: &mut [u8], memory_bytes: u64, code: &[Range<u64>]) {
    let mut put = |table: u64, index: u64, value: u64| {
        let at = usize_from(table - TABLES + index * 8);
        tables[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    put(GDT, 1, CODE);
    put(GDT, 2, DATA);
    put(PML4, 0, PDPT | PRESENT | WRITABLE);
    for gib in 0..memory_bytes.div_ceil(GIB) {
        put(PDPT, gib, (DIRECTORIES + gib * PAGE) | PRESENT | WRITABLE);
    }
    let mut free = PAGE_TABLES;
    for (index, base) in (0..memory_bytes).step_by(usize_from(GUEST_PAGE_SIZE)).enumerate() {
        let region = base..base + GUEST_PAGE_SIZE;
        // The directories are contiguous, so one index runs through all of them.
        let index = index as u64;
        let mixed = base == 0 || code.iter().any(|code| overlap(code, &region) && !covers(code, &region));
        if mixed && free < BOOT_INFO_BASE {
            put(DIRECTORIES, index, free | PRESENT | WRITABLE);
            for (index, page) in region.step_by(usize_from(PAGE)).enumerate() {
                put(free, index as u64, page_entry(page, code));
            }
            free += PAGE;
        } else {
            // Where the tables have run out, data beside code can be executed as well, as with upstream.
            let execute = code.iter().any(|code| overlap(code, &region));
            put(DIRECTORIES, index, base | PRESENT | WRITABLE | LARGE | if execute { 0 } else { NO_EXECUTE });
        }
    }
}

/// The page table's entry for the page at `address`.
fn page_entry(address: u64, code: &[Range<u64>]) -> u64 {
    if address < BOOT_INFO_BASE {
        return 0;
    }
    let writable = if address < GUEST_MIN_BASE { 0 } else { WRITABLE };
    let execute = code.iter().any(|code| code.contains(&address));
    address | PRESENT | writable | if execute { 0 } else { NO_EXECUTE }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn covers(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Control registers and segments for 64-bit mode on these tables.
pub fn special_registers() -> kvm_sregs {
    let data = segment(DATA_SELECTOR, DATA);
    kvm_sregs {
        cr0: CR0_PROTECTED | CR0_NUMERIC_ERROR | CR0_WRITE_PROTECT | CR0_PAGING,
        cr3: PML4,
        cr4: CR4_PAE | CR4_FXSR | CR4_SIMD_EXCEPTIONS,
        efer: EFER_LONG_MODE_ENABLED | EFER_LONG_MODE_ACTIVE | EFER_NO_EXECUTE,
        cs: segment(CODE_SELECTOR, CODE),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: kvm_segment { type_: BUSY_TSS, present: 1, ..Default::default() },
        ldt: kvm_segment { unusable: 1, ..Default::default() },
        gdt: kvm_dtable { base: GDT, limit: GDT_LIMIT, ..Default::default() },
        ..Default::default()
    }
}

/// What the CPU has loaded when `selector` means the flat segment `descriptor`.
fn segment(selector: u16, descriptor: u64) -> kvm_segment {
    let [.., access, flags, _] = descriptor.to_le_bytes();
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: access & 0xf,
        s: access >> 4 & 1,
        dpl: access >> 5 & 3,
        present: access >> 7,
        l: flags >> 5 & 1,
        db: flags >> 6 & 1,
        g: flags >> 7,
        ..Default::default()
    }
}

/// Takes the host's virtualisation (VMX, SVM) from what a guest's CPU is said to have. Guests of guests are nobody's need
/// here, and much of KVM is code for them, which a guest could reach.
pub fn hide_virtualisation(feature: &mut kvm_cpuid_entry2) {
    feature.ecx &= match feature.function {
        1 => !(1 << 5),
        0x8000_0001 => !(1 << 2),
        _ => !0,
    };
}

#[cfg(test)]
mod tests {
    use super::{
        BOOT_INFO_BASE, GIB, GUEST_MIN_BASE, GUEST_PAGE_SIZE, LARGE, NO_EXECUTE, PAGE, PML4, PRESENT, Range,
        TABLES, TABLES_LEN, WRITABLE, hide_virtualisation, kvm_cpuid_entry2, usize_from, write_tables,
    };

    #[test]
    fn a_guest_has_all_features_but_virtualisation() {
        for (function, hidden) in [(0, 0), (1, 1 << 5), (7, 0), (0x8000_0001, 1 << 2), (0x8000_0008, 0)] {
            let all = kvm_cpuid_entry2 { function, eax: !0, ebx: !0, ecx: !0, edx: !0, ..Default::default() };
            let mut left = all;
            hide_virtualisation(&mut left);
            assert_eq!(left, kvm_cpuid_entry2 { ecx: !hidden, ..all }, "{function:#x}");
        }
    }

    #[derive(Debug, PartialEq)]
    struct Page {
        address: u64,
        write: bool,
        execute: bool,
    }

    fn tables(memory_bytes: u64, code: &[Range<u64>]) -> Vec<u8> {
        let mut tables = vec![0; usize_from(TABLES_LEN)];
        write_tables(&mut tables, memory_bytes, code);
        tables
    }

    /// Walks the tables as the CPU does.
    fn translate(tables: &[u8], address: u64) -> Option<Page> {
        let mut page = Page { address: PML4, write: true, execute: true };
        for shift in [39, 30, 21, 12] {
            let at = usize_from(page.address - TABLES + (address >> shift & 0x1ff) * 8);
            let entry = u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
            if entry & PRESENT == 0 {
                return None;
            }
            page.address = entry & 0x000f_ffff_ffff_f000;
            page.write &= entry & WRITABLE != 0;
            page.execute &= entry & NO_EXECUTE == 0;
            if shift == 12 || (shift == 21 && entry & LARGE != 0) {
                page.address |= address & ((1 << shift) - 1);
                return Some(page);
            }
        }
        unreachable!("the last level returns");
    }

    #[test]
    fn given_any_memory_size_when_mapped_then_exactly_the_guests_memory_is_reachable() {
        let code = GUEST_MIN_BASE..GUEST_MIN_BASE + PAGE;
        for memory in [GUEST_PAGE_SIZE, 32 << 20, GIB, GIB + GUEST_PAGE_SIZE, 3 * GIB, 4 * GIB] {
            let tables = tables(memory, std::slice::from_ref(&code));
            for address in [0, 8, TABLES, BOOT_INFO_BASE - 1, memory, memory + GIB, 1 << 33, 1 << 39] {
                assert_eq!(translate(&tables, address), None, "{address:#x} of {memory:#x}");
            }
            for address in [BOOT_INFO_BASE, GUEST_MIN_BASE - 1] {
                let read_only = Page { address, write: false, execute: false };
                assert_eq!(translate(&tables, address), Some(read_only));
            }
            for address in [GUEST_MIN_BASE + PAGE, GUEST_PAGE_SIZE - 1, memory / 2 + PAGE, memory - 1] {
                let data = Page { address, write: true, execute: false };
                assert_eq!(translate(&tables, address), Some(data), "of {memory:#x}");
            }
        }
    }

    #[test]
    fn given_code_across_large_pages_when_mapped_then_exactly_it_can_be_executed() {
        let code = [GUEST_MIN_BASE..7 << 20, 0x90_1000..0x90_2000];
        let tables = tables(32 << 20, &code);
        for address in (GUEST_MIN_BASE..32 << 20).step_by(usize_from(PAGE)) {
            let execute = code.iter().any(|code| code.contains(&address));
            assert_eq!(translate(&tables, address).map(|page| page.execute), Some(execute), "{address:#x}");
        }
    }

    #[test]
    fn given_code_in_more_places_than_there_are_tables_when_mapped_then_all_of_it_can_be_executed() {
        let code: Vec<_> =
            (0..16).map(|n| (n << 21) + GUEST_MIN_BASE..(n << 21) + GUEST_MIN_BASE + PAGE).collect();
        let tables = tables(32 << 20, &code);
        for code in code {
            assert!(translate(&tables, code.start).is_some_and(|page| page.execute));
        }
    }
}
