//! Operators: each has at most one session, asks what it likes, and knows what it has not been answered yet.

use std::{collections::BTreeMap, sync::Arc};

use petrel_wire::{
    Blob, Digest, List, Name, Path,
    operator::{Block, ConsoleAsked, Create, DeviceKind, EventsAsked, Net, Request, Supervision},
};

use crate::{
    host::{BRIDGES, VOLUMES},
    images::{self, Image},
    model::{Fate, Model},
    plan::Plan,
    random::Random,
};

/// An operator, and the client's and the driver's ends of its session.
#[derive(Debug, Default)]
pub struct Operator {
    /// It has a session.
    pub open: bool,
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

/// A request that is not answered yet, and what its answer is held against.
#[derive(Debug)]
pub enum Asked {
    /// Hello.
    Hello,
    /// Host.
    Host,
    /// List, so far up to this name.
    List(Option<Name>),
    /// Info.
    Info(Name),
    /// Create.
    Create(Box<Create>),
    /// Destroy.
    Destroy(Name),
    /// Console.
    Console(Reading),
    /// ImagePush.
    Push(Push),
    /// Events, so far up to this number.
    Events {
        /// Whether it goes on.
        follow: bool,
        /// The last one's number.
        last: Option<u64>,
    },
    /// What unikernels use, or which consoles are kept.
    Watching,
    /// StateExport, and what has come of the file.
    Export(Vec<u8>),
    /// StateImport.
    Import(Import),
}

/// A console being read.
#[derive(Debug)]
pub struct Reading {
    /// Whose.
    pub name: Name,
    /// Whether it goes on until the unikernel has ended.
    pub follow: bool,
    /// How many bytes have come or been missed.
    pub position: u64,
    /// It has been told how the unikernel ended.
    pub ended: bool,
}

/// An upload.
#[derive(Debug)]
pub struct Push {
    /// Which of the images.
    pub image: usize,
    /// The size that was announced.
    pub announced: u64,
    /// It sends other bytes than announced.
    pub corrupt: bool,
    /// How many bytes were sent.
    pub sent: usize,
    /// They have been asked for.
    pub wanted: bool,
}

/// A state file on its way in.
#[derive(Debug)]
pub struct Import {
    /// The whole file.
    pub file: Arc<[u8]>,
    /// It is one that a control plane has given out.
    pub honest: bool,
    /// How many bytes were sent.
    pub sent: usize,
    /// They have been asked for.
    pub wanted: bool,
}

impl Import {
    fn can_send(&self) -> bool {
        self.wanted && self.sent < self.file.len()
    }

    fn chunk(&mut self, bytes: usize) -> Request {
        let rest = &self.file[self.sent..];
        let data = &rest[..rest.len().min(bytes)];
        self.sent += data.len();
        Request::StateChunk(Blob::try_from(data).unwrap_or_default())
    }
}

impl Asked {
    /// Whether there is something to send for it.
    pub fn can_send(&self) -> bool {
        match self {
            Self::Push(push) => push.can_send(),
            Self::Import(import) => import.can_send(),
            _ => false,
        }
    }

    /// Whether it will never come to an end by itself.
    pub fn is_stuck(&self) -> bool {
        matches!(self, Self::Push(push) if push.is_stuck())
    }
}

impl Push {
    fn image(&self) -> &'static Image {
        &images::all()[self.image]
    }

    /// What it is called.
    pub fn digest(&self) -> Digest {
        self.image().digest
    }

    /// Whether there is something to send.
    fn can_send(&self) -> bool {
        self.wanted && self.sent < self.image().bytes.len()
    }

    /// Whether it will never come to an end by itself.
    fn is_stuck(&self) -> bool {
        self.wanted && !self.can_send() && self.announced > self.sent as u64
    }

    /// The next bytes.
    fn chunk(&mut self, bytes: usize) -> Request {
        let rest = &self.image().bytes[self.sent..];
        let mut data = rest[..rest.len().min(bytes)].to_vec();
        self.sent += data.len();
        if self.corrupt {
            data[0] ^= 1;
        }
        Request::ImageChunk(Blob::try_from(data).unwrap_or_default())
    }
}

impl Operator {
    /// A new session, as the client's own.
    pub fn connect(&mut self) {
        self.close();
        self.open = true;
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
            _ => None,
        }
    }
}

