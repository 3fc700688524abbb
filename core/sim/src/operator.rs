//! Operators: each has at most one session, asks what it likes, and knows what it has not been answered yet.

use std::collections::BTreeMap;

use petrel_wire::operator::Request;

use crate::{
    asked::{Asked, VolumeKind, VolumeOrder},
    grants::{self, Grant},
};

/// An operator, and the client's and the driver's ends of its session.
#[derive(Debug, Default)]
pub struct Operator {
    /// It has a session.
    pub open: bool,
    /// Which of the grants its session has.
    pub granted: usize,
    /// Its client takes nothing off its queue.
    pub stalled: bool,
    /// The bytes queued towards its client.
    pub queued: usize,
    /// What has not got its last answer.
    pub asked: BTreeMap<u32, Asked>,
    next_id: u32,
    /// It broke the protocol: its session must end.
    pub expelled: bool,
    /// Chunks that belong to nothing, which will be refused.
    pub strays: usize,
}

impl Operator {
    /// A new session, as the client's own.
    pub fn connect(&mut self, granted: usize) {
        self.close();
        (self.open, self.granted) = (true, granted);
    }

    /// What its certificates say.
    pub fn grant(&self) -> &'static Grant {
        &grants::all()[self.granted]
    }

    /// Its session is over.
    pub fn close(&mut self) {
        *self = Self { next_id: self.next_id, ..Self::default() };
    }

    /// A number that is not in use.
    pub fn new_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// The next piece of the upload `id`.
    pub fn next_chunk(&mut self, id: u32, bytes: usize) -> Option<Request> {
        match self.asked.get_mut(&id).filter(|asked| asked.can_send())? {
            Asked::Push(push) => Some(push.chunk(bytes)),
            Asked::Import(import) => Some(import.chunk(bytes)),
            Asked::Volume(VolumeOrder { kind: VolumeKind::Push(sending), .. }) => Some(sending.chunk(bytes)),
            _ => None,
        }
    }
}
