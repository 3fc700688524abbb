//! Answers that come in pieces: consoles, events, listings. Each session has a credit of bytes in its queue; when
//! it is used up its streams wait, in turn, and cost nobody else.

use alloc::{boxed::Box, vec::Vec};

use petrel_wire::{
    Digest, List, Name, Path,
    limits::{PAGE_ENTRIES_MAX, SESSION_QUEUE_BYTES},
    operator::{Download, ImageResponse, Refusal, Response, StoredImage, Unikernel, Usage, VolumeResponse},
};

use crate::{
    Engine, SessionId,
    console::Cursor,
    events::Following,
    journal::Export,
    planted::{self, Planted},
    policy::{PolicyListing, RevocationListing},
    session::{Asker, Kind},
    stats::Asking,
    volumes::JobId,
};

/// A request that is answered in pieces.
#[derive(Debug)]
pub(crate) struct Stream {
    pub asker: Asker,
    pub source: Source,
}

#[cfg(feature = "inspect")]
impl Stream {
    /// Whether it reads a console.
    pub fn is_console(&self) -> bool {
        matches!(self.source, Source::Console { .. })
    }
}

/// Where the pieces come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The listing of what lies below `scope`, from behind this name on.
    List { scope: Path, after: Option<Name> },
    /// The generations of a unikernel with greater numbers than this.
    History { name: Name, after: u32 },
    /// A console, from this place on, up to that one; without one it goes on until the unikernel has ended.
    Console { name: Name, cursor: Cursor, until: Option<Cursor> },
    /// The listing of the consoles, from behind this name on.
    Consoles { scope: Path, after: Option<Name> },
    /// What happened.
    Events(Box<Following>),
    /// What unikernels use.
    Stats(Box<Asking>),
    /// What may be, and what there is.
    Policies(PolicyListing),
    /// What is revoked.
    Revocations(RevocationListing),
    /// A state file.
    Export(Box<Export>),
    /// The volumes below a path, from behind this name on.
    Volumes { scope: Path, after: Option<Name> },
    /// The images, from behind this digest on.
    Images { after: Option<Digest> },
    /// A volume or an image.
    Download(JobId),
}

/// What a stream does next.
pub(crate) enum Step {
    Send(Response),
    /// `Some` goes before the end of the stream.
    End(Option<Response>, Response),
    Wait,
}

impl Step {
    /// A page, the last one if no `more` follow.
    pub fn page(page: Response, more: bool) -> Self {
        if more { Self::Send(page) } else { Self::End(None, page) }
    }
}

impl Engine {
    pub(crate) fn open_stream(&mut self, asker: Asker, source: Source) {
        self.set_kind(asker, Kind::Stream);
        if let Some(session) = self.sessions.get_mut(&asker.session) {
            session.streams.push_back(Stream { asker, source });
            self.pump(asker.session);
        }
    }

    /// A stream has been taken off its session.
    pub(crate) fn stream_closed(&mut self, session: SessionId, stream: &Stream) {
        match &stream.source {
            Source::Console { name, .. } => self.console_unread(session, name),
            Source::Download(id) => self.download_closed(*id),
            _ => {}
        }
    }

    /// Lets a session's streams go on, one piece each in turn, as far as its credit reaches.
    pub(crate) fn pump(&mut self, id: SessionId) {
        let mut waiting = 0;
        loop {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let used_up = session.queued >= SESSION_QUEUE_BYTES && !planted::is(Planted::IgnoreCredit);
            if used_up || waiting >= session.streams.len() {
                return;
            }
            let Some(mut stream) = session.streams.pop_front() else { return };
            let step = self.step(stream.asker, &mut stream.source);
            waiting = if matches!(step, Step::Wait) { waiting + 1 } else { 0 };
            self.take_step(id, stream, step);
        }
    }

    fn take_step(&mut self, id: SessionId, stream: Stream, step: Step) {
        let asker = stream.asker;
        match step {
            Step::End(before, last) => {
                self.stream_closed(id, &stream);
                if let Some(before) = before {
                    self.tell(asker, before);
                }
                return self.answer(asker, last);
            }
            Step::Send(response) => self.tell(asker, response),
            Step::Wait => {}
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.streams.push_back(stream);
        }
    }

    fn step(&mut self, asker: Asker, source: &mut Source) -> Step {
        match source {
            Source::List { scope, after } => self.step_list(scope, after),
            Source::History { name, after } => self.step_history(name, after),
            Source::Console { name, cursor, until } => self.step_console(name, cursor, *until),
            Source::Consoles { scope, after } => self.step_consoles(scope, after),
            Source::Events(following) => following.step(&self.state.events),
            Source::Stats(asking) => self.step_stats(asker, asking),
            Source::Policies(listing) => {
                let (page, more) = self.state.policies(listing);
                Step::page(Response::Policies { page, more }, more)
            }
            Source::Revocations(listing) => {
                let (page, more) = self.state.revocations(listing);
                Step::page(Response::Revocations { page, more }, more)
            }
            Source::Export(export) => match export.next() {
                Some(data) => Step::Send(Response::StateData(data)),
                None => Step::End(None, export.end()),
            },
            Source::Volumes { scope, after } => self.step_volumes(scope, after),
            Source::Images { after } => self.step_images(after),
            Source::Download(id) => self.step_download(*id),
        }
    }

    fn step_list(&self, scope: &Path, after: &mut Option<Name>) -> Step {
        let mut rest = self.state.below(scope, after.as_ref());
        let names = rest.by_ref().take(PAGE_ENTRIES_MAX);
        let page: Vec<Unikernel> = names.filter_map(|name| self.brief(name)).collect();
        let more = rest.next().is_some();
        drop(rest);
        *after = page.last().map(|last| last.name.clone());
        let page = List::try_from(page).unwrap_or_default();
        Step::page(Response::Listed { page, more }, more)
    }