/// Something to ask: the request, and what its answer is held against. Mostly something that can be done.
pub fn question(plan: &Plan, model: &Model, random: &mut Random) -> (Request, Asked) {
    match random.below(21) {
        0..8 => {
            let create = Box::new(wish(plan, model, random));
            (Request::Create(create.clone()), Asked::Create(create))
        }
        8..11 => {
            let name = name(plan, model, true, random);
            (Request::Destroy(name.clone()), Asked::Destroy(name))
        }
        11 | 12 => {
            let name = name(plan, model, true, random);
            (Request::Info(name.clone()), Asked::Info(name))
        }
        13 => (Request::List, Asked::List(None)),
        14 if random.chance(100) => (Request::StateExport, Asked::Export(Vec::new())),
        14 if random.chance(60) => {
            let import = import(model, random);
            let request = Request::StateImport { bytes: import.file.len() as u64, force: random.chance(500) };
            (request, Asked::Import(import))
        }
        14 => (Request::Host, Asked::Host),
        15 | 16 => {
            let (name, follow) = (name(plan, model, true, random), random.chance(600));
            let reading = Reading { name: name.clone(), follow, position: 0, ended: false };
            // Of one that was there before under this name, the positions are not known.
            let asked = ConsoleAsked { name, follow, since: None, tail: None, latest: true };
            (Request::Console(asked), Asked::Console(reading))
        }
        17 => match random.below(4) {
            0 => (Request::Stats(Path::ROOT), Asked::Watching),
            1 => (Request::Consoles, Asked::Watching),
            _ => {
                let follow = random.chance(200);
                let asked = EventsAsked { follow, ..EventsAsked::default() };
                (Request::Events(Box::new(asked)), Asked::Events { follow, last: None })
            }
        },
        _ => {
            let push = push(plan, random);
            (Request::ImagePush { digest: push.digest(), bytes: push.announced }, Asked::Push(push))
        }
    }
}

/// One of the names that unikernels have in this world; more likely one that is in use, or one that is not.
fn name(plan: &Plan, model: &Model, in_use: bool, random: &mut Random) -> Name {
    const TRIES: usize = 3;
    let mut name = numbered(random.index(plan.names));
    for _ in 0..TRIES {
        let used = model.fates.get(&name).is_some_and(Fate::may_be);
        if used == in_use {
            break;
        }
        name = numbered(random.index(plan.names));
    }
    name
}

fn numbered(number: usize) -> Name {
    let text = match number % 3 {
        0 => format!("u{number}"),
        1 => format!("acme:u{number}"),
        _ => format!("acme:web:u{number}"),
    };
    text.parse().unwrap_or_else(|error| unreachable!("{text}: {error}"))
}

fn push(plan: &Plan, random: &mut Random) -> Push {
    let image = random.index(plan.images);
    let bytes = images::all()[image].bytes.len() as u64;
    let announced = match random.below(20) {
        0 => bytes / 2,
        1 => bytes + 1,
        2 => random.below(2) << 40, // nothing, or more than is taken
        _ => bytes,
    };
    Push { image, announced, corrupt: random.chance(60), sent: 0, wanted: false }
}

/// A state file that somebody has got, or noise, or a file that was damaged.
fn import(model: &Model, random: &mut Random) -> Import {
    let known = random.pick_from(model.files.iter());
    let mut file = known.map_or_else(|| b"PETRSTAT, it seems".to_vec(), |file| file.to_vec());
    let honest = known.is_some() && random.chance(800);
    if !honest {
        let index = random.index(file.len());
        file[index] ^= 1 << random.below(8);
    }
    Import { file: file.into(), honest, sent: 0, wanted: false }
}

/// What an operator would have run: mostly what fits.
fn wish(plan: &Plan, model: &Model, random: &mut Random) -> Create {
    let image = image(plan, model, random);
    let mut devices = image.devices.clone();
    match random.below(40) {
        0 => drop(devices.pop()),
        1 => devices.push(("net9", DeviceKind::Net)),
        2 => devices.extend(devices.first().copied()),
        _ => {}
    }
    let of_kind = |kind| devices.iter().filter(move |device| device.1 == kind).map(|device| device.0);
    let (mut nets, mut blocks) = (List::new(), List::new());
    for device in of_kind(DeviceKind::Net) {
        let bridge = if random.chance(20) { "moon" } else { *random.pick(&BRIDGES) };
        if let (Ok(device), Ok(bridge)) = (device.parse(), bridge.parse()) {
            let _ = nets.push(Net { device, bridge });
        }
    }
    for device in of_kind(DeviceKind::Block) {
        let volume = if random.chance(20) { "none" } else { *random.pick(&VOLUMES) };
        if let (Ok(device), Ok(volume)) = (device.parse(), volume.parse()) {
            let _ = blocks.push(Block { device, volume });
        }
    }
    let cpus: &[u16] = match random.below(30) {
        0 => &[9],
        1..5 => &[3, 1],
        5..9 => &[0],
        _ => &[],
    };
    let args = if random.chance(20) { vec![0] } else { vec![b'x'; random.index(plan.arg_bytes)] };
    let memory_mib = match random.below(40) {
        0 => 1,
        1 => 5000,
        2..6 => 100,
        _ => *random.pick(&[4, 8, 16]),
    };
    Create {
        name: name(plan, model, false, random),
        image: image.digest,
        memory_mib,
        cpus: List::try_from(cpus.to_vec()).unwrap_or_default(),
        nets,
        blocks,
        args: List::try_from(vec![Blob::try_from(args).unwrap_or_default()]).unwrap_or_default(),
        supervision: Supervision::default(),
        force: false,
    }
}

/// An image, mostly one that is stored.
fn image(plan: &Plan, model: &Model, random: &mut Random) -> &'static Image {
    let stored = images::all().iter().filter(|image| model.images.contains(&image.digest));
    match random.pick_from(stored) {
        Some(image) if random.chance(900) => image,
        _ => &images::all()[random.index(plan.images)],
    }
}
