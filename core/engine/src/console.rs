//! What is kept of one console: the last bytes, when they arrived, where bytes are missing, and where another start
//! of the unikernel began.
//!
//! A cursor counts all that was ever written, lost bytes and lines included, so a reader's cursor stays valid whatever
//! is dropped, and the difference of two is what lies between.

use alloc::{collections::VecDeque, vec::Vec};

use petrel_wire::{
    Blob, ExitStatus, Name,
    limits::{CONSOLE_BYTES_MAX, CONSOLE_HISTORY_BYTES},
    operator::{ConsoleBrief, Response},
    shim::InstanceId,
};

use crate::{SessionId, limits::CONSOLE_ENTRIES_MAX};

/// The console of a name.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// The start of the unikernel that writes to it now, or did last.
    pub instance: Option<InstanceId>,
    /// How that ended, if it has.
    pub ended: Option<ExitStatus>,
    /// The session of each stream that reads it; a session with two streams is in it twice.
    pub readers: Vec<SessionId>,
    entries: VecDeque<Entry>,
    kept: VecDeque<u8>,
    /// Where `instance` began.
    began: Cursor,
    /// The first entry that is kept.
    start: Cursor,
    /// Behind the last one.
    end: Cursor,
}

/// A place in a console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    entry: u64,
    byte: u64,
    /// The lines that ended before it.
    line: u64,
}

#[derive(Debug)]
struct Entry {
    what: What,
    /// What is in it, as far as it is kept.
    bytes: u64,
    lines: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Bytes that arrived within one second, the first of them then.
    Written { wall_ms: u64 },
    /// Bytes that nobody has.
    Lost,
    /// What follows was written by another start of the unikernel.
    Began { wall_ms: u64 },
}

/// What a reader finds at its cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// These bytes, which arrived about then.
    Bytes { wall_ms: u64, data: Blob<CONSOLE_BYTES_MAX> },
    /// So much is not to be had any more.
    Missed { bytes: u64, lines: u64 },
    /// Another start of the unikernel.
    Began { wall_ms: u64 },
}

impl Console {
    /// The unikernel has written `bytes`.
    pub fn push(&mut self, wall_ms: u64, bytes: &[u8]) {
        let second = |ms: u64| ms / 1000;
        let new = What::Written { wall_ms };
        let is_same =
            |what| matches!(what, What::Written { wall_ms: then } if second(then) == second(wall_ms));
        self.kept.extend(bytes);
        self.extend(new, is_same, bytes.len() as u64, newlines(bytes));
    }

    /// It has written so much that nobody has.
    pub fn lose(&mut self, bytes: u64, lines: u64) {
        if bytes > 0 {
            self.extend(What::Lost, |what| what == What::Lost, bytes, lines);
        }
    }

    /// From here on it is this start of the unikernel that writes.
    pub fn begin(&mut self, instance: InstanceId, wall_ms: u64) {
        if self.instance.is_some_and(|before| before != instance) {
            self.extend(What::Began { wall_ms }, |_| false, 0, 0);
            self.began = Cursor { entry: self.end.entry + 1, ..self.end };
        }
        self.instance = Some(instance);
        self.ended = None;
    }

    /// Appends what `other` holds.
    pub fn append(&mut self, mut other: Self) {
        for Entry { what, bytes, lines } in other.entries {
            match what {
                What::Lost => self.lose(bytes, lines),
                What::Began { .. } => self.extend(what, |_| false, 0, 0),
                What::Written { wall_ms } => {
                    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(other.kept.len());
                    let written: Vec<u8> = other.kept.drain(..length).collect();
                    self.push(wall_ms, &written);
                }
            }
        }
    }

    fn extend(&mut self, what: What, is_same: impl Fn(What) -> bool, bytes: u64, lines: u64) {
        match self.entries.back_mut() {
            Some(last) if is_same(last.what) => {
                last.bytes = last.bytes.saturating_add(bytes);
                last.lines = last.lines.saturating_add(lines);
            }
            last => {
                // The end is in the last entry, as long as that may grow.
                self.end.entry += u64::from(last.is_some());
                self.entries.push_back(Entry { what, bytes, lines });
            }
        }
        self.end.byte = self.end.byte.saturating_add(bytes);
        self.end.line = self.end.line.saturating_add(lines);
        self.trim();
    }

