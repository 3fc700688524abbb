//! The control plane: the engine, fed with what happens, and its decisions carried out one by one.

use std::collections::BTreeMap;

use petrel_engine::{Config, Engine, Input, Level, Output, ProbeId, SessionId};
use petrel_wire::{
    Name,
    limits::SESSION_QUEUE_BYTES,
    operator::{ReadOnly, Refusal, Response, ServerMessage, Table},
    shim::InstanceId,
};

use super::{World, decoded, encoded};
use crate::{
    asked::Asked,
    model::{Checked, audit, ensure, kind_of},
    operator::Operator,
    tongue,
};

/// The most that a session's queue can hold: the credit, and an answer to each request that was read before.
const QUEUED_MAX: usize = 2 * SESSION_QUEUE_BYTES;
/// How long the shim has to be silent before the engine may take it for dead, in nanoseconds.
const SILENCE_NS: u64 = 30_000_000_000;

/// The control plane's program.
pub struct Plane {
    /// The engine, unless it is down.
    pub engine: Option<Engine>,
    /// When it comes back, in monotonic nanoseconds.
    pub back_ns: u64,
    /// How many outputs are still carried out before it is killed.
    pub outputs_left: Option<usize>,
    /// When it last heard the shim, in monotonic nanoseconds.
    pub heard_ns: u64,
    /// When the link was last opened, in monotonic nanoseconds.
    pub opened_ns: u64,
    /// A state file was taken in: the link is reset for it.
    imported: bool,
    /// The probes under way.
    pub probes: Vec<ProbeId>,
    /// The latest error that it logged.
    last_error: String,
    /// What was answered to whoever looks at the world at rest.
    pub auditor: Vec<Response>,
}

impl Plane {
    /// One that comes up with the world.
    pub fn new() -> Self {
        Self {
            engine: None,
            back_ns: 0,
            outputs_left: None,
            heard_ns: 0,
            opened_ns: 0,
            imported: false,
            probes: Vec::new(),
            last_error: String::new(),
            auditor: Vec::new(),
        }
    }
}

fn config() -> Config {
    let host = "alpha".parse().unwrap_or_else(|error| unreachable!("{error}"));
    Config { host, release: [0, 1, 0] }
}

/// The unikernels that an engine knows.
pub fn known_to(engine: &Engine) -> BTreeMap<Name, InstanceId> {
    engine.known().map(|(instance, name)| (name.clone(), instance)).collect()
}

/// The session of an operator. It is used again as soon as it is over, as the real one's places are.
pub fn session_of(operator: usize) -> SessionId {
    SessionId(u32::try_from(operator).unwrap_or(u32::MAX))
}

impl World {
    /// The control plane comes up, with what is on its disk.
    pub fn start_plane(&mut self) -> Checked {
        self.trace.note(|| "the control plane comes up".into());
        let seed = self.random.next();
        self.plane.engine = Some(match &self.disk {
            None => Engine::new(config()),
            Some(disk) => {
                Engine::recover(config(), &disk.device(seed), |offset, bytes| disk.read(offset, bytes))
            }
        });
        self.plane.imported = false;
        self.link.retry_ns = self.clock.ns();
        let blind = self.disk.as_ref().is_some_and(|disk| disk.failing);
        if blind {
            self.model.blinded();
        }
        let reason = self.plane.engine.as_ref().and_then(Engine::read_only);
        let right = if blind { reason == Some(ReadOnly::Unreadable) } else { reason.is_none() };
        ensure(right, || format!("what is on the disk is taken for {reason:?}"))?;
        self.carry_out()
    }

    /// What a control plane that came up now would know.
    pub fn remembered(&self) -> Option<BTreeMap<Name, InstanceId>> {
        let disk = self.disk.as_ref()?;
        let engine = Engine::recover(config(), &disk.device(0), |offset, bytes| disk.look(offset, bytes));
        Some(known_to(&engine))
    }

    /// The engine takes something in, and what it decides is carried out.
    pub fn input(&mut self, input: Input<'_>) -> Checked {
        let Some(engine) = &mut self.plane.engine else { return Ok(()) };
        engine.handle(self.clock.now, input);
        self.carry_out()
    }

    /// The engine does what is due.
    pub fn wake(&mut self) -> Checked {
        let now = self.clock.now;
        match &mut self.plane.engine {
            Some(engine) if engine.poll_at().is_some_and(|at_ns| at_ns <= now.monotonic_ns) => {
                engine.handle_timeout(now);
                self.carry_out()
            }
            _ => Ok(()),
        }
    }

