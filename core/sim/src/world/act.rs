//! What operators and guests do.

use petrel_engine::{Input, Peer};
use petrel_wire::{
    Blob, ExitStatus,
    limits::{FRAME_BYTES_MAX, OPERATOR_VERSION, SESSION_QUEUE_BYTES},
    operator::{ClientMessage, Hello, Request},
};

use super::{World, encoded, plane::session_of};
use crate::{
    asked::{Asked, VolumeKind, VolumeOrder},
    grants,
    model::Checked,
    questions::question,
    tongue,
};

/// The greeting of a client that speaks what we speak.
const HELLO: Request = Request::Hello(Hello { oldest: OPERATOR_VERSION, newest: OPERATOR_VERSION });

impl World {
    pub(super) fn connect(&mut self) -> Checked {
        let closed = (0..self.operators.len()).filter(|&index| !self.operators[index].open);
        match self.random.pick_from(closed) {
            Some(index) if self.plane.engine.is_some() => {
                self.open_session(index)?;
                self.send(index, HELLO, Asked::Hello)
            }
            _ => Ok(()),
        }
    }

    fn open_session(&mut self, index: usize) -> Checked {
        let few = self.random.chance(self.plan.granted);
        let granted = if few { self.random.index(grants::all().len()) } else { 0 };
        self.operators[index].connect(granted);
        let grant = self.operators[index].grant();
        self.trace.note(|| format!("operator {index} connects, by {} below {}", grant.serial, grant.scope));
        let peer = Peer { name: format!("operator-{index}"), chain: grant.chain.clone() };
        self.input(Input::SessionOpened { session: session_of(index), peer })
    }

    /// One of the operators with a session whose client may act now.
    fn any_operator(&mut self) -> Option<usize> {
        let index = self.random.index(self.operators.len());
        (self.may_be_read(index) && !self.operators[index].stalled).then_some(index)
    }

    pub(super) fn ask(&mut self) -> Checked {
        let Some(index) = self.any_operator() else { return Ok(()) };
        let grant = self.operators[index].grant();
        let (request, asked) = question(&self.plan, &self.model, grant, &mut self.random);
        self.send(index, request, asked)
    }

    /// An operator sends a request that will be answered.
    fn send(&mut self, index: usize, request: Request, mut asked: Asked) -> Checked {
        let operator = &mut self.operators[index];
        if !operator.open {
            return Ok(()); // there were too many already
        }
        let grant = operator.grant();
        if let Some(refusal) = grant.forbids(&request) {
            asked = Asked::Forbidden(refusal.into());
        }
        self.model.asked(&mut asked);
        let id = operator.new_id();
        operator.asked.insert(id, asked);
        self.send_frame(index, id, tongue::said(grant, request))
    }

    pub(super) fn send_frame(&mut self, index: usize, id: u32, request: Request) -> Checked {
        let message = ClientMessage { id, request };
        self.trace.note(|| format!("operator {index} → {message:?}"));
        self.send_bytes(index, &encoded(&message))
    }

    fn send_bytes(&mut self, index: usize, payload: &[u8]) -> Checked {
        self.input(Input::SessionFrame { session: session_of(index), payload })
    }

    pub(super) fn send_chunk(&mut self) -> Checked {
        let Some(index) = self.any_operator() else { return Ok(()) };
        let ready = self.operators[index].asked.iter().filter(|(_, asked)| asked.can_send());
        let ready = ready.map(|(id, _)| *id);
        match self.random.pick_from(ready) {
            Some(id) => self.send_piece(index, id, 2000),
            None => Ok(()),
        }
    }

    /// An operator sends the next bytes of an upload.
    pub(super) fn send_piece(&mut self, index: usize, id: u32, bytes: usize) -> Checked {
        match self.operators[index].next_chunk(id, bytes) {
            Some(chunk) => self.send_frame(index, id, chunk),
            None => Ok(()),
        }
    }

    pub(super) fn cancel(&mut self) -> Checked {
        let Some(index) = self.any_operator() else { return Ok(()) };
        let asked = self.operators[index].asked.iter();
        let can = asked.filter(|(_, asked)| !matches!(asked, Asked::Volumes)).map(|(id, _)| *id);
        match self.random.pick_from(can) {
            Some(id) => self.cancel_request(index, id),
            None => Ok(()),
        }
    }

