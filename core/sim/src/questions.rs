//! What operators ask: mostly what can be done, sometimes what cannot.

use petrel_wire::{
    Blob, List, Name, Path, Probe,
    limits::VOLUME_BLOCK_BYTES,
    operator::{
        Block, Change, ConsoleAsked, Create, DeviceKind, EventsAsked, ImageRequest, Liveness, Net, Policy,
        Request, Restart, RestartWhen, Revocable, Supervision, VolumeRequest,
    },
};

use crate::{
    asked::{Asked, Import, Kind, Order, PolicyOrder, Push, Reading, VolumeKind, VolumeOrder},
    grants::{self, Grant, within},
    host::{BRIDGES, VOLUMES},
    images::{self, Image},
    model::{Fate, Model},
    plan::Plan,
    random::Random,
    transfers::{Content, File, Pull, Sending},
};

/// Something to ask: the request, and what its answer is held against. Mostly something that can be done.
pub fn question(plan: &Plan, model: &Model, grant: &Grant, random: &mut Random) -> (Request, Asked) {
    let name = |in_use, random: &mut Random| name(plan, model, grant, in_use, random);
    match random.below(28) {
        0..8 => {
            let create = Box::new(wish(plan, model, grant, random));
            (Request::Create(create.clone()), Asked::Create(create))
        }
        8..11 => {
            let name = name(true, random);
            (Request::Destroy(name.clone()), Asked::Destroy(name))
        }
        21..25 => order(plan, model, grant, random),
        25 if random.chance(50) => revocation(grant, random),
        25 if random.chance(plan.policies) => policy(grant, random),
        26 => volume(grant, random),
        27 if random.chance(150) => stored(plan, random),
        11 | 12 => {
            let name = name(true, random);
            (Request::Info(name.clone()), Asked::Info(name))
        }
        13 => (Request::List, Asked::List(None)),
        14 if random.chance(100) => (Request::StateExport, Asked::Export(Vec::new())),
        14 if random.chance(200) => {
            let name = name(true, random);
            (Request::History(name.clone()), Asked::History(name, 0))
        }
        14 if random.chance(60) => {
            let import = import(model, random);
            let request = Request::StateImport { bytes: import.file.len() as u64, force: random.chance(500) };
            (request, Asked::Import(import))
        }
        14 => (Request::Host, Asked::Host),
        15 | 16 => {
            let (name, follow) = (name(true, random), random.chance(600));
            let reading = Reading { name: name.clone(), follow, of: None, position: 0, ended: false };
            // Of one that was there before under this name, the positions are not known.
            let asked = ConsoleAsked { name, follow, since: None, tail: None, latest: true };
            (Request::Console(asked), Asked::Console(reading))
        }
        17 => match random.below(7) {
            0 => (Request::Stats(grant.scope.clone()), Asked::Watching),
            1 => (Request::Consoles, Asked::Watching),
            2 => (Request::PolicyList(grant.scope.clone()), Asked::Watching),
            3 => (Request::CertRevocations, Asked::Watching),
            4 => (Request::Volume(VolumeRequest::List), Asked::Volumes),
            _ => {
                let follow = random.chance(200);
                let asked = EventsAsked { follow, path: grant.scope.clone(), ..EventsAsked::default() };
                (Request::Events(Box::new(asked)), Asked::Events { follow, last: None })
            }
        },
        _ => {
            let push = push(plan, random);
            (Request::ImagePush { digest: push.digest(), bytes: push.announced }, Asked::Push(push))
        }
    }
}

