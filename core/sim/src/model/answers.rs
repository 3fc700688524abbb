//! Each answer, as it leaves: it belongs to a request that waits for it, is of the right kind, and is true.

use petrel_wire::{
    ExitStatus, Name,
    operator::{
        Create, Download, ImageResponse, Refusal, Response, ServerMessage, State, Unikernel, UnikernelInfo,
        VolumeResponse, Wish,
    },
};

use super::{Checked, Known, Model, Present, Violation, ensure, orders::is_last_word};
use crate::{
    asked::{Asked, Import, Push, Reading, VolumeKind, VolumeOrder},
    grants::within,
    host::{Host, console_byte},
    operator::Operator,
};

impl Model {
    /// Takes in an answer to an operator.
    pub fn answered(&mut self, operator: &mut Operator, message: &ServerMessage, host: &Host) -> Checked {
        let ServerMessage { id, response } = message;
        ensure(operator.open, || format!("an answer after the session was closed: {message:?}"))?;
        let unanswered = operator.asked.len();
        self.policies.certified = &operator.grant().policies;
        let scope = operator.grant().scope.labels();
        let Some(asked) = operator.asked.get_mut(id) else {
            return stray(operator, response);
        };
        if operator.expelled && matches!(response, Response::Refused(_)) {
            // It refuses the breach, which may have this number too.
            return Ok(());
        }
        match (&mut *asked, response) {
            (asked, Response::Refused(refusal)) => self.refused(asked, unanswered, refusal, host)?,
            (Asked::Hello, Response::Hello(_)) => {}
            (Asked::Host, Response::Host(_)) => {}
            (Asked::Push(push), response) => self.push_answered(push, response, host)?,
            (Asked::Create(create), Response::Created(brief)) => {
                self.created(create, brief, host)?;
                if !create.force {
                    self.within_policies(&create.name, true)?;
                }
            }
            (
                Asked::Volume(VolumeOrder { kind: VolumeKind::Push(sending), .. }),
                Response::Volume(VolumeResponse::Wanted),
            ) => {
                ensure(!sending.wanted, || "new content was wanted twice".into())?;
                sending.wanted = true;
            }
            (Asked::Pull(pull), Response::Download(told)) => self.pulled(pull, told)?,
            (Asked::Volume(order), response) => self.volume_answered(order, response, host)?,
            (Asked::Images, response) => self.images_answered(response)?,
            (Asked::Revoke(serial, path), Response::CertRevoked { .. }) => {
                self.standing.done(&(*serial, path.clone()));
            }
            (Asked::Policy(order), Response::PolicySet) if order.policy.is_some() => {
                self.policies.changed(order)
            }
            (Asked::Policy(order), Response::PolicyRemoved) if order.policy.is_none() => {
                self.policies.changed(order)
            }
            (Asked::List(after), Response::Listed { page, more }) => {
                self.listed(scope, after, page, *more)?;
                page.iter().try_for_each(|shown| true_state(host, shown))?;
                *after = page.last().map(|last| last.name.clone());
            }
            (Asked::Info(name), Response::Info(info)) => {
                self.shown(scope, name, info)?;
                true_state(host, &info.unikernel)?;
            }
            (Asked::Destroy(name), Response::Destroyed) => self.destroyed(name, host)?,
            (Asked::Console(reading), response) => self.read(reading, response, host)?,
            (Asked::Order(order), response) => {
                let last = is_last_word(order, self.fate(&order.name));
                self.order_answered(order, response)?;
                if last && order.grows() {
                    self.within_policies(&order.name, false)?;
                }
            }
            (Asked::History(_, last), Response::Generation { generation, .. }) => {
                self.generation_told(last, generation)?;
            }
            (Asked::Events { last, .. }, Response::Events(page)) => {
                for event in page {
                    ensure(Some(event.sequence) > *last, || format!("an event out of order: {event:?}"))?;
                    *last = Some(event.sequence);
                }
            }
            (Asked::Events { .. }, Response::EventsMissed(1..)) => {}
            (Asked::Events { follow: false, .. }, Response::EventsEnd) => {}
            (
                Asked::Watching,
                Response::Stats { .. }
                | Response::Consoles { .. }
                | Response::Policies { .. }
                | Response::Revocations { .. }
                | Response::Image(ImageResponse::Listed { .. }),
            ) => {}
            (Asked::Volumes, Response::Volume(VolumeResponse::Listed { .. })) => {}
            (Asked::Export(file), response) => self.exported(file, response)?,
            (Asked::Import(import), response) => self.import_answered(import, response)?,
            (asked, response) => return Err(Violation(format!("{asked:?} was answered by {response:?}"))),
        }
        if is_last(response) {
            self.done(operator, *id);
        }
        Ok(())
    }

