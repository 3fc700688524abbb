//! A random walk, from a seed: many clients, a host with faults, a link that breaks, a control plane that loses its
//! memory. After any of it, when all has come to rest, what is shown is what there is.

use std::collections::{BTreeSet, btree_map::Entry};

use petrel_engine::SessionId;
use petrel_wire::{
    Blob, Digest, ExitStatus, Path, Probe,
    limits::{REQUESTS_MAX, SESSION_QUEUE_BYTES},
    operator::{
        Change, Create, EventsAsked, ImageRequest, Liveness, Refusal, Request, Response, RestartWhen, State,
        Supervision, Unikernel, VolumeRefusal, VolumeRequest, VolumeState, Wish,
    },
    shim::{Fault, InstanceId, Op, VolumeOp},
};

use crate::{
    create::with_disks,
    host::Applies,
    image::{self, BLOCK, NET, Recipe},
    restart::{restart, start, stop},
    store, volumes,
    world::{World, console, create, destroy, info, name, networked, plain, push},
};

/// SplitMix64: the same numbers from the same seed, everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of several.
    pub fn of<T: Clone>(&mut self, several: &[T]) -> T {
        several[self.below(several.len())].clone()
    }

    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}

struct Walk {
    world: World,
    random: Random,
    /// Each with the bytes of its uploads that are still to be sent, by request.
    clients: Vec<Client>,
    stored: Digest,
    /// An image that wants a volume.
    disk: Digest,
    uploads: Vec<Vec<u8>>,
    /// The kinds of answers that there were.
    met: BTreeSet<String>,
}

