//! The consoles: what is kept of each, and who reads it.
//!
//! A position counts the bytes that the guest has written since this control plane knows it, lost ones
//! included, so a reader's cursor stays valid whatever is dropped.

use alloc::{collections::VecDeque, vec::Vec};
use core::ops::Range;

use petrel_wire::{
    Blob,
    limits::{CONSOLE_BYTES_MAX, CONSOLE_HISTORY_BYTES},
};

use crate::{SessionId, limits::CONSOLE_GAPS_MAX};

/// One unikernel's console.
#[derive(Debug, Default)]
pub(crate) struct Console {
    kept: VecDeque<u8>,
    /// The position of the first byte kept.
    start: u64,
    /// The position of the next byte to come.
    end: u64,
    /// What was lost between `start` and `end`, in order, apart from each other.
    gaps: VecDeque<Range<u64>>,
    /// The session of each stream that reads it; a session with two streams is in it twice.
    pub readers: Vec<SessionId>,
}

/// What a reader finds at its cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// These bytes.
    Bytes(Blob<CONSOLE_BYTES_MAX>),
    /// So many bytes that are not to be had any more.
    Missed(u64),
}

impl Console {
    /// The guest has written `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        self.end += bytes.len() as u64;
        let surplus = self.kept.len().saturating_sub(CONSOLE_HISTORY_BYTES);
        if surplus > 0 {
            self.kept.drain(..surplus);
            self.advance_start(surplus as u64);
        }
    }

    /// The guest has written so many bytes that nobody has.
    pub fn lose(&mut self, bytes: u64) {
        let from = self.end;
        self.end = self.end.saturating_add(bytes);
        match self.gaps.back_mut() {
            Some(last) if last.end == from => last.end = self.end,
            _ if from == self.end => {}
            _ => self.gaps.push_back(from..self.end),
        }
        if self.gaps.len() > CONSOLE_GAPS_MAX {
            self.drop_to_first_gap();
        }
    }

    /// The position behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What there is at `cursor`, and the cursor behind it; `None` at the end.
    pub fn read(&self, cursor: u64) -> Option<(Piece, u64)> {
        if cursor >= self.end {
            return None;
        }
        if cursor < self.start {
            return Some((Piece::Missed(self.start - cursor), self.start));
        }
        let next_gap = self.gaps.iter().find(|gap| gap.end > cursor);
        if let Some(gap) = next_gap.filter(|gap| gap.start <= cursor) {
            return Some((Piece::Missed(gap.end - cursor), gap.end));
        }
        let until = next_gap.map_or(self.end, |gap| gap.start);
        let skip = self.index_of(cursor);
        let take = usize::try_from(until - cursor).unwrap_or(usize::MAX).min(CONSOLE_BYTES_MAX);
        let bytes: Vec<u8> = self.kept.iter().skip(skip).take(take).copied().collect();
        let cursor = cursor + bytes.len() as u64;
        Some((Piece::Bytes(Blob::try_from(bytes).unwrap_or_default()), cursor))
    }

    /// The bytes that are kept.
    #[cfg(feature = "inspect")]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The places where bytes were lost.
    #[cfg(feature = "inspect")]
    pub fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// One of a session's streams no longer reads it.
    pub fn remove_reader(&mut self, session: SessionId) {
        if let Some(index) = self.readers.iter().position(|&reader| reader == session) {
            self.readers.swap_remove(index);
        }
    }

    /// Where in `kept` the byte at `cursor` lies.
    fn index_of(&self, cursor: u64) -> usize {
        let lost: u64 = self.gaps.iter().filter(|gap| gap.end <= cursor).map(|gap| gap.end - gap.start).sum();
        usize::try_from(cursor - self.start - lost).unwrap_or(usize::MAX)
    }

    /// Moves `start` over so many bytes that are no longer kept, and over the gaps among them.
    fn advance_start(&mut self, mut bytes: u64) {
        while let Some(gap) = self.gaps.front().cloned() {
            let before = gap.start - self.start;
            if before > bytes {
                break;
            }
            bytes -= before;
            self.start = gap.end;
            self.gaps.pop_front();
        }
        self.start += bytes;
    }

    /// Gives up what was kept before the first gap.
    fn drop_to_first_gap(&mut self) {
        if let Some(gap) = self.gaps.front() {
            let before = gap.start - self.start;
            self.kept.drain(..usize::try_from(before).map_or(self.kept.len(), |n| n.min(self.kept.len())));
            self.advance_start(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a reader from `cursor` on gets: the bytes, with `(n)` for n missed ones.
    fn read_all(console: &Console, mut cursor: u64) -> alloc::string::String {
        let mut all = alloc::string::String::new();
        while let Some((piece, next)) = console.read(cursor) {
            assert!(next > cursor, "a reader always gets on");
            match piece {
                Piece::Bytes(bytes) => all.push_str(core::str::from_utf8(&bytes).unwrap()),
                Piece::Missed(n) => all.push_str(&alloc::format!("({n})")),
            }
            cursor = next;
        }
        assert_eq!(cursor, console.end());
        all
    }

    #[test]
    fn lost_bytes_are_told_where_they_were_lost() {
        let mut console = Console::default();
        console.lose(3);
        console.push(b"one ");
        console.lose(5);
        console.lose(2);
        console.push(b"two");
        console.lose(0);
        assert_eq!(read_all(&console, 0), "(3)one (7)two");
        assert_eq!(read_all(&console, 5), "e (7)two");
        assert_eq!(read_all(&console, 9), "(5)two");
    }

    #[test]
    fn only_the_latest_bytes_are_kept() {
        let mut console = Console::default();
        console.push(b"gone");
        console.lose(6);
        console.push(b"half");
        console.push(&[b'x'; CONSOLE_HISTORY_BYTES - 2]);
        let kept = read_all(&console, 0);
        assert_eq!(&kept[..10], "(12)lfxxxx");
        assert_eq!(kept.len(), "(12)".len() + CONSOLE_HISTORY_BYTES);
    }

    #[test]
    fn many_losses_cost_the_oldest_bytes_not_memory() {
        let mut console = Console::default();
        for _ in 0..10 * CONSOLE_GAPS_MAX {
            console.push(b"a");
            console.lose(1);
        }
        assert_eq!(console.gaps.len(), CONSOLE_GAPS_MAX);
        assert_eq!(console.kept.len(), CONSOLE_GAPS_MAX);
        assert!(read_all(&console, 0).starts_with(&alloc::format!("({})a(1)a(1)", console.start)));
        assert_eq!(console.end - console.start, 2 * CONSOLE_GAPS_MAX as u64);
    }
}