    /// Drops the oldest until all is within its bounds.
    fn trim(&mut self) {
        while self.kept.len() > CONSOLE_HISTORY_BYTES || self.entries.len() > CONSOLE_ENTRIES_MAX {
            let surplus = self.kept.len().saturating_sub(CONSOLE_HISTORY_BYTES) as u64;
            let is_whole = self.entries.len() > CONSOLE_ENTRIES_MAX;
            let Some(first) = self.entries.front_mut() else { return };
            let is_written = matches!(first.what, What::Written { .. });
            let bytes = if is_written && !is_whole { first.bytes.min(surplus) } else { first.bytes };
            let lines = if is_written { drop_first(&mut self.kept, bytes) } else { first.lines };
            (first.bytes, first.lines) = (first.bytes - bytes, first.lines.saturating_sub(lines));
            self.start.byte = self.start.byte.saturating_add(bytes);
            self.start.line = self.start.line.saturating_add(lines);
            if first.bytes == 0 && self.entries.len() > 1 {
                self.entries.pop_front();
                self.start.entry += 1;
            }
        }
    }

    /// Behind the last byte.
    pub fn end(&self) -> Cursor {
        self.end
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.start.byte == self.end.byte
    }

    /// The bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.kept.len()
    }

    /// The parts that are told apart.
    #[cfg(feature = "inspect")]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Gives back memory that only one that grows has a use for.
    pub fn shrink(&mut self) {
        self.kept.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// In brief.
    pub fn brief(&self, name: Name, exists: bool) -> ConsoleBrief {
        let mut arrived = self.entries.iter().filter_map(|entry| match entry.what {
            What::Written { wall_ms } => Some(wall_ms),
            What::Lost | What::Began { .. } => None,
        });
        let oldest = arrived.next();
        ConsoleBrief {
            name,
            exists,
            bytes: self.kept.len() as u64,
            lines: self.end.line.saturating_sub(self.start.line),
            arrived_ms: oldest.map(|oldest| (oldest, arrived.next_back().unwrap_or(oldest))),
        }
    }

    /// The entries, each with its place.
    fn places(&self) -> impl Iterator<Item = (Cursor, &Entry)> {
        self.entries.iter().scan(self.start, |next, entry| {
            let at = *next;
            *next = Cursor { entry: at.entry + 1, ..at.behind(entry) };
            Some((at, entry))
        })
    }

    /// Where that begins which arrived at `wall_ms` or later; told by whole seconds.
    pub fn since(&self, wall_ms: u64) -> Cursor {
        let is_later = |entry: &Entry| match entry.what {
            What::Written { wall_ms: then } | What::Began { wall_ms: then } => then / 1000 >= wall_ms / 1000,
            What::Lost => false,
        };
        self.places().find(|(_, entry)| is_later(entry)).map_or(self.end, |(at, _)| at)
    }

    /// Where that begins which the present start of the unikernel wrote, or the last one.
    pub fn latest(&self) -> Cursor {
        self.began
    }

    /// Where the last `lines` lines begin. One that has not ended yet is a line too.
    pub fn tail(&self, lines: u64) -> Cursor {
        let is_whole = self.kept.back().is_none_or(|last| *last == b'\n');
        let before = self.end.line.saturating_add(u64::from(!is_whole)).saturating_sub(lines);
        let mut offset = 0;
        for (at, entry) in self.places() {
            let behind = at.behind(entry);
            let is_written = matches!(entry.what, What::Written { .. });
            if behind.line >= before && is_written {
                let length = usize::try_from(entry.bytes).unwrap_or(usize::MAX);
                let mut left = before.saturating_sub(at.line);
                let bytes = self.kept.iter().skip(offset).take(length);
                let skipped = bytes.take_while(|byte| {
                    let is_before = left > 0;
                    left -= u64::from(is_before && **byte == b'\n');
                    is_before
                });
                let byte = at.byte + skipped.count() as u64;
                return Cursor { byte, line: at.line.max(before), ..at };
            }
            offset += if is_written { usize::try_from(entry.bytes).unwrap_or(0) } else { 0 };
        }
        self.end
    }

    /// What there is at `cursor`, and the cursor behind it; `None` at the end.
    pub fn read(&self, mut cursor: Cursor) -> Option<(Piece, Cursor)> {
        if cursor.byte < self.start.byte {
            return Some((self.start.after(cursor), self.start));
        }
        cursor.entry = cursor.entry.max(self.start.entry);
        let mut offset = None;
        loop {
            let index = usize::try_from(cursor.entry - self.start.entry).ok()?;
            let entry = self.entries.get(index)?;
            let (at, kept) = *offset.get_or_insert_with(|| self.place(index));
            let behind = at.behind(entry);
            let next = Cursor { entry: cursor.entry + 1, ..behind };
            match entry.what {
                What::Began { wall_ms } => return Some((Piece::Began { wall_ms }, next)),
                // All of it has been read; the last one may grow.
                _ if cursor.byte >= behind.byte && cursor.entry == self.end.entry => return None,
                _ if cursor.byte >= behind.byte => (cursor.entry, offset) = (cursor.entry + 1, None),
                What::Lost => {
                    return Some((behind.after(cursor), Cursor { entry: cursor.entry, ..behind }));
                }
                What::Written { wall_ms } => {
                    let skip = kept + usize::try_from(cursor.byte - at.byte).ok()?;
                    return Some(self.take(cursor, wall_ms, skip, behind.byte - cursor.byte));
                }
            }
        }
    }

    /// The place of an entry, and of its bytes among those kept.
    fn place(&self, index: usize) -> (Cursor, usize) {
        let before = self.places().take(index);
        let written = before.filter(|(_, entry)| matches!(entry.what, What::Written { .. }));
        let kept = written.map(|(_, entry)| usize::try_from(entry.bytes).unwrap_or(0)).sum();
        (self.places().nth(index).map_or(self.end, |(at, _)| at), kept)
    }

    /// The next piece of up to `most` bytes, the first of which is the `skip`th kept.
    fn take(&self, cursor: Cursor, wall_ms: u64, skip: usize, most: u64) -> (Piece, Cursor) {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(CONSOLE_BYTES_MAX);
        let bytes: Vec<u8> = self.kept.range(skip..).take(length).copied().collect();
        let behind =
            Cursor { byte: cursor.byte + bytes.len() as u64, line: cursor.line + newlines(&bytes), ..cursor };
        (Piece::Bytes { wall_ms, data: Blob::try_from(bytes).unwrap_or_default() }, behind)
    }

    /// One of a session's streams no longer reads it.
    pub fn remove_reader(&mut self, session: SessionId) {
        if let Some(index) = self.readers.iter().position(|&reader| reader == session) {
            self.readers.swap_remove(index);
        }
    }
}