    /// Ends a stream or an upload; anything else goes on, and is answered.
    pub(super) fn cancel_request(&mut self, index: usize, id: u32) -> Checked {
        let operator = &mut self.operators[index];
        if let Some(Asked::Volume(VolumeOrder { kind: VolumeKind::Push(_), .. })) = operator.asked.get(&id) {
            self.model.abandoned(operator, id);
        }
        if let Some(
            Asked::Console(_)
            | Asked::List(_)
            | Asked::History(..)
            | Asked::Push(_)
            | Asked::Export(_)
            | Asked::Pull(_)
            | Asked::Import(_)
            | Asked::Events { .. }
            | Asked::Watching,
        ) = operator.asked.get(&id)
        {
            operator.asked.remove(&id);
        }
        self.send_frame(index, id, Request::Cancel)
    }

    pub(super) fn disconnect(&mut self) -> Checked {
        let index = self.random.index(self.operators.len());
        self.end_session(index)
    }

    /// An operator's connection ends.
    pub(super) fn end_session(&mut self, index: usize) -> Checked {
        if !self.operators[index].open {
            return Ok(());
        }
        self.trace.note(|| format!("operator {index} disconnects"));
        self.session_ended(index);
        self.input(Input::SessionClosed { session: session_of(index) })
    }

    pub(super) fn client_stalls(&mut self) -> Checked {
        let index = self.random.index(self.operators.len());
        self.operators[index].stalled = self.operators[index].open && !self.operators[index].stalled;
        Ok(())
    }

    pub(super) fn client_reads(&mut self) -> Checked {
        let waiting = |index: &usize| self.operators[*index].queued > 0 && !self.operators[*index].stalled;
        let Some(index) = self.random.pick_from((0..self.operators.len()).filter(waiting)) else {
            return Ok(());
        };
        let queued = self.operators[index].queued;
        let left = if self.random.chance(700) { 0 } else { self.random.index(queued) };
        self.drain(index, left)
    }

    /// An operator's queue gets shorter.
    pub(super) fn drain(&mut self, index: usize, left: usize) -> Checked {
        self.operators[index].queued = left;
        if left >= SESSION_QUEUE_BYTES {
            return Ok(());
        }
        self.input(Input::SessionDrained { session: session_of(index), queued: left })
    }

    /// A client that does not keep to the protocol. Its session ends, but for stray chunks.
    pub(super) fn misbehave(&mut self) -> Checked {
        let Some(index) = self.any_operator() else { return Ok(()) };
        let breach = self.random.below(7);
        if breach == 0 {
            let id = self.operators[index].new_id();
            self.operators[index].strays += 1;
            return self.send_frame(index, id, Request::ImageChunk(Blob::default()));
        }
        self.operators[index].expelled = true;
        match breach {
            1 => {
                let claimed = u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX - 1) + 1;
                self.trace.note(|| format!("operator {index} claims a frame of {claimed} bytes"));
                self.input(Input::SessionFrameTooLong { session: session_of(index), claimed })?;
            }
            2 => {
                let id = self.operators[index].new_id();
                self.send_frame(index, id, HELLO)?;
            }
            3 => match self.operators[index].asked.keys().next().copied() {
                Some(id) => self.send_frame(index, id, Request::Host)?,
                None => self.send_garbage(index)?,
            },
            _ => self.send_garbage(index)?,
        }
        let operator = &self.operators[index];
        crate::model::ensure(!operator.open, || format!("operator {index} was not turned out"))
    }

    /// A frame that is no message: noise, or a message that is cut or goes on.
    fn send_garbage(&mut self, index: usize) -> Checked {
        let grant = self.operators[index].grant();
        let (request, _) = question(&self.plan, &self.model, grant, &mut self.random);
        let mut payload = encoded(&ClientMessage { id: 0, request });
        match self.random.below(3) {
            0 => payload.truncate(self.random.index(payload.len())),
            1 => payload.push(0),
            _ => payload = (0..self.random.below(40)).map(|_| self.random.byte() | 0x80).collect(),
        }
        self.trace.note(|| format!("operator {index} → {payload:02x?}"));
        self.send_bytes(index, &payload)
    }

    pub(super) fn guest_writes(&mut self, bytes: u64) -> Checked {
        if let Some(instance) = self.random.pick_from(self.host.guests())
            && let Some(process) = self.host.processes.get_mut(&instance)
        {
            process.write(self.random.between(1, bytes));
            let first = self.random.byte();
            for (volume, content) in self.host.write_volumes(instance, first) {
                self.model.volume_written(volume, content);
            }
        }
        Ok(())
    }

    pub(super) fn guest_exits(&mut self) -> Checked {
        if let Some(instance) = self.random.pick_from(self.host.guests()) {
            let status = match self.random.below(4) {
                0 => ExitStatus::Signal(11),
                1 => ExitStatus::Code(0),
                _ => ExitStatus::Code(self.random.byte()),
            };
            self.trace.note(|| format!("instance {} ends: {status}", instance.0));
            self.host.end(instance, status);
        }
        Ok(())
    }
}
