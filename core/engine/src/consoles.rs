//! The consoles of all names: which unikernel writes to which, who reads them, and which are kept of those that are
//! no more.
//!
//! A console belongs to a name, not to a monitor: what another start of a unikernel writes follows what was there.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::ops::Bound;

use petrel_wire::{
    ExitStatus, List, Name, Path,
    limits::{CONSOLES_DEAD_BYTES_MAX, CONSOLES_DEAD_MAX, UNIKERNELS_MAX},
    operator::{ConsoleAsked, ConsoleBrief, Response},
    shim::InstanceId,
};

use crate::{
    Engine, SessionId,
    console::Console,
    session::Asker,
    stream::{Source, Step, Stream},
};

/// The consoles of which something is kept, and those that may come to it.
#[derive(Debug, Default)]
pub(crate) struct Consoles {
    by_name: BTreeMap<Name, Console>,
    /// Whose console each monitor writes to.
    writers: BTreeMap<InstanceId, Name>,
    /// Those of no unikernel, the longest dead first.
    dead: VecDeque<Name>,
    /// What monitors wrote that the shim has not listed yet.
    unclaimed: BTreeMap<InstanceId, Console>,
}

impl Consoles {
    /// The console of this name, if something is kept of it.
    pub fn of(&self, name: &Name) -> Option<&Console> {
        self.by_name.get(name)
    }

    /// The console that `instance`, which is a start of `name`, writes to.
    fn claim(&mut self, instance: InstanceId, name: &Name, wall_ms: u64) -> &mut Console {
        self.dead.retain(|dead| dead != name);
        let console = self.by_name.entry(name.clone()).or_default();
        if console.instance != Some(instance) {
            if let Some(before) = console.instance {
                self.writers.remove(&before);
            }
            self.writers.insert(instance, name.clone());
            console.begin(instance, wall_ms);
        }
        if let Some(early) = self.unclaimed.remove(&instance) {
            console.append(early);
        }
        console
    }

    /// The unikernel is no more. Returns the names whose consoles had to make room.
    fn bury(&mut self, name: Name, ended: Option<ExitStatus>) -> Vec<Name> {
        let Some(console) = self.by_name.get_mut(&name) else { return Vec::new() };
        console.ended = console.ended.or(ended);
        if console.is_empty() {
            return alloc::vec![name];
        }
        console.shrink();
        self.dead.push_back(name);
        let mut fallen = Vec::new();
        let bytes_of = |name: &Name| self.by_name.get(name).map_or(0, Console::bytes);
        let mut bytes: usize = self.dead.iter().map(bytes_of).sum();
        while self.dead.len() > CONSOLES_DEAD_MAX || bytes > CONSOLES_DEAD_BYTES_MAX {
            let Some(oldest) = self.dead.pop_front() else { break };
            bytes -= bytes_of(&oldest);
            fallen.push(oldest);
        }
        fallen
    }

    /// All of them.
    #[cfg(feature = "inspect")]
    pub fn iter(&self) -> impl Iterator<Item = &Console> {
        self.by_name.values().chain(self.unclaimed.values())
    }

    /// How many there are of unikernels that are no more, and how many bytes they keep.
    #[cfg(feature = "inspect")]
    pub fn dead(&self) -> (usize, usize) {
        let bytes = self.dead.iter().filter_map(|name| self.of(name)).map(Console::bytes);
        (self.dead.len(), bytes.sum())
    }

    /// How many streams read the console of this name.
    #[cfg(test)]
    pub fn readers(&self, name: &Name) -> usize {
        self.of(name).map_or(0, |console| console.readers.len())
    }
}

impl Engine {
    /// The console that a monitor writes to. While the shim has not told yet what runs, that of an unknown one is
    /// kept until it has.
    pub(crate) fn console_of(&mut self, instance: InstanceId) -> Option<&mut Console> {
        if let Some(unikernel) = self.state.by_id(instance) {
            return Some(self.consoles.claim(instance, unikernel.name(), self.now.wall_ms));
        }
        let unclaimed = &mut self.consoles.unclaimed;
        let may_be_listed = self.shim.is_learning() && unclaimed.len() < UNIKERNELS_MAX;
        may_be_listed.then(|| unclaimed.entry(instance).or_default())
    }

    /// The console has more to read, or its unikernel has ended.
    pub(crate) fn console_changed(&mut self, instance: InstanceId) {
        let Some(name) = self.consoles.writers.get(&instance) else { return };
        let Some(console) = self.consoles.by_name.get_mut(name) else { return };
        console.ended = self.state.by_id(instance).and_then(|unikernel| unikernel.ended());
        for session in console.readers.clone() {
            self.pump(session);
        }
    }

    /// A unikernel goes on as another instance, and its console with it.
    pub(crate) fn console_moved(&mut self, from: InstanceId, to: InstanceId) {
        if from != to && self.consoles.writers.contains_key(&from) {
            self.console_of(to);
        }
    }

