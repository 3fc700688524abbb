//! What happened and who did it: the one place from which it goes into the record, the log and to those who follow.

use alloc::{boxed::Box, collections::VecDeque, string::ToString, vec::Vec};

use petrel_wire::{
    List, Name, Path,
    limits::{EVENTS_MAX, EVENTS_OF_SESSIONS_MAX, EVENTS_PAGE_MAX},
    operator::{Event, EventsAsked, Response, What, Who},
};

use crate::{
    Engine, Level, SessionId,
    planted::{self, Planted},
    record::Record,
    session::Asker,
    stream::{Source, Step},
};

/// The events that are kept, in the order of their numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    kept: VecDeque<Event>,
    /// The number of the next one.
    next: u64,
    /// How many of those kept are about sessions.
    of_sessions: usize,
}

impl Events {
    /// Takes one in, and gives up the oldest if there are too many. Anybody who may connect can make as many that are
    /// about sessions as they like: those have a bound of their own.
    pub fn push(&mut self, event: Event) {
        self.next = event.sequence.saturating_add(1);
        self.of_sessions += usize::from(is_of_session(&event));
        self.kept.push_back(event);
        let surplus = if self.of_sessions > EVENTS_OF_SESSIONS_MAX {
            self.kept.iter().position(is_of_session)
        } else {
            (self.kept.len() > EVENTS_MAX).then_some(0)
        };
        if let Some(gone) = surplus.and_then(|index| self.kept.remove(index)) {
            self.of_sessions -= usize::from(is_of_session(&gone));
        }
    }

    /// The number of the next one.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Gives no number below `next` any more: another state took the place of one that had got so far.
    pub fn go_on_from(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// All that are kept, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.kept.iter()
    }

    /// The latest of them, as many as take no more than `bytes` in the journal.
    pub fn latest(&self, bytes: usize) -> impl Iterator<Item = &Event> {
        let mut left = bytes;
        let fit = self.kept.iter().rev().take_while(|event| {
            let bytes = postcard::to_allocvec(event).map_or(usize::MAX, |encoded| encoded.len() + 1);
            let fits = bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        });
        self.kept.range(self.kept.len() - fit.count()..)
    }

    /// Those with the number `cursor` or a greater one.
    fn from(&self, cursor: u64) -> impl Iterator<Item = &Event> {
        let first = self.kept.partition_point(|event| event.sequence < cursor);
        self.kept.range(first..)
    }
}

fn is_of_session(event: &Event) -> bool {
    matches!(event.what, What::SessionOpened | What::SessionRefused(_))
}

/// Whether it is about all that lies below a path, and not about what has this name.
fn is_about_a_path(what: &What) -> bool {
    matches!(what, What::PolicySet | What::PolicyRemoved | What::CertificateRevoked(_))
}

/// Which events a stream is about, and where it is.
#[derive(Debug)]
pub(crate) struct Following {
    asked: EventsAsked,
    /// Below what all lies that its session may see.
    scope: Path,
    /// From when on, in milliseconds since 1970.
    since_ms: u64,
    /// The number of the next event to be looked at.
    cursor: u64,
    /// What has this number or a greater one has happened since the stream was opened: all that is missing there was
    /// missed. Of what happened before, only what was kept then can be missed.
    opened: u64,
    /// How many events from before that are still to be sent.
    owed: u64,
    /// Up to which number; without one it goes on.
    until: Option<u64>,
}

impl Following {
    fn wants(&self, event: &Event) -> bool {
        let EventsAsked { path, kinds, .. } = &self.asked;
        // What is about no path is seen by all whose scope holds whoever did it.
        let is_own = match &event.who {
            Who::Operator { scope, .. } => event.about.is_root() && self.scope.holds(scope.labels()),
            Who::ControlPlane => false,
        };
        let about = event.about.labels();
        // What is called as the scope is called is not its own. What is set for all of the scope is its to see.
        let in_sight = self.scope.is_root() || self.scope.is_above(about) || is_about_a_path(&event.what);
        let is_asked = (path.holds(about) && in_sight) || (is_own && *path == self.scope);
        event.wall_ms >= self.since_ms
            && is_asked
            && (kinds.is_empty() || kinds.iter().any(|kind| **kind == *event.what.kind()))
    }

