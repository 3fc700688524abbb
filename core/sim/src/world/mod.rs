//! The world: a control plane, a host, the link between them, operators, the time; and what happens next.
//!
//! | room | what it does |
//! |---|---|
//! | `plane` | the control plane: feeds the engine and carries out what it decides, as the unikernel does |
//! | `link`, `clock` | the connection to the shim, the time |
//! | `disk`, `ahead` | what the control plane keeps its state on; no effect before its record |
//! | `act` | what operators and guests do |
//! | `faults` | what goes wrong |
//! | `rest` | faults stop: everything must come to rest, and be as it is shown |

mod act;
mod ahead;
mod clock;
mod disk;
mod faults;
mod link;
mod plane;
mod rest;

use std::collections::BTreeMap;

use petrel_engine::Input;
use petrel_wire::{
    frame,
    shim::{FromShim, Op, Request, VolumeOp},
};

use crate::{
    host::{Broken, Host, VOLUMES},
    model::{Checked, Model, Violation, VolumeFate, Volumes, dishonest},
    operator::Operator,
    plan::{Event, Plan},
    random::Random,
    trace::Trace,
};

pub use clock::{DAY_MS, WALL_START_MS};

use clock::Clock;
use disk::Disk;
use link::Link;
use plane::Plane;

/// How often each kind of thing has happened.
pub type Counts = BTreeMap<String, u64>;

/// A world.
pub struct World {
    plan: Plan,
    random: Random,
    clock: Clock,
    host: Host,
    link: Link,
    plane: Plane,
    /// The block device "state", if there is one.
    disk: Option<Disk>,
    operators: Vec<Operator>,
    model: Model,
    /// When to rest next, in steps.
    rest_at: u64,
    /// What happened lately.
    pub trace: Trace,
    /// What there was, to tell whether the simulation gets everywhere.
    pub counts: Counts,
}