    /// The unikernel is no more. What it wrote stays, as long as there is room for it.
    pub(crate) fn console_removed(&mut self, instance: InstanceId, ended: Option<ExitStatus>) {
        let Some(name) = self.consoles.writers.remove(&instance) else { return };
        if self.state.by_name(&name).is_some() {
            // Another one of this name is there already.
            return;
        }
        let readers = self.consoles.of(&name).map(|console| console.readers.clone());
        for fallen in self.consoles.bury(name, ended) {
            self.console_falls(&fallen);
        }
        for session in readers.unwrap_or_default() {
            self.pump(session);
        }
    }

    /// A console is kept no longer: those who have not read it to its end are told what they miss.
    fn console_falls(&mut self, name: &Name) {
        let Some(console) = self.consoles.by_name.remove(name) else { return };
        for &session in &console.readers {
            self.close_reader(session, name, &console);
        }
    }

    fn close_reader(&mut self, session: SessionId, name: &Name, console: &Console) {
        let Some(open) = self.sessions.get_mut(&session) else { return };
        let reads =
            |stream: &Stream| matches!(&stream.source, Source::Console { name: of, .. } if of == name);
        let Some(stream) = open.streams.iter().position(reads).and_then(|index| open.streams.remove(index))
        else {
            return;
        };
        let Source::Console { cursor, until, .. } = stream.source else { return };
        let end = until.unwrap_or(console.end());
        if !cursor.has_reached(end) {
            self.tell(stream.asker, end.after(cursor).into());
        }
        if let (None, Some(status)) = (until, console.ended) {
            self.tell(stream.asker, Response::Ended(status));
        }
        self.answer(stream.asker, Response::ConsoleEnd);
    }

    /// The shim has told all that runs: what others wrote is nobody's.
    pub(crate) fn consoles_claimed(&mut self) {
        for instance in self.consoles.unclaimed.keys().copied().collect::<Vec<_>>() {
            self.console_of(instance);
            self.console_changed(instance);
        }
        self.consoles.unclaimed.clear();
    }

    pub(crate) fn console(&mut self, asker: Asker, asked: ConsoleAsked) {
        let ConsoleAsked { name, follow, since, tail, latest } = asked;
        let now_ms = self.now.wall_ms;
        let unikernel = self.state.by_name(&name).map(|(instance, _)| instance);
        let console = match unikernel {
            Some(instance) => self.console_of(instance),
            None => self.consoles.by_name.get_mut(&name),
        };
        let Some(console) = console else {
            let refusal = self.unknown_name();
            return self.refuse(asker, refusal);
        };
        console.readers.push(asker.session);
        let since = since.map(|since| console.since(since.wall_ms(now_ms)));
        let tail = tail.map(|lines| console.tail(lines.into()));
        let latest = latest.then(|| console.latest());
        // From the very first byte on, unless something else was asked for: what is not kept is told as missed.
        let parts = [since, tail, latest].into_iter().flatten();
        let cursor = parts.reduce(|one, other| one.later(other)).unwrap_or_default();
        let until = (!follow).then_some(console.end());
        self.open_stream(asker, Source::Console { name, cursor, until });
    }

    /// The next of a console, from `cursor` on.
    pub(crate) fn step_console(
        &self,
        name: &Name,
        cursor: &mut crate::console::Cursor,
        until: Option<crate::console::Cursor>,
    ) -> Step {
        let console = self.consoles.of(name);
        let next = console.and_then(|console| console.read(*cursor));
        match (next, until) {
            (_, Some(until)) if cursor.has_reached(until) => Step::End(None, Response::ConsoleEnd),
            (Some((piece, next)), _) => {
                *cursor = next;
                Step::Send(piece.into())
            }
            (None, Some(_)) => Step::End(None, Response::ConsoleEnd),
            (None, None) => match self.state.get(name) {
                Some(unikernel) if !unikernel.is_at_rest() => Step::Wait,
                unikernel => {
                    let ended = match unikernel {
                        Some(unikernel) => unikernel.ended(),
                        None => console.and_then(|console| console.ended),
                    };
                    Step::End(ended.map(Response::Ended), Response::ConsoleEnd)
                }
            },
        }
    }

    /// A reader reads no longer.
    pub(crate) fn console_unread(&mut self, session: SessionId, name: &Name) {
        if let Some(console) = self.consoles.by_name.get_mut(name) {
            console.remove_reader(session);
        }
    }

    /// The next page of the consoles, behind `after`.
    pub(crate) fn step_consoles(&self, scope: &Path, after: &mut Option<Name>) -> Step {
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.consoles.by_name.range::<Name, _>((from, Bound::Unbounded));
        let kept = all.filter(|(name, console)| scope.is_above(name) && !console.is_empty());
        let brief = |(name, console): (&Name, &Console)| {
            console.brief(name.clone(), self.state.by_name(name).is_some())
        };
        let (page, more) = List::page(kept, brief);
        *after = page.last().map(|last: &ConsoleBrief| last.name.clone());
        Step::page(Response::Consoles { page, more }, more)
    }
}