struct Client {
    session: SessionId,
    next_id: u32,
    uploads: Vec<(u32, Vec<u8>)>,
    /// The same of its volumes.
    pushes: Vec<(u32, Vec<u8>)>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        // Half of them remember what they are told.
        let mut world = if seed.is_multiple_of(2) { World::new() } else { World::with_disk(4 << 20) };
        let recipe = Recipe { devices: &[("net0", NET), ("net1", NET)], ..Recipe::default() };
        let stored = world.host.store(image::build(&recipe));
        let disk = world.host.store(image::build(&Recipe { devices: &[("disk0", BLOCK)], ..recipe.clone() }));
        let mut uploads: Vec<_> =
            (1..4).map(|i| image::build(&Recipe { padding: 30_000 * i, ..recipe.clone() })).collect();
        uploads.push(image::build(&Recipe { target: image::SPT, ..recipe }));
        uploads.push(vec![b'#'; 50_000]);
        Self {
            world,
            random: Random::new(seed),
            clients: Vec::new(),
            stored,
            disk,
            uploads,
            met: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..40 => drop(self.world.step_host()),
            40..75 => drop(self.world.step_link()),
            75 => drop(self.world.linked && self.world.host.reap()),
            76..94 => self.client_step(),
            94 => self.guest_writes(),
            95 => self.guest_ends(),
            96 => self.plan_fault(),
            97 => self.link_changes(),
            98 => self.client_stalls(),
            99 if !self.world.probes.is_empty() => {
                let passed = self.random.below(3) > 0;
                self.world.answer_probe(passed);
            }
            _ => self.rare(),
        }
        if !self.world.linked && self.random.below(10) == 0 {
            self.world.link_up();
        }
        self.read_all();
    }

    fn rare(&mut self) {
        match self.random.below(8) {
            0 => {
                self.world.restart();
                self.clients.clear();
            }
            1..4 if !self.clients.is_empty() => {
                let gone = self.random.below(self.clients.len());
                let client = self.clients.swap_remove(gone);
                self.world.disconnect(client.session);
            }
            4 => self.world.host.shares_blocks = !self.world.host.shares_blocks,
            _ => {
                let ms = [10, 1000, 1000, 20_000][self.random.below(4)];
                self.world.wait_ms(ms);
            }
        }
    }

    fn link_changes(&mut self) {
        if self.world.linked && self.random.below(4) == 0 {
            self.world.link_down();
        }
    }

    fn client_stalls(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let session = self.clients[self.random.below(self.clients.len())].session;
        match self.world.stalled.entry(session) {
            Entry::Vacant(reads) => drop(reads.insert(0)),
            Entry::Occupied(_) => self.world.unstall(session),
        }
    }

    fn plan_fault(&mut self) {
        let steps: [Applies; 14] = [
            |op| matches!(op, Op::TapCreate { .. }),
            |op| matches!(op, Op::TapCreate { tap, .. } if tap.0 % 2 == 0),
            |op| matches!(op, Op::Spawn(_)),
            |op| matches!(op, Op::Kill(_)),
            |op| matches!(op, Op::Forget(_)),
            |op| matches!(op, Op::ImageBegin { .. }),
            |op| matches!(op, Op::ImageCommit(_)),
            |op| matches!(op, Op::ImageRead { .. }),
            |op| matches!(op, Op::Spawn(_)),
            |op| matches!(op, Op::ImageRemove(_)),
            |op| matches!(op, Op::Volume(VolumeOp::Create { .. })),
            |op| matches!(op, Op::Volume(VolumeOp::Write { .. } | VolumeOp::Read { .. })),
            |op| matches!(op, Op::Volume(VolumeOp::Remove(_) | VolumeOp::Resize { .. })),
            |op| matches!(op, Op::Volume(VolumeOp::Rename { .. } | VolumeOp::Sync(_))),
        ];
        let step = steps[self.random.below(steps.len())];
        let fault = [Fault::Full, Fault::Os { errno: 5 }, Fault::InUse][self.random.below(3)];
        self.world.host.faults.push((step, fault));
    }

    fn any_guest(&mut self) -> Option<InstanceId> {
        let running = self.world.host.running();
        (!running.is_empty()).then(|| running[self.random.below(running.len())])
    }

    fn guest_writes(&mut self) {
        if let Some(instance) = self.any_guest() {
            let bytes = vec![b'.'; self.random.below(9000)];
            self.world.host.write(instance, &bytes);
        }
    }

    fn guest_ends(&mut self) {
        if let Some(instance) = self.any_guest() {
            self.world.host.end(instance, ExitStatus::Code(self.random.byte()));
        }
    }

    fn client_step(&mut self) {
        if self.clients.len() < 2 || (self.clients.len() < 8 && self.random.below(20) == 0) {
            let session = self.world.client();
            self.clients.push(Client { session, next_id: 1, uploads: Vec::new(), pushes: Vec::new() });
            return;
        }
        let index = self.random.below(self.clients.len());
        let session = self.clients[index].session;
        // A driver reads no more from a client that does not.
        if self.world.stalled.get(&session).is_some_and(|&queued| queued > SESSION_QUEUE_BYTES) {
            return;
        }
        if !self.clients[index].uploads.is_empty() && self.random.below(3) > 0 {
            return self.send_chunk(index);
        }
        if !self.clients[index].pushes.is_empty() && self.random.below(3) == 0 {
            return self.send_push(index);
        }
        let id = self.clients[index].next_id;
        self.clients[index].next_id += 1;
        let request = self.any_request(index, id);
        let used = self.world.unanswered.keys().filter(|(of, _)| *of == session).count();
        assert!(used <= REQUESTS_MAX);
        self.world.send(session, id, request);
    }

    fn any_request(&mut self, index: usize, id: u32) -> Request {
        let unikernel = format!("u{}", self.random.below(12));
        match self.random.below(28) {
            22..27 => self.any_volume_request(index, id),
            27 => Request::Image(match self.random.below(4) {
                0 => ImageRequest::List,
                1 => ImageRequest::Pull(self.stored),
                2 => ImageRequest::Remove(image::digest(&self.uploads[0])),
                _ => ImageRequest::Collect,
            }),
            0 => {
                let volume = format!("v{}", self.random.below(4));
                let supervision = self.any_supervision();
                let force = self.random.below(4) == 0;
                let it = Create { supervision, force, ..plain(&unikernel, self.disk) };
                create(with_disks(it, &[("disk0", &volume)]))
            }
            1..4 => {
                let devices: &[&str] = if self.random.below(8) == 0 { &["net0"] } else { &["net1", "net0"] };
                let image = match self.random.below(4) {
                    0 => image::digest(&self.uploads[self.random.below(self.uploads.len())]),
                    _ => self.stored,
                };
                let create_it = Create {
                    supervision: self.any_supervision(),
                    force: self.random.below(4) == 0,
                    ..networked(&unikernel, image, devices)
                };
                create(create_it)
            }
            12..14 => start(&unikernel),
            14 => stop(&unikernel),
            15 => restart(&unikernel, self.any_change()),
            16 => {
                let (name, change) = (name(&unikernel), self.any_change().into());
                Request::Update { name, change, window_s: 5 }
            }
            17 => {
                let number = self.random.below(4) as u32;
                Request::Rollback { name: name(&unikernel), generation: (number > 0).then_some(number) }
            }
            18 => Request::History(name(&unikernel)),
            4..7 => destroy(&unikernel),
            7 => info(&unikernel),
            8 => console(&unikernel, self.random.below(2) == 0),
            9 => Request::List,
            10 => Request::Host,
            19 => Request::Consoles,
            20 => {
                // One that follows never ends: of those each client has one at most.
                let session = self.clients[index].session;
                let follows = |asked: &String| asked.contains("EventsAsked { follow: true");
                let mut asked = self.world.unanswered.iter().filter(|((of, _), _)| *of == session);
                let follow = !asked.any(|(_, asked)| follows(asked));
                Request::Events(EventsAsked { follow, ..Default::default() }.into())
            }
            21 => Request::Stats(if self.random.below(2) == 0 {
                Path::ROOT
            } else {
                unikernel.parse().unwrap()
            }),
            _ => {
                let image = self.uploads[self.random.below(self.uploads.len())].clone();
                let lie = self.random.below(6) == 0;
                let bytes = if lie { image.len() / 2 } else { image.len() };
                let request = push(image::digest(&image), bytes);
                self.clients[index].uploads.push((id, image));
                request
            }
        }
    }

    fn any_volume_request(&mut self, index: usize, id: u32) -> Request {
        let volume = format!("v{}", self.random.below(4));
        let bytes = 4096 * (1 + self.random.below(20)) as u64;
        match self.random.below(10) {
            0..3 => volumes::make(&volume, bytes),
            3 => volumes::remove(&volume),
            4 => volumes::resize(&volume, bytes),
            5 => volumes::snapshot(&volume, &format!("v{}", self.random.below(4))),
            6 => Request::Volume(VolumeRequest::List),
            7 => volumes::pull(&volume),
            _ => {
                let content = vec![self.random.byte(); self.random.below(50_000)];
                let request = volumes::push(&volume, content.len());
                self.clients[index].pushes.push((id, content));
                request
            }
        }
    }

    /// Sends the whole content of a push that is wanted, or gives it up half-way.
    fn send_push(&mut self, index: usize) {
        let at = self.random.below(self.clients[index].pushes.len());
        let session = self.clients[index].session;
        if !self.world.wanted.contains(&(session, self.clients[index].pushes[at].0)) {
            return;
        }
        let (id, content) = self.clients[index].pushes.swap_remove(at);
        for (i, piece) in content.chunks(20_000).enumerate() {
            if self.random.below(10) == 0 {
                return self.world.send(session, id, Request::Cancel);
            }
            self.world.send(session, id, volumes::chunk(i * 20_000, piece));
        }
        self.world.send(session, id, volumes::PUSH_END);
    }

    fn any_supervision(&mut self) -> Supervision {
        let when = [RestartWhen::Never, RestartWhen::OnFailure, RestartWhen::Always][self.random.below(3)];
        let tcp: Probe = "tcp:10.0.0.1:1".parse().unwrap();
        let mut supervision = Supervision::default();
        supervision.restart.when = when;
        match self.random.below(6) {
            0 => {
                supervision.ready = Some([tcp, "console:...".parse().unwrap()][self.random.below(2)].clone())
            }
            1 => supervision.alive = Some(Liveness { probe: tcp, every_s: 3, failures: 2 }),
            2 => {
                let other = name(&format!("u{}", self.random.below(12)));
                supervision.after = vec![other].try_into().unwrap();
            }
            _ => {}
        }
        supervision
    }

    fn any_change(&mut self) -> Change {
        match self.random.below(4) {
            0 => Change::default(),
            1 => Change { image: Some(image::digest(&self.uploads[0])), ..Change::default() },
            _ => Change { memory_mib: Some(16 + self.random.below(200) as u32), ..Change::default() },
        }
    }

    /// Sends the next bytes of an upload that is wanted, or gives one up.
    fn send_chunk(&mut self, index: usize) {
        let at = self.random.below(self.clients[index].uploads.len());
        let session = self.clients[index].session;
        let (id, mut rest) = self.clients[index].uploads.swap_remove(at);
        if !self.world.unanswered.contains_key(&(session, id)) {
            return;
        }
        if self.random.below(20) == 0 {
            return self.world.send(session, id, Request::Cancel);
        }
        let wanted = self.world.wanted.contains(&(session, id));
        if wanted && !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(20_000));
            self.world.send(session, id, Request::ImageChunk(Blob::try_from(rest).unwrap()));
            rest = tail;
        }
        self.clients[index].uploads.push((id, rest));
    }

    /// The clients look at their answers.
    fn read_all(&mut self) {
        for inbox in self.world.inboxes.values_mut() {
            for message in inbox.drain(..) {
                self.met.insert(kind_of(&message.response));
                if let Response::Refused(refusal) = &message.response {
                    let own =
                        matches!(refusal, Refusal::Malformed | Refusal::IdInUse | Refusal::HelloExpected);
                    assert!(!own, "an honest client was refused: {refusal:?}");
                }
            }
        }
        for (session, queued) in &self.world.stalled {
            assert!(*queued < 4 * SESSION_QUEUE_BYTES, "{session:?} has {queued} bytes queued");
        }
    }

    /// All comes to rest: every request has its answer, and what is shown is what there is.
    fn rest(&mut self, context: &str) {
        self.world.host.faults.clear();
        for session in self.world.stalled.keys().copied().collect::<Vec<_>>() {
            self.world.unstall(session);
        }
        for client in std::mem::take(&mut self.clients) {
            for (id, _) in client.uploads.into_iter().chain(client.pushes) {
                if self.world.unanswered.contains_key(&(client.session, id)) {
                    self.world.send(client.session, id, Request::Cancel);
                }
            }
            let (session, next_id) = (client.session, client.next_id);
            self.clients.push(Client { session, next_id, uploads: Vec::new(), pushes: Vec::new() });
        }
        // What the shim could not end is ended when it is asked again.
        if self.world.linked {
            self.world.link_down();
        }
        self.world.link_up();
        // Windows are over, waits too, and all probes succeed.
        for _ in 0..200 {
            while !self.world.probes.is_empty() {
                self.world.answer_probe(true);
            }
            self.world.sleep_ms(1000);
        }
        self.read_all();
        let following = |asked: &String| asked.contains("follow: true");
        let left: Vec<_> = self.world.unanswered.values().filter(|asked| !following(asked)).collect();
        assert!(left.is_empty(), "{context}: unanswered: {left:?}");
        self.check(context);
    }

    fn check(&mut self, context: &str) {
        let shown = self.world.list();
        let names: BTreeSet<_> = shown.iter().map(|unikernel| unikernel.name.clone()).collect();
        assert_eq!(names.len(), shown.len(), "{context}: a name twice");
        let host = &self.world.host;
        let runs = |unikernel: &&Unikernel| matches!(unikernel.state, State::Running | State::Ready);
        assert_eq!(shown.iter().filter(runs).count(), host.running().len(), "{context}: {shown:?}");
        assert!(host.ledger.monitors.len() <= shown.len(), "{context}: {shown:?}");
        for unikernel in shown.clone() {
            let expected = match unikernel.state {
                State::Running | State::Ready | State::Waiting | State::Ended(_) => Wish::Running,
                State::Stopped => Wish::Stopped,
                other => {
                    let watching = self.world.info(&unikernel.name).watching;
                    // The volume of one that is stopped may be removed.
                    let lacks_volume = matches!(
                        watching.failure.as_deref(),
                        Some(Refusal::Volume(VolumeRefusal::Unknown(_)))
                    );
                    assert!(
                        other == State::Failed && lacks_volume,
                        "{context}: {} is still {other:?}: {watching:?}",
                        unikernel.name
                    );
                    Wish::Running
                }
            };
            assert_eq!(unikernel.wish, expected, "{context}: {unikernel:?}");
        }
        let host = &self.world.host;
        let networked = |unikernel: &&Unikernel| unikernel.image != self.disk;
        let taps = 2 * shown.iter().filter(runs).filter(networked).count();
        assert_eq!((host.ledger.taps.len(), host.free_taps()), (taps, 0), "{context}");
        assert!(host.ledger.uploads.is_empty(), "{context}: an upload is left");
        let attached = shown.iter().filter(runs).filter(|unikernel| unikernel.image == self.disk).count();
        assert_eq!(host.ledger.volumes.len(), attached, "{context}");
        let waits = |unikernel: &&Unikernel| matches!(unikernel.state, State::Waiting | State::Failed);
        let holds = shown.iter().filter(|unikernel| runs(unikernel) || waits(unikernel));
        let memory_mib: u64 = holds.map(|unikernel| u64::from(unikernel.memory_mib)).sum();
        let session = self.world.client();
        let Response::Host(facts) = self.world.ask(session, 1, Request::Host) else { panic!() };
        assert_eq!(facts.memory_used_mib, memory_mib, "{context}");
        self.world.disconnect(session);
        self.check_volumes(context);
        let nonsense =
            |line: &&(_, String)| line.1.contains("is reset") && !line.1.contains("not answered in time");
        let nonsense: Vec<_> = self.world.log.iter().filter(nonsense).collect();
        assert!(nonsense.is_empty(), "{context}: an honest shim was taken for nonsense: {nonsense:?}");
    }
}