/// Something about volumes: all but large ones, since each is counted as a MiB at least.
fn volume(grant: &Grant, random: &mut Random) -> (Request, Asked) {
    let any = |random: &mut Random| -> Name {
        let text = random.pick(&["data", "more", "spare", "v1", "acme:v2", "acme:v3", "acme:web:v4"]);
        grant.own(text.parse().unwrap_or_else(|error| unreachable!("{text}: {error}")))
    };
    // Some take more than one piece.
    let most_blocks = *random.pick(&[4, 16, 300]);
    let (name, bytes) = (any(random), VOLUME_BLOCK_BYTES * (1 + random.below(most_blocks)));
    let (request, kind) = match random.below(16) {
        0..4 => (VolumeRequest::Create { name: name.clone(), bytes }, VolumeKind::Create(bytes)),
        4 | 5 => (VolumeRequest::Resize { name: name.clone(), bytes }, VolumeKind::Resize(bytes)),
        6 | 7 => {
            let from = any(random);
            let request = VolumeRequest::Snapshot { name: from.clone(), new: name.clone() };
            (request, VolumeKind::CopyOf(from))
        }
        8 | 9 => (VolumeRequest::Remove(name.clone()), VolumeKind::Remove),
        10..13 => {
            let content = Content::pushed(random.byte(), bytes - random.below(VOLUME_BLOCK_BYTES));
            let request = VolumeRequest::Push { name: name.clone(), bytes: content.bytes };
            (request, VolumeKind::Push(Sending::new(content)))
        }
        _ => {
            let pull = Pull::new(File::Volume(name.clone()));
            return (Request::Volume(VolumeRequest::Pull(name)), Asked::Pull(pull));
        }
    };
    (Request::Volume(request), Asked::Volume(VolumeOrder { name, kind }))
}

/// Something about stored images.
fn stored(plan: &Plan, random: &mut Random) -> (Request, Asked) {
    let request = match random.below(8) {
        0 | 1 => return (Request::Image(ImageRequest::List), Asked::Watching),
        2..5 => {
            let digest = images::all()[random.index(plan.images)].digest;
            let pull = Pull::new(File::Image(digest));
            return (Request::Image(ImageRequest::Pull(digest)), Asked::Pull(pull));
        }
        5 | 6 => ImageRequest::Remove(images::all()[random.index(plan.images)].digest),
        _ => ImageRequest::Collect,
    };
    (Request::Image(request), Asked::Images)
}

/// That certificates are not good any more: any but those that everybody may have.
fn revocation(grant: &Grant, random: &mut Random) -> (Request, Asked) {
    let all: Vec<_> = grants::all().iter().skip(1).flat_map(Grant::links).collect();
    let serial = random.pick(&all).0;
    let what = Revocable::Serial(vec![serial].try_into().unwrap_or_default());
    let path = grant.scope.clone();
    (Request::CertRevoke { path: path.clone(), what }, Asked::Revoke(serial, path))
}

/// What all that lies below a path may have: not much, now and then without limit.
fn policy(grant: &Grant, random: &mut Random) -> (Request, Asked) {
    let path: Path = random.pick(&[":", "acme", "acme:web", "acme:web:deep"]).parse().unwrap_or_default();
    // For its own path nobody sets a policy, but may try.
    let path = if within(grant.scope.labels(), path.labels()) { path } else { grant.scope.clone() };
    if random.chance(300) {
        let order = PolicyOrder { path: path.clone(), policy: None };
        return (Request::PolicyRemove(path), Asked::Policy(order));
    }
    let mut policy = Policy::default();
    if random.chance(700) {
        policy.unikernels = Some(u32::from(random.byte() % 12));
    }
    if random.chance(700) {
        policy.memory_mib = Some(random.below(150));
    }
    if random.chance(300) {
        policy.volume_mib = Some(random.below(8));
    }
    if random.chance(100) {
        policy.cpus = Some(List::try_from(vec![0, 3]).unwrap_or_default());
    }
    if random.chance(100) {
        policy.bridges = BRIDGES[0].parse().ok().and_then(|bridge| List::try_from(vec![bridge]).ok());
    }
    let order = PolicyOrder { path: path.clone(), policy: Some(policy.clone()) };
    (Request::PolicySet { path, policy: Box::new(policy) }, Asked::Policy(order))
}