impl Cursor {
    /// Whether it is at or behind the byte at `other`.
    pub fn has_reached(self, other: Self) -> bool {
        self.byte >= other.byte
    }

    /// The later of two.
    pub fn later(self, other: Self) -> Self {
        if other.byte >= self.byte { other } else { self }
    }

    /// What lies between `earlier` and this, as missed.
    pub fn after(self, earlier: Self) -> Piece {
        Piece::Missed {
            bytes: self.byte.saturating_sub(earlier.byte),
            lines: self.line.saturating_sub(earlier.line),
        }
    }

    fn behind(self, entry: &Entry) -> Self {
        Self {
            byte: self.byte.saturating_add(entry.bytes),
            line: self.line.saturating_add(entry.lines),
            ..self
        }
    }
}

impl From<Piece> for Response {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Bytes { wall_ms, data } => Self::Console { wall_ms, data },
            Piece::Missed { bytes, lines } => Self::ConsoleMissed { bytes, lines },
            Piece::Began { wall_ms } => Self::ConsoleBegan { wall_ms },
        }
    }
}

/// Drops the first `bytes` of `kept`; how many lines ended in them.
fn drop_first(kept: &mut VecDeque<u8>, bytes: u64) -> u64 {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(kept.len());
    let (first, second) = kept.as_slices();
    let in_first = length.min(first.len());
    let lines = newlines(&first[..in_first]) + newlines(&second[..length - in_first]);
    kept.drain(..length);
    lines
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::String};

    use super::*;

    /// All that a reader from `cursor` on gets: the text, with `(n/m)` for n missed bytes and m missed lines, and
    /// `|` for another start.
    fn read_all(console: &Console, mut cursor: Cursor) -> String {
        let mut all = String::new();
        while let Some((piece, next)) = console.read(cursor) {
            assert!(next != cursor && next.has_reached(cursor), "a reader always gets on");
            match piece {
                Piece::Bytes { data, .. } => all.push_str(core::str::from_utf8(&data).unwrap()),
                Piece::Missed { bytes, lines } => all.push_str(&format!("({bytes}/{lines})")),
                Piece::Began { .. } => all.push('|'),
            }
            cursor = next;
        }
        assert_eq!((cursor.byte, cursor.line), (console.end.byte, console.end.line));
        all
    }

    fn all_of(console: &Console) -> String {
        read_all(console, Cursor::default())
    }

    #[test]
    fn lost_bytes_are_told_where_they_were_lost() {
        let mut console = Console::default();
        console.lose(3, 1);
        console.push(0, b"one ");
        console.lose(5, 0);
        console.lose(2, 2);
        console.push(0, b"two");
        console.lose(0, 0);
        assert_eq!(all_of(&console), "(3/1)one (7/2)two");
        let (_, behind) = console.read(console.start).unwrap();
        assert_eq!(read_all(&console, Cursor { byte: 5, ..behind }), "e (7/2)two");
    }

    #[test]
    fn only_the_latest_bytes_are_kept_and_lines_are_counted() {
        let mut console = Console::default();
        console.push(0, b"gone\n\n");
        console.lose(6, 1);
        console.push(0, b"half");
        console.push(5000, &[b'x'; CONSOLE_HISTORY_BYTES - 2]);
        let kept = all_of(&console);
        assert_eq!(&kept[..12], "(14/3)lfxxxx");
        assert_eq!(kept.len(), "(14/3)".len() + CONSOLE_HISTORY_BYTES);
    }

    #[test]
    fn many_losses_cost_the_oldest_bytes_not_memory() {
        let mut console = Console::default();
        for _ in 0..10 * CONSOLE_ENTRIES_MAX {
            console.push(0, b"a");
            console.lose(1, 0);
        }
        assert_eq!(console.entries.len(), CONSOLE_ENTRIES_MAX);
        assert_eq!(console.kept.len(), CONSOLE_ENTRIES_MAX / 2);
        assert!(all_of(&console).starts_with(&format!("({}/0)a(1/0)a(1/0)", console.start.byte)));
        assert_eq!(console.end.byte - console.start.byte, CONSOLE_ENTRIES_MAX as u64);
    }

    #[test]
    fn numbers_that_cannot_be_are_no_panic() {
        let mut console = Console::default();
        console.lose(u64::MAX, u64::MAX);
        console.push(0, b"a\n");
        console.push(0, &[b'x'; 2 * CONSOLE_HISTORY_BYTES]);
        console.lose(u64::MAX, u64::MAX);
        console.push(9000, &[b'x'; 2 * CONSOLE_HISTORY_BYTES]);
        assert_eq!(console.bytes(), CONSOLE_HISTORY_BYTES);
    }

    #[test]
    fn another_start_leaves_a_mark_and_its_own_part_can_be_had_alone() {
        let mut console = Console::default();
        console.begin(InstanceId(1), 0);
        console.push(0, b"first\n");
        console.begin(InstanceId(1), 0);
        console.begin(InstanceId(2), 9000);
        assert_eq!(all_of(&console), "first\n|");
        console.push(9000, b"second\n");
        assert_eq!(all_of(&console), "first\n|second\n");
        assert_eq!(read_all(&console, console.latest()), "second\n");
        console.push(9000, &[b'x'; CONSOLE_HISTORY_BYTES]);
        let kept = read_all(&console, console.latest());
        assert_eq!(&kept[..9], "(7/1)xxxx", "what is not kept of it is told");
    }

    #[test]
    fn what_arrived_since_a_moment_is_told_by_the_second() {
        let mut console = Console::default();
        for (wall_ms, text) in [(1000, "a\n"), (1999, "b\n"), (2000, "c\n"), (5000, "d\n")] {
            console.push(wall_ms, text.as_bytes());
        }
        let since = |wall_ms| read_all(&console, console.since(wall_ms));
        assert_eq!([since(0), since(1500), since(2000)], ["a\nb\nc\nd\n", "a\nb\nc\nd\n", "c\nd\n"]);
        assert_eq!([since(2001), since(3000), since(6000)], ["c\nd\n", "d\n", ""]);
    }

    #[test]
    fn the_tail_is_whole_lines_and_the_one_that_has_not_ended() {
        let mut console = Console::default();
        console.push(0, b"one\ntwo\n");
        console.lose(9, 3);
        console.push(5000, b"three\nfo");
        let tail = |console: &Console, lines| read_all(console, console.tail(lines));
        let expected = ["", "fo", "three\nfo", "three\nfo", "(9/3)three\nfo"];
        assert_eq!([0, 1, 2, 3, 5].map(|lines| tail(&console, lines)), expected);
        assert_eq!(tail(&console, 6), "two\n(9/3)three\nfo");
        assert_eq!(tail(&console, 99), "one\ntwo\n(9/3)three\nfo");
        console.push(9000, b"ur\n");
        assert_eq!([1, 2].map(|lines| tail(&console, lines)), ["four\n", "three\nfour\n"]);
    }

    #[test]
    fn what_came_early_is_appended_as_it_was() {
        let (mut console, mut early) = (Console::default(), Console::default());
        console.push(0, b"known ");
        early.lose(7, 1);
        early.push(1000, b"early");
        console.append(early);
        assert_eq!(all_of(&console), "known (7/1)early");
    }
}