    /// A request has its last answer, or will never have one.
    pub fn done(&mut self, operator: &mut Operator, id: u32) {
        match operator.asked.remove(&id) {
            Some(Asked::Create(create)) => self.fate(&create.name).creating -= 1,
            Some(Asked::Destroy(name)) => self.fate(&name).destroying -= 1,
            Some(Asked::Order(order)) => self.fate(&order.name).ordered -= 1,
            Some(Asked::Volume(order)) => {
                let fate = self.volumes.entry(order.name).or_default();
                fate.asking = fate.asking.saturating_sub(1);
            }
            _ => {}
        }
    }

    fn push_answered(&mut self, push: &mut Push, response: &Response, host: &Host) -> Checked {
        let digest = push.digest();
        match response {
            Response::ImageWanted => {
                ensure(!push.wanted, || format!("{digest} was wanted twice"))?;
                push.wanted = true;
                Ok(())
            }
            Response::ImageStored(stored) => {
                self.images.insert(digest);
                ensure(*stored == digest && host.images.contains_key(&digest), || {
                    format!("{digest} is said to be stored, and is not")
                })
            }
            other => Err(Violation(format!("an upload was answered by {other:?}"))),
        }
    }

    fn exported(&mut self, file: &mut Vec<u8>, response: &Response) -> Checked {
        const FILES_MAX: usize = 3;
        match response {
            Response::StateData(data) => file.extend_from_slice(data),
            Response::StateExported { .. } => {
                self.files.truncate(FILES_MAX - 1);
                self.files.push_front(std::mem::take(file).into());
            }
            other => return Err(Violation(format!("an export was answered by {other:?}"))),
        }
        Ok(())
    }

    fn import_answered(&mut self, import: &mut Import, response: &Response) -> Checked {
        match response {
            Response::StateWanted => {
                ensure(!import.wanted, || "a state file was wanted twice".into())?;
                import.wanted = true;
            }
            Response::StateImported { .. } => {
                ensure(import.honest, || "a damaged state file was taken in".into())?;
                // What it says of each name, the next rest shows.
                self.replaced();
            }
            other => return Err(Violation(format!("an import was answered by {other:?}"))),
        }
        Ok(())
    }

    fn created(&mut self, create: &Create, brief: &Unikernel, host: &Host) -> Checked {
        let (console_epoch, moment) = (Some(self.console_epoch), self.policies.tick());
        let fate = self.fate(&create.name);
        fate.since = moment;
        ensure(create.force || !fate.must_be(), || {
            format!("{} was created while it was there", create.name)
        })?;
        ensure(brief.name == create.name, || format!("{brief:?} was created, not {create:?}"))?;
        let waits = brief.state == State::Waiting && !create.supervision.after.is_empty();
        let instance = host.newest_of(&create.name).filter(|_| !waits);
        ensure(instance.is_some() || waits, || {
            format!("{} was created, and is not on the host", create.name)
        })?;
        let certain = fate.creating == 1 && fate.ordered + fate.destroying == 0 && !fate.loose;
        match &mut fate.known {
            Known::Absent => {
                if certain {
                    same(create, brief)?;
                }
                let (create, wish) = (Some(Box::new(create.clone())), Some(Wish::Running));
                let (create, wish) = if certain { (create, wish) } else { (None, None) };
                fate.known = Known::Present(Present { create, wish, instance, console_epoch });
            }
            // It has become another generation, or others have asked for more.
            Known::Present(present) => (present.create, present.wish) = (None, None),
            Known::Open => {}
        }
        Ok(())
    }

    fn destroyed(&mut self, name: &Name, host: &Host) -> Checked {
        let fate = self.fate(name);
        let instance = fate.present().and_then(|present| present.instance);
        let left =
            instance.filter(|instance| host.has_record(*instance) && !host.ends.contains_key(instance));
        ensure(left.is_none(), || format!("{name} is said to be destroyed, and {left:?} is left"))?;
        // One that has ended and that another was to take the place of is forgotten in its own time.
        fate.doubtful |= host.newest_of(name).is_some();
        if !matches!(fate.known, Known::Open) {
            fate.known = Known::Absent;
        }
        // It has gone.
        fate.going = false;
        // What is still to be answered was asked of this one, and says nothing of the next.
        fate.orders += 1;
        Ok(())
    }

    /// Whether what is shown of a unikernel below a scope is what was asked for.
    pub fn shown(&mut self, scope: &str, name: &Name, info: &UnikernelInfo) -> Checked {
        ensure(info.unikernel.name == *name, || format!("{name}: shown is {info:?}"))?;
        let fate = self.fate(name);
        ensure(fate.may_be(), || format!("{name} is shown, and was destroyed or never created"))?;
        let Some((_, create)) = fate.certain() else { return Ok(()) };
        same(create, &info.unikernel)?;
        let nets = info.nets.iter().map(|(net, _)| net);
        let blocks = create.blocks.iter().filter(|block| within(scope, &block.volume));
        let like_asked = nets.eq(&create.nets) && blocks.eq(&info.blocks) && info.args == create.args;
        ensure(like_asked, || format!("{create:?} was created, shown is {info:?}"))
    }

