//! What the host's kernel tells of a process, as proc(5) has it. What is not understood is nothing, or zero: a statistic is
//! no reason to give up the link.

use alloc::vec::Vec;

use petrel_wire::operator::{Flow, Storage, Traffic};

/// The unit of times in `/proc/[pid]/stat`, in milliseconds: USER_HZ is 100 on every Linux for x86_64.
const TICK_MS: u64 = 10;
/// A page of memory, in KiB.
const PAGE_KIB: u64 = 4;

/// What `/proc/[pid]/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub run_ms: u64,
    pub cpu_ms: u64,
    pub resident_kib: u64,
}

/// Reads `/proc/uptime` and `/proc/[pid]/stat`.
pub(crate) fn process(uptime: &[u8], stat: &[u8]) -> Option<Process> {
    // The second field, in parentheses, may hold anything; behind it, the third is the first here.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = numbers(stat.get(end + 1..)?);
    let field = |number: usize| fields.get(number - 3).copied();
    let (user, system, started, pages) = (field(14)?, field(15)?, field(22)?, field(24)?);
    Some(Process {
        run_ms: uptime_ms(uptime).saturating_sub(started.saturating_mul(TICK_MS)),
        cpu_ms: user.saturating_add(system).saturating_mul(TICK_MS),
        resident_kib: pages.saturating_mul(PAGE_KIB),
    })
}

/// Seconds with two decimals.
fn uptime_ms(uptime: &[u8]) -> u64 {
    let seconds = uptime.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let digits: Vec<u8> = seconds.iter().copied().filter(|byte| *byte != b'.').collect();
    number(&digits).saturating_mul(10)
}

/// Reads a tap's line of `/proc/net/dev`. What the host received its guest has sent.
pub(crate) fn traffic(line: &[u8]) -> Traffic {
    let start = line.iter().position(|byte| *byte == b':').map_or(line.len(), |colon| colon + 1);
    let columns = numbers(line.get(start..).unwrap_or_default());
    let column = |index: usize| columns.get(index).copied().unwrap_or(0);
    let flow =
        |first: usize| Flow { bytes: column(first), packets: column(first + 1), dropped: column(first + 3) };
    Traffic { received: flow(8), sent: flow(0) }
}

/// Reads `/proc/[pid]/io`.
pub(crate) fn storage(io: &[u8]) -> Option<Storage> {
    let field = |name: &[u8]| {
        let rest = io.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
        Some(number(rest.trim_ascii()))
    };
    Some(Storage { read_bytes: field(b"read_bytes:")?, written_bytes: field(b"write_bytes:")? })
}

fn numbers(text: &[u8]) -> Vec<u64> {
    let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.map(number).collect()
}

fn number(word: &[u8]) -> u64 {
    core::str::from_utf8(word).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = b"4711 (a) b (c) S 1 4711 4711 0 -1 4194560 905 0 0 0 150 25 0 0 20 0 1 0 1200 \
        37101568 2050 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let read = process(b"100.25 380.00\n", STAT);
        assert_eq!(read, Some(Process { run_ms: 88_250, cpu_ms: 1750, resident_kib: 8200 }));
    }

    #[test]
    fn what_is_cut_or_empty_is_nothing_and_no_panic() {
        assert_eq!(process(b"", b""), None);
        for cut in 0..STAT.len() {
            let _ = process(&STAT[cut..], &STAT[..cut]);
        }
        assert_eq!((traffic(b""), storage(b"")), (Traffic::default(), None));
        assert_eq!(traffic(b"pt1: x y z"), Traffic::default());
    }

    #[test]
    fn a_tap_is_read_as_its_guest_sees_it() {
        let line = b"   pt7:    1001     11    0    2    0     0          0         0   5005      55    0    3    0     0       0          0";
        let received = Flow { bytes: 5005, packets: 55, dropped: 3 };
        let sent = Flow { bytes: 1001, packets: 11, dropped: 2 };
        assert_eq!(traffic(line), Traffic { received, sent });
    }

    #[test]
    fn storage_is_read_where_the_kernel_tells() {
        let io = b"rchar: 9\nwchar: 9\nsyscr: 9\nsyscw: 9\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n";
        assert_eq!(storage(io), Some(Storage { read_bytes: 4096, written_bytes: 8192 }));
    }
}