impl Walk {
    /// Each volume that is shown is a file and each file is shown, with its size and who has it; no draft is left but what
    /// is read still.
    fn check_volumes(&mut self, context: &str) {
        let shown = volumes::list(&mut self.world);
        let files: Vec<String> = self.world.host.volume_files().into_iter().map(String::from).collect();
        let names: Vec<String> = shown.iter().map(|volume| volume.name.to_string()).collect();
        assert_eq!(names, files, "{context}");
        for volume in &shown {
            assert_eq!(volume.state, VolumeState::Ready, "{context}: {volume:?}");
            assert_eq!(
                volume.bytes,
                self.world.host.volume(&volume.name).len() as u64,
                "{context}: {volume:?}"
            );
            let attached = self.world.host.ledger.volumes.contains(&*volume.name);
            let waits = |user: &petrel_wire::Name| self.world.info(user).unikernel.state == State::Waiting;
            let held = attached || volume.user.as_ref().is_some_and(waits);
            assert_eq!(volume.user.is_some(), held, "{context}: {volume:?}");
        }
        let images: BTreeSet<Digest> = self.world.host.images.keys().copied().collect();
        assert_eq!(store::digests(&mut self.world).into_iter().collect::<BTreeSet<_>>(), images, "{context}");
    }
}

/// The kind of an answer: `Created`, `Refused(Full(Taps))`, `Refused(NoMonitor)`.
fn kind_of(response: &Response) -> String {
    let text = match response {
        Response::Refused(Refusal::Full(table)) => return format!("Refused(Full({table:?}))"),
        Response::Refused(Refusal::Volume(refusal)) => {
            return format!("Refused(Volume({}))", first_word(refusal));
        }
        Response::Volume(response) => return format!("Volume({})", first_word(response)),
        Response::Image(response) => return format!("Image({})", first_word(response)),
        Response::Refused(refusal) => format!("{refusal:?}"),
        other => format!("{other:?}"),
    };
    let kind = first_word(&text);
    if matches!(response, Response::Refused(_)) { format!("Refused({kind})") } else { kind }
}