/// One of the names that unikernels have in this world; more likely one that is in use, or one that is not.
fn name(plan: &Plan, model: &Model, grant: &Grant, in_use: bool, random: &mut Random) -> Name {
    const TRIES: usize = 3;
    let mut name = grant.own(numbered(random.index(plan.names)));
    for _ in 0..TRIES {
        let used = model.fates.get(&name).is_some_and(Fate::may_be);
        if used == in_use {
            break;
        }
        name = grant.own(numbered(random.index(plan.names)));
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
fn wish(plan: &Plan, model: &Model, grant: &Grant, random: &mut Random) -> Create {
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
        if let (Ok(device), Ok(volume)) = (device.parse(), volume.parse::<Name>()) {
            let _ = blocks.push(Block { device, volume: grant.own(volume) });
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
    let name = name(plan, model, grant, false, random);
    Create {
        supervision: supervision(plan, model, grant, &name, random),
        force: random.chance(100),
        name,
        image: image.digest,
        memory_mib,
        cpus: List::try_from(cpus.to_vec()).unwrap_or_default(),
        nets,
        blocks,
        args: List::try_from(vec![Blob::try_from(args).unwrap_or_default()]).unwrap_or_default(),
    }
}

/// How something is to be watched over: mostly not at all.
fn supervision(plan: &Plan, model: &Model, grant: &Grant, of: &Name, random: &mut Random) -> Supervision {
    let when = *random.pick(&[RestartWhen::Never, RestartWhen::OnFailure, RestartWhen::Always]);
    let codes = *random.pick(&[&[][..], &[], &[7], &[1, 3]]);
    let mut supervision = Supervision {
        restart: Restart { when, codes: codes.to_vec().try_into().unwrap_or_default() },
        ..Supervision::default()
    };
    if random.chance(200) {
        let after = if random.chance(20) { of.clone() } else { name(plan, model, grant, true, random) };
        let _ = supervision.after.push(after);
    }
    if random.chance(150) {
        supervision.ready = probe(random);
    }
    if random.chance(100)
        && let Some(probe) = probe(random)
    {
        let every_s = if random.chance(20) { 0 } else { 1 + u16::from(random.byte() % 20) };
        supervision.alive = Some(Liveness { probe, every_s, failures: 1 + random.byte() % 3 });
    }
    supervision
}

fn probe(random: &mut Random) -> Option<Probe> {
    // What guests write has each of these now and then.
    random.pick(&["tcp:10.0.0.9:80", "http:10.0.0.9:80/ok", "console:abc", "console:XYZ"]).parse().ok()
}

/// An order about something that there is. Its number and what was before are for the model to say.
fn order(plan: &Plan, model: &Model, grant: &Grant, random: &mut Random) -> (Request, Asked) {
    let name = name(plan, model, grant, true, random);
    let (request, kind) = match random.below(8) {
        0 | 1 => (Request::Start(name.clone()), Kind::Start),
        2 | 3 => (Request::Stop(name.clone()), Kind::Stop),
        4 => {
            let change = change(plan, model, random);
            let request = Request::Restart { name: name.clone(), change: Box::new(change.clone()) };
            (request, Kind::Restart(change))
        }
        5 | 6 => {
            let change = change(plan, model, random);
            let window_s = if random.chance(30) { 0 } else { 1 + u32::from(random.byte() % 20) };
            let request = Request::Update { name: name.clone(), change: Box::new(change.clone()), window_s };
            (request, Kind::Update(change))
        }
        _ => {
            let generation = random.chance(300).then(|| 1 + u32::from(random.byte() % 4));
            (Request::Rollback { name: name.clone(), generation }, Kind::Rollback)
        }
    };
    (request, Asked::Order(Order { name, kind, number: 0, before: None }))
}

fn change(plan: &Plan, model: &Model, random: &mut Random) -> Change {
    let mut change = Change::default();
    if random.chance(400) {
        change.image = Some(image(plan, model, random).digest);
    }
    if random.chance(300) {
        change.memory_mib = Some(*random.pick(&[1, 4, 8, 20, 5000]));
    }
    if random.chance(200) {
        change.args = Some(List::new());
    }
    change
}

/// An image, mostly one that is stored.
fn image(plan: &Plan, model: &Model, random: &mut Random) -> &'static Image {
    let stored = images::all().iter().filter(|image| model.images.contains(&image.digest));
    match random.pick_from(stored) {
        Some(image) if random.chance(900) => image,
        _ => &images::all()[random.index(plan.images)],
    }
}