    fn carry_out(&mut self) -> Checked {
        loop {
            let Some(engine) = &mut self.plane.engine else { return Ok(()) };
            let Some(output) = engine.poll_output() else { break };
            if self.plane.outputs_left == Some(0) {
                self.cut_short(output);
                return Ok(());
            }
            if let Some(left) = &mut self.plane.outputs_left {
                *left -= 1;
            }
            self.output(output)?;
        }
        self.check_standing()?;
        self.plane.engine.as_ref().map_or(Ok(()), audit)
    }

    /// Nobody goes on whose certificates are known to be no longer good.
    fn check_standing(&self) -> Checked {
        let wall_ms = self.clock.now.wall_ms;
        let open = self.operators.iter().filter(|operator| operator.open && operator.granted > 0);
        for grant in open.map(Operator::grant) {
            let over = grant.has_expired(wall_ms) || self.model.standing.must_end(grant);
            ensure(!over, || format!("a session goes on in spite of its certificates: {grant:?}"))?;
        }
        Ok(())
    }

    fn output(&mut self, output: Output) -> Checked {
        match output {
            Output::ToSession { session, message } => self.tell_session(session, &message),
            Output::CloseSession { session } => self.close_session(session),
            Output::ToShim(request) => {
                self.check_ahead(&request.op)?;
                ensure(self.link.plane_has, || format!("{request:?} was sent without a link"))?;
                self.trace.note(|| format!("engine → shim {request:?}"));
                self.link.send_to_shim(encoded(&request));
                Ok(())
            }
            Output::ResetLink => {
                self.count("link reset");
                self.check_reset()?;
                self.drop_link();
                self.engine_handles(Input::LinkClosed);
                Ok(())
            }
            Output::Persist { offset, data } => self.persist(offset, &data),
            Output::Probe { id, .. } => {
                self.trace.note(|| format!("engine probes: {id:?}"));
                self.plane.probes.push(id);
                Ok(())
            }
            Output::Log { level, line } => {
                self.trace.note(|| format!("log {level:?}: {line}"));
                ensure(!line.contains('\n'), || format!("logged on two lines: {line:?}"))?;
                if level == Level::Error {
                    self.plane.last_error = line;
                }
                Ok(())
            }
        }
    }

    fn persist(&mut self, offset: u64, data: &[u8]) -> Checked {
        self.trace.note(|| format!("engine writes {} bytes at {offset}", data.len()));
        let Some(disk) = &mut self.disk else {
            return ensure(false, || "something is written where there is no device".into());
        };
        if !disk.write(offset, data, &mut self.random) {
            self.model.disk_failed = true;
            self.engine_handles(Input::StateFailed);
        }
        Ok(())
    }

    /// The control plane is killed while it carries this out.
    fn cut_short(&mut self, output: Output) {
        if let (Output::Persist { offset, data }, Some(disk)) = (output, &mut self.disk) {
            self.trace.note(|| format!("a write of {} bytes at {offset} is cut short", data.len()));
            disk.tear(offset, &data, &mut self.random);
        }
        self.plane_crashes();
    }

    /// While outputs are carried out: those that this leads to come after them.
    fn engine_handles(&mut self, input: Input<'_>) {
        if let Some(engine) = &mut self.plane.engine {
            engine.handle(self.clock.now, input);
        }
    }

    fn tell_session(&mut self, session: SessionId, message: &ServerMessage) -> Checked {
        let payload = encoded(message);
        let read: ServerMessage = decoded(&payload, "a client")?;
        ensure(read == *message, || format!("{message:?} is read as {read:?}"))?;
        self.count_answer(&message.response);
        let index = session.0 as usize;
        if index >= self.operators.len() {
            return self.auditor_hears(message);
        }
        self.trace.note(|| format!("operator {index} ← {message:?}"));
        if let (
            0,
            Response::Refused(refusal @ (Refusal::Certificate { .. } | Refusal::Full(Table::Sessions))),
        ) = (message.id, &message.response)
        {
            self.turned_out(index, refusal)?;
        }
        let operator = &mut self.operators[index];
        let lists = matches!(
            operator.asked.get(&message.id),
            Some(Asked::Watching | Asked::Volumes | Asked::Events { .. })
        );
        let message = &tongue::heard(operator.grant(), read, lists, &self.model)?;
        // A state file that could not be kept has cost the link all the same.
        self.plane.imported |= matches!(
            (operator.asked.get(&message.id), &message.response),
            (
                Some(Asked::Import(_)),
                Response::StateImported { .. } | Response::Refused(Refusal::ReadOnly(_))
            )
        );
        operator.queued += payload.len();
        let queued = operator.queued;
        ensure(queued <= QUEUED_MAX, || format!("{queued} bytes are queued for operator {index}"))?;
        let about = operator.asked.get(&message.id).and_then(Asked::about);
        self.model.answered(operator, message, &self.host)?;
        about.map_or(Ok(()), |name| {
            self.check_told(&message.response, &name)?;
            self.check_kept(&message.response, &name)
        })
    }