    /// The next events of the stream.
    pub fn step(&mut self, events: &Events) -> Step {
        let end = self.until.unwrap_or(events.next());
        let mut page = Vec::new();
        for event in events.from(self.cursor).take_while(|event| event.sequence < end) {
            let is_history = event.sequence < self.opened;
            let is_next = event.sequence <= self.cursor.max(self.opened);
            if page.len() == EVENTS_PAGE_MAX || !(is_history || is_next && self.owed == 0) {
                break;
            }
            self.cursor = event.sequence + 1;
            if self.wants(event) {
                page.push(event.clone());
                self.owed = self.owed.saturating_sub(u64::from(is_history));
            }
        }
        if page.is_empty() {
            return self.step_over(events, end);
        }
        Step::Send(Response::Events(List::try_from(page).unwrap_or_default()))
    }

    /// There is nothing to send up to the next event that is kept, or to the end.
    fn step_over(&mut self, events: &Events, end: u64) -> Step {
        let next = events.from(self.cursor).next().map_or(end, |event| event.sequence.min(end));
        let missed = self.owed + next.saturating_sub(self.cursor.max(self.opened));
        (self.cursor, self.owed) = (next.max(self.cursor), 0);
        match (missed, self.until) {
            (1.., _) => Step::Send(Response::EventsMissed(missed)),
            (0, Some(_)) => Step::End(None, Response::EventsEnd),
            (0, None) => Step::Wait,
        }
    }
}

impl Engine {
    /// Something has happened: it is recorded, and logged. Those who follow are told at the end of the input.
    pub(crate) fn happened(&mut self, who: Who, what: What, about: Option<Name>) {
        self.happened_at(who, what, about.map_or(Path::ROOT, |name| Path::from(&name)));
    }

    /// The same, about any place in the tree of names.
    pub(crate) fn happened_at(&mut self, who: Who, what: What, about: Path) {
        let (sequence, wall_ms) = (self.state.events.next(), self.now.wall_ms);
        let event = Event { sequence, wall_ms, who, what, about };
        self.log(level(&event.what), event.to_string());
        if !(planted::is(Planted::DropRecordedEvent) && (sequence ^ wall_ms).is_multiple_of(8)) {
            self.apply(Record::Happened(Box::new(event)));
        }
    }

    pub(crate) fn events(&mut self, asker: Asker, scope: Path, asked: EventsAsked) {
        let events = &self.state.events;
        let since_ms = asked.since.map_or(0, |since| since.wall_ms(self.now.wall_ms));
        let (until, limit) = ((!asked.follow).then_some(events.next()), asked.limit);
        let mut following = Following {
            asked,
            scope,
            since_ms,
            cursor: events.next(),
            opened: events.next(),
            owed: 0,
            until,
        };
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let wanted = events.iter().rev().filter(|event| following.wants(event)).take(limit);
        let (cursor, owed) = wanted.fold((events.next(), 0), |(_, owed), event| (event.sequence, owed + 1));
        (following.cursor, following.owed) = (cursor, owed);
        self.open_stream(asker, Source::Events(Box::new(following)));
    }

    /// Serves those who follow what happens, if something has.
    pub(crate) fn tell_events(&mut self, before: u64) {
        if self.state.events.next() == before {
            return;
        }
        let follows = |stream: &crate::stream::Stream| matches!(stream.source, Source::Events(_));
        let open = self.sessions.iter().filter(|(_, session)| session.streams.iter().any(follows));
        for session in open.map(|(id, _)| *id).collect::<Vec<SessionId>>() {
            self.pump(session);
        }
    }
}

fn level(what: &What) -> Level {
    match what {
        What::EndFailed(_) | What::NotEnding(_) | What::JournalFailed(_) | What::VolumeMissing => {
            Level::Error
        }
        What::ShimLost
        | What::SessionRefused(_)
        | What::NotAlive(..)
        | What::RolledBack(..)
        | What::VolumeFailed(_)
        | What::StateImported(_) => Level::Warning,
        _ => Level::Info,
    }
}