    /// A page of the listing holds all that there must be below a scope, and nothing that there cannot be.
    fn listed(&mut self, scope: &str, after: &Option<Name>, page: &[Unikernel], more: bool) -> Checked {
        let names = || page.iter().map(|entry| &entry.name);
        ensure(names().is_sorted_by(|a, b| a < b), || format!("a listing out of order: {page:?}"))?;
        for name in names() {
            let may_be = self.fates.get(name).is_some_and(super::Fate::may_be);
            ensure(may_be, || format!("{name} is listed, and was destroyed or never created"))?;
        }
        let last = page.last().map(|entry| &entry.name);
        let covered =
            |name: &Name| within(scope, name) && Some(name) > after.as_ref() && (!more || Some(name) <= last);
        for (name, fate) in &self.fates {
            ensure(!fate.must_be() || !covered(name) || names().any(|listed| listed == name), || {
                format!("{name} is not listed, and must be there")
            })?;
        }
        Ok(())
    }

    fn read(&mut self, reading: &mut Reading, response: &Response, host: &Host) -> Checked {
        let epoch = Some(self.console_epoch);
        let writer = self.fate(&reading.name).present();
        let is_same = |it: &mut Present| it.console_epoch == epoch && it.instance == reading.of;
        let exact = reading.of.is_some() && writer.is_some_and(is_same);
        ensure(!reading.ended || matches!(response, Response::ConsoleEnd), || {
            format!("{}: more of a console after its end", reading.name)
        })?;
        match response {
            Response::Console { data, .. } => {
                let from = reading.position;
                reading.position += data.len() as u64;
                let right = (from..).zip(&**data).all(|(position, byte)| *byte == console_byte(position));
                ensure(right || !exact, || format!("{}: other bytes than were written", reading.name))
            }
            Response::ConsoleMissed { bytes, .. } => {
                reading.position += bytes;
                Ok(())
            }
            Response::ConsoleBegan { .. } => {
                reading.position = 0;
                Ok(())
            }
            Response::Ended(status) => {
                reading.ended = true;
                ensure(reading.follow, || "an end where none was asked for".into())?;
                true_end(host, &reading.name, *status)
            }
            Response::ConsoleEnd => Ok(()),
            other => Err(Violation(format!("a console was answered by {other:?}"))),
        }
    }
}

/// An answer to nothing that was asked.
fn stray(operator: &mut Operator, response: &Response) -> Checked {
    match response {
        Response::Refused(Refusal::UnexpectedChunk) if operator.strays > 0 => {
            operator.strays -= 1;
            Ok(())
        }
        Response::Refused(_) if operator.expelled => Ok(()),
        other => Err(Violation(format!("an answer to nothing: {other:?}"))),
    }
}

fn same(create: &Create, brief: &Unikernel) -> Checked {
    let same = brief.image == create.image && brief.memory_mib == create.memory_mib;
    ensure(same, || format!("{create:?} was created, shown is {brief:?}"))
}

/// An end that is told must be that of a monitor of this name.
fn true_end(host: &Host, name: &Name, told: ExitStatus) -> Checked {
    let is_true = told == ExitStatus::Unknown || host.has_ended(name, told);
    ensure(is_true, || format!("{name}: said to have ended by {told}, and never did"))
}

/// An end that is shown, if one is.
fn true_state(host: &Host, shown: &Unikernel) -> Checked {
    match shown.state {
        State::Ended(status) => true_end(host, &shown.name, status),
        _ => Ok(()),
    }
}

/// Whether a response ends its request.
fn is_last(response: &Response) -> bool {
    match response {
        Response::ImageWanted
        | Response::Volume(VolumeResponse::Wanted)
        | Response::Download(Download::Begin { .. } | Download::Data { .. })
        | Response::Console { .. }
        | Response::ConsoleMissed { .. }
        | Response::ConsoleBegan { .. }
        | Response::Ended(_)
        | Response::Events(_)
        | Response::EventsMissed(_) => false,
        Response::Listed { more, .. }
        | Response::Consoles { more, .. }
        | Response::Stats { more, .. }
        | Response::Generation { more, .. }
        | Response::Policies { more, .. }
        | Response::Revocations { more, .. }
        | Response::Volume(VolumeResponse::Listed { more, .. })
        | Response::Image(ImageResponse::Listed { more, .. }) => !more,
        Response::StateWanted | Response::StateData(_) => false,
        _ => true,
    }
}

/// The kind of an answer: `Created`, `Refused(Full(Taps))`, `Refused(NoMonitor)`.
pub fn kind_of(response: &Response) -> String {
    let text = match response {
        // Much to write down, each time.
        Response::Download(_) => return "Download".into(),
        Response::Refused(Refusal::Full(table)) => return format!("Refused(Full({table:?}))"),
        Response::Refused(refusal) => format!("{refusal:?}"),
        other => format!("{other:?}"),
    };
    let kind = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    if matches!(response, Response::Refused(_)) { format!("Refused({kind})") } else { kind.into() }
}