    fn turned_out(&mut self, index: usize, refusal: &Refusal) -> Checked {
        let open = self.operators.iter().filter(|operator| operator.open).count();
        let operator = &mut self.operators[index];
        operator.expelled = true;
        self.model.turned_out(operator.grant(), refusal, self.clock.now.wall_ms, open)
    }

    fn close_session(&mut self, session: SessionId) -> Checked {
        let index = session.0 as usize;
        let Some(operator) = self.operators.get(index) else {
            return ensure(false, || "the auditor was turned out".into());
        };
        self.trace.note(|| format!("operator {index}: closed by the engine"));
        ensure(operator.expelled, || format!("operator {index} was turned out for nothing"))?;
        self.session_ended(index);
        self.engine_handles(Input::SessionClosed { session });
        Ok(())
    }

    /// An operator's session is over: what it has not been told of is open.
    pub fn session_ended(&mut self, index: usize) {
        let operator = &mut self.operators[index];
        for id in operator.asked.keys().copied().collect::<Vec<_>>() {
            self.model.abandoned(operator, id);
        }
        operator.close();
    }

    /// The engine has given the link up: it must have a reason.
    fn check_reset(&mut self) -> Checked {
        if std::mem::take(&mut self.plane.imported) {
            return Ok(());
        }
        let since_ns = self.plane.heard_ns.max(self.plane.opened_ns);
        let silent = self.clock.ns() - since_ns >= SILENCE_NS;
        ensure(silent, || format!("an honest shim was taken for another: {}", self.plane.last_error))
    }

    /// The control plane's end of the link is gone.
    pub fn drop_link(&mut self) {
        self.model.console_epoch += 1;
        let retry_ns = self.clock.ns() + self.random.below(self.plan.restart_ns);
        self.link.drop_plane_end(retry_ns, &mut self.random);
    }

    /// The control plane's program ends, whatever it is at.
    pub fn plane_crashes(&mut self) {
        self.trace.note(|| "the control plane is gone".into());
        self.plane.outputs_left = None;
        self.plane.probes.clear();
        if self.plane.engine.take().is_none() {
            return;
        }
        self.plane.back_ns = self.clock.ns() + self.random.below(self.plan.restart_ns);
        self.drop_link();
        let asked = self.operators.iter().flat_map(|operator| operator.asked.values());
        if asked.into_iter().any(|asked| matches!(asked, Asked::Policy(_))) {
            self.model.policies.leave_open();
        }
        let mut asked = self.operators.iter().flat_map(|operator| operator.asked.values());
        if asked.any(|asked| matches!(asked, Asked::Import(import) if import.honest && !import.can_send())) {
            self.model.replaced();
        }
        self.model.plane_crashed(self.disk.is_some(), &self.host);
        for operator in &mut self.operators {
            operator.close();
        }
    }

    /// One of the probes under way comes to its end, if there is one.
    pub fn probe_ends(&mut self, passed: bool) -> Checked {
        if self.plane.probes.is_empty() {
            return Ok(());
        }
        let index = self.random.index(self.plane.probes.len());
        let id = self.plane.probes.swap_remove(index);
        self.trace.note(|| format!("{id:?} passed: {passed}"));
        self.input(Input::Probed { id, passed })
    }

    /// Whether an operator's next frame would be read now, as the driver decides it.
    pub fn may_be_read(&self, index: usize) -> bool {
        /// While more bytes wait for the shim, no session that uploads is read.
        const LINK_QUEUE_BYTES: usize = 256 * 1024;
        let Some(engine) = &self.plane.engine else { return false };
        let operator = &self.operators[index];
        let held = self.link.queued_for_shim() > LINK_QUEUE_BYTES && engine.uploading(session_of(index))
            || engine.overtaken(session_of(index));
        operator.open && operator.queued <= SESSION_QUEUE_BYTES && !held
    }

    fn count_answer(&mut self, response: &Response) {
        self.count(kind_of(response));
    }
}