    fn step_volumes(&self, scope: &Path, after: &mut Option<Name>) -> Step {
        let (page, more) = self.volume_page(scope, after.as_ref());
        *after = page.last().map(|last| last.name.clone());
        Step::page(Response::Volume(VolumeResponse::Listed { page, more }), more)
    }

    fn step_images(&self, after: &mut Option<Digest>) -> Step {
        let (page, more) = self.image_page(*after);
        *after = page.last().map(|last| last.digest);
        Step::page(Response::Image(ImageResponse::Listed { page, more }), more)
    }

    fn step_history(&self, name: &Name, after: &mut u32) -> Step {
        let Some((generation, more)) = self.generation_after(name, *after) else {
            return Step::End(None, Response::Refused(Refusal::NoSuchUnikernel));
        };
        *after = generation.number;
        let response = Response::Generation { generation: generation.into(), more };
        if more { Step::Send(response) } else { Step::End(None, response) }
    }
}

/// About how many bytes a response takes in its session's queue, until the driver tells how many are there.
pub(crate) fn response_bytes(response: &Response) -> usize {
    const ENVELOPE: usize = 16;
    const BRIEF: usize = 64;
    const LONG: usize = 1024;
    match response {
        Response::Console { data, .. } => ENVELOPE + data.len(),
        Response::Consoles { page, .. } => {
            ENVELOPE + page.iter().map(|entry| BRIEF + entry.name.len()).sum::<usize>()
        }
        Response::Events(page) => ENVELOPE + page.len() * 2 * BRIEF,
        Response::Stats { page, .. } => {
            let bytes = |usage: &Usage| BRIEF + usage.name.len() + usage.nets.len() * BRIEF;
            ENVELOPE + page.iter().map(bytes).sum::<usize>()
        }
        Response::StateData(bytes) => ENVELOPE + bytes.len(),
        Response::Listed { page, .. } => {
            ENVELOPE + page.iter().map(|entry: &Unikernel| BRIEF + entry.name.len()).sum::<usize>()
        }
        Response::Download(Download::Data { data, .. }) => ENVELOPE + data.len(),
        Response::Volume(VolumeResponse::Listed { page, .. }) => {
            ENVELOPE + page.iter().map(|entry| BRIEF + entry.name.len()).sum::<usize>()
        }
        Response::Image(ImageResponse::Listed { page, .. }) => {
            let names = |image: &StoredImage| image.names.iter().map(|name| name.len()).sum::<usize>();
            ENVELOPE + page.iter().map(|image| BRIEF + names(image)).sum::<usize>()
        }
        Response::Host(_) | Response::Info(_) | Response::Generation { .. } => LONG,
        Response::Policies { page, .. } => ENVELOPE + page.len() * LONG,
        Response::Revocations { page, .. } => ENVELOPE + page.len() * BRIEF,
        _ => ENVELOPE,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use petrel_wire::{
        Digest, List, frame,
        operator::{ClientMessage, ConsoleAsked, Hello, Request},
        shim::InstanceId,
    };

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

    use super::*;
    use crate::{
        Config, Input, Now, Peer,
        record::{Generation, Record, Spec},
    };

    /// What no answer shows: a client that follows and cancels without end takes up no room.
    #[test]
    fn a_stream_that_is_cancelled_or_whose_session_ends_is_no_reader_any_more() {
        let mut engine = Engine::new(Config { host: "alpha".parse().unwrap(), release: [0, 1, 0] });
        let (instance, session) = (InstanceId(1), SessionId(1));
        let name: Name = "a".parse().unwrap();
        let spec = Spec {
            supervision: Default::default(),
            made_ms: 0,
            name: name.clone(),
            image: Digest([0; 32]),
            memory_mib: 32,
            cpus: List::new(),
            nets: List::new(),
            blocks: List::new(),
            args: List::new(),
            monitor: "petrel-tender".parse().unwrap(),
            created_ms: 0,
        };
        let generation = Generation { number: 1, faulty: false, spec: spec.into() };
        engine.state.apply(Record::Created { instance, generation });
        let key = KeyPair::generate().unwrap();
        let mut certificate = CertificateParams::default();
        certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        let certificate = certificate.self_signed(&key).unwrap();
        let peer = Peer { name: "alice".into(), chain: alloc::vec![certificate.der().to_vec()] };
        engine.handle(Now::default(), Input::SessionOpened { session, peer });
        let send = |engine: &mut Engine, request| {
            let mut bytes = Vec::new();
            frame::encode(&ClientMessage { id: 1, request }, &mut bytes).unwrap();
            let payload = &bytes[frame::HEADER_BYTES..];
            engine.handle(Now::default(), Input::SessionFrame { session, payload });
            engine.consoles.readers(&"a".parse().unwrap())
        };
        send(&mut engine, Request::Hello(Hello { oldest: 1, newest: 1 }));
        let follow =
            ConsoleAsked { name: name.clone(), follow: true, since: None, tail: None, latest: false };
        let follow = Request::Console(follow);
        assert_eq!(send(&mut engine, follow.clone()), 1);
        assert_eq!(send(&mut engine, Request::Cancel), 0);
        assert_eq!(send(&mut engine, follow), 1);
        engine.handle(Now::default(), Input::SessionClosed { session });
        assert_eq!(engine.consoles.readers(&name), 0);
    }
}