impl World {
    /// The world of a seed, without some kinds of events.
    pub fn new(seed: u64, without: &[Event], trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, without);
        let mut world = Self {
            host: Host::new(&plan),
            operators: (0..plan.operators).map(|_| Operator::default()).collect(),
            clock: Clock::new(),
            link: Link::default(),
            plane: Plane::new(),
            disk: (plan.state_bytes > 0).then(|| Disk::new(plan.state_bytes, plan.block_bytes)),
            model: Model {
                disk_may_fill: plan.may_fill_disk(),
                volumes: volumes_at_first(),
                ..Model::default()
            },
            rest_at: plan.rest_every,
            counts: Counts::new(),
            trace,
            random,
            plan,
        };
        world.trace.note(|| format!("{:?}", world.plan));
        world
    }

    /// What is on the block device "state".
    pub fn state(&self) -> Option<&[u8]> {
        self.disk.as_ref().map(Disk::bytes)
    }

    /// One step: something happens, and whatever follows from it at once.
    pub fn step(&mut self, number: u64) -> Checked {
        let most_ns = 2 * self.plan.step_ns;
        self.clock.pass(self.random.below(most_ns));
        self.keep_up()?;
        let event = self.plan.next(&mut self.random);
        self.happens(event)?;
        if number >= self.rest_at {
            self.rest()?;
            self.rest_at = number + self.plan.rest_every;
        }
        Ok(())
    }

    fn happens(&mut self, event: Event) -> Checked {
        match event {
            Event::ShimTurn => self.shim_turn(),
            Event::EngineHears => self.engine_hears(),
            Event::ClientReads => self.client_reads(),
            Event::MonitorEnds => {
                self.host.end_dying(&mut self.random);
                Ok(())
            }
            Event::ProbeEnds => {
                let passed = self.random.chance(self.plan.probes_pass);
                self.probe_ends(passed)
            }
            Event::Connect => self.connect(),
            Event::Ask => self.ask(),
            Event::SendChunk => self.send_chunk(),
            Event::Cancel => self.cancel(),
            Event::Disconnect => self.disconnect(),
            Event::ClientStalls => self.client_stalls(),
            Event::Misbehave => self.misbehave(),
            Event::GuestWrites => self.guest_writes(300),
            Event::GuestFloods => self.guest_writes(100_000),
            Event::GuestExits => self.guest_exits(),
            fault => self.goes_wrong(fault),
        }
    }

    /// What is due by now: timers, programs that come back, the link.
    fn keep_up(&mut self) -> Checked {
        let now_ns = self.clock.ns();
        if self.host.shim.is_none() && now_ns >= self.host.shim_back_ns {
            self.trace.note(|| "the shim comes up".into());
            self.host.start_shim();
        }
        if self.plane.engine.is_none() && now_ns >= self.plane.back_ns {
            self.start_plane()?;
        }
        self.wake()?;
        self.advance_link()
    }

    fn advance_link(&mut self) -> Checked {
        let now_ns = self.clock.ns();
        if self.link.is_stalled(now_ns) {
            return Ok(());
        }
        if self.link.ended_for_shim() {
            self.link.drop_shim_end(&mut self.random);
            self.host.link_ended();
        }
        if self.link.ended_for_plane() {
            self.drop_link();
            return self.input(Input::LinkClosed);
        }
        let both_up = self.plane.engine.is_some() && self.host.shim.is_some();
        if both_up && !self.link.plane_has && now_ns >= self.link.retry_ns {
            self.trace.note(|| "the link opens".into());
            // The shim takes the new connection for the link, whatever became of the old one.
            self.host.link_ended();
            self.link.open();
            self.plane.opened_ns = now_ns;
            return self.input(Input::LinkOpened);
        }
        Ok(())
    }

    /// The shim goes once through its loop.
    fn shim_turn(&mut self) -> Checked {
        if self.host.shim.is_none() {
            return Ok(());
        }
        self.host.reap();
        if self.link.shim_has && !self.link.is_stalled(self.clock.ns()) {
            for _ in 0..self.random.between(1, self.plan.shim_burst) {
                if !self.shim_has_room() {
                    break;
                }
                let Some(payload) = self.link.next_for_shim() else { break };
                self.shim_hears(&payload)?;
            }
        }
        if self.host.is_greeted() && self.shim_has_room() {
            for message in self.host.tell() {
                self.send_to_plane(&message);
            }
        } else {
            self.host.shed_consoles();
        }
        Ok(())
    }

    fn shim_has_room(&self) -> bool {
        self.link.queued_for_plane() < self.plan.link_bytes
    }

    fn shim_hears(&mut self, payload: &[u8]) -> Checked {
        let request: Request = decoded(payload, "the shim")?;
        self.trace.note(|| format!("shim ← {request:?}"));
        self.model.asked_of_host(&request.op, &self.host)?;
        let spawn = match &request.op {
            Op::Spawn(spawn) => Some(spawn.clone()),
            _ => None,
        };
        let lists_volumes = matches!(&request.op, Op::Volume(VolumeOp::List { .. }));
        let failures = self.host.failures;
        let answer = self.host.handle(request).map_err(|Broken(violation)| dishonest(&violation))?;
        self.model.host_failed |= self.host.failures < failures;
        let Some(answer) = answer else { return Ok(()) };
        self.model.untold |= lists_volumes && matches!(answer, FromShim::Reply { result: Err(_), .. });
        self.send_to_plane(&answer);
        match (answer, spawn) {
            (FromShim::Reply { result: Ok(_), .. }, Some(spawn)) => self.model.started(&spawn, &self.host),
            _ => Ok(()),
        }
    }

    fn send_to_plane(&mut self, message: &FromShim) {
        self.trace.note(|| format!("shim → {message:?}"));
        self.link.send_to_plane(encoded(message));
    }

    fn engine_hears(&mut self) -> Checked {
        if !self.link.plane_has || self.link.is_stalled(self.clock.ns()) {
            return Ok(());
        }
        let Some(payload) = self.link.next_for_plane() else { return Ok(()) };
        self.plane.heard_ns = self.clock.ns();
        self.trace.note(|| "engine hears".into());
        self.input(Input::LinkFrame { payload: &payload })
    }

    /// When something is due next, in monotonic nanoseconds.
    fn next_due_ns(&self) -> Option<u64> {
        let engine = self.plane.engine.as_ref();
        let dues = [
            engine.and_then(petrel_engine::Engine::poll_at),
            engine.is_none().then_some(self.plane.back_ns),
            self.host.shim.is_none().then_some(self.host.shim_back_ns),
            (!self.link.plane_has).then_some(self.link.retry_ns),
        ];
        dues.into_iter().flatten().min()
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }
}

/// Every host has these from the beginning.
fn volumes_at_first() -> Volumes {
    let names = VOLUMES.iter().filter_map(|name| name.parse().ok());
    names.map(|name| (name, VolumeFate::present(4096))).collect()
}

/// The payload of the frame that carries a message.
fn encoded<T: serde::Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Every message of ours fits a frame: one that does not is sent as an empty one, which nobody can read.
    let _ = frame::encode(message, &mut bytes);
    bytes.drain(..frame::HEADER_BYTES.min(bytes.len()));
    bytes
}

/// The message that a payload carries.
fn decoded<'a, T: serde::Deserialize<'a>>(payload: &'a [u8], by: &str) -> Result<T, Violation> {
    frame::decode(payload)
        .map_err(|error| Violation(format!("{by} was sent {error} ({} bytes)", payload.len())))
}