fn first_word(shown: &dyn std::fmt::Debug) -> String {
    let text = format!("{shown:?}");
    let word = text.trim_start_matches('"').split(|c: char| !c.is_alphanumeric()).next();
    word.unwrap_or_default().into()
}

#[test]
fn whatever_happens_what_is_shown_is_what_there_is() {
    let mut met = BTreeSet::new();
    for seed in 0..40 {
        let mut walk = Walk::new(seed);
        for step in 0..4000 {
            walk.step();
            if step % 500 == 499 {
                walk.rest(&format!("seed {seed}, step {step}"));
            }
        }
        met.append(&mut walk.met);
    }
    // The walks get everywhere.
    let answers = "Host ImageWanted ImageStored Created Listed Info Console ConsoleMissed Ended ConsoleEnd Destroyed \
         Started Stopped Updated Generation ConsoleBegan Consoles Events EventsEnd Stats Refused(NotRunning) \
         Download Volume(Is) Volume(Listed) Volume(Wanted) Volume(Copied) Volume(Removed) \
         Image(Listed) Image(Removed) Image(Collected)";
    let refusals = "NoSuchUnikernel NameTaken NoSuchImage UnexpectedChunk NotAnImage NoMonitor DeviceMissing \
        Full(Taps) Full(Unikernels) ShimAway Shim AfterUnknown AfterCycle NoSuchGeneration RolledBack \
        Superseded BeingDestroyed \
        Volume(Unknown) Volume(Taken) Volume(InUse) Volume(Busy) Volume(Changed) Volume(TooSmall) ImageInUse";
    let refusals = refusals.split_whitespace().map(|refusal| format!("Refused({refusal})"));
    let all: BTreeSet<String> = answers.split_whitespace().map(String::from).chain(refusals).collect();
    assert_eq!(all.difference(&met).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut walk = Walk::new(7);
        (0..3000).for_each(|_| walk.step());
        (walk.world.log, walk.world.unanswered, walk.world.host.spawned.len())
    };
    assert!(run() == run());
}
