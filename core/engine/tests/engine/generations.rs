//! Generations: changes, updates that go back by themselves, and the way back.

use petrel_wire::{
    Blob, Digest, ExitStatus,
    limits::GENERATIONS_MAX,
    operator::{
        Block, Change, Create, GenerationInfo, Refusal, Request, Response, RestartWhen, Setback, State,
        Supervision, VolumeRefusal, Wish,
    },
    shim::{Fault, Op},
};

use crate::{
    image::{self, BLOCK, NET, Recipe},
    restart::{restart, restarted, start, stop},
    world::{World, create, destroy, name, networked, plain},
};

pub const WINDOW_S: u32 = 30;

struct Site {
    world: World,
    session: petrel_engine::SessionId,
    old: Digest,
    new: Digest,
    next_id: u32,
}

impl Site {
    /// A host with two images and a unikernel `a` of the old one, which is started again whenever it ends.
    fn new() -> Self {
        Self::within(World::new())
    }

    fn within(mut world: World) -> Self {
        let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
        let old = world.host.store(image::build(&recipe));
        let new = world.host.store(image::build(&Recipe { padding: 1, ..recipe }));
        let session = world.client();
        world.create(session, 1, restarted(RestartWhen::Always, &[], networked("a", old, &["net0"])));
        Self { world, session, old, new, next_id: 10 }
    }

    fn ask(&mut self, request: Request) -> Response {
        let id = self.send(request);
        self.world.run();
        self.world.next(self.session, id)
    }

    fn send(&mut self, request: Request) -> u32 {
        self.next_id += 1;
        self.world.send(self.session, self.next_id, request);
        self.next_id
    }

    /// An update to the new image is under way: the new one runs, and its window has begun.
    fn updating(&mut self) -> u32 {
        let id = self.send(update("a", self.to_new()));
        self.world.run();
        assert!(self.world.nothing_for(self.session));
        assert_eq!(self.spawned(), (2, self.new));
        id
    }

    fn to_new(&self) -> Change {
        Change { image: Some(self.new), ..Change::default() }
    }

    /// How many instances there were, and the image of the last.
    fn spawned(&self) -> (usize, Digest) {
        let spawned = &self.world.host.spawned;
        (spawned.len(), spawned.last().unwrap().image)
    }

    fn history(&mut self) -> Vec<GenerationInfo> {
        let id = self.send(Request::History(name("a")));
        let mut all = Vec::new();
        loop {
            let Response::Generation { generation, more } = self.world.next(self.session, id) else {
                panic!()
            };
            all.push(*generation);
            if !more {
                return all;
            }
        }
    }

    /// The numbers of the generations, the current one and those given up marked.
    fn numbers(&mut self) -> String {
        let mark = |generation: GenerationInfo| {
            let current = if generation.current { "*" } else { "" };
            format!("{}{current}{}", generation.number, if generation.faulty { "!" } else { "" })
        };
        self.history().into_iter().map(mark).collect::<Vec<_>>().join(" ")
    }

    /// Both the new image and the argument `two` are in the third generation, which has taken the place of an order's.
    #[track_caller]
    fn has_both_changes_and_superseded(&mut self, order: u32) {
        self.world.run();
        let superseded = Response::Refused(Refusal::Superseded);
        assert_eq!(self.world.next(self.session, order), superseded);
        assert_eq!(self.spawned().1, self.new);
        let changed = args(&["two"]).args.unwrap();
        assert_eq!(self.world.host.spawned.last().unwrap().args, changed);
        assert_eq!(self.numbers(), "1 2 3*");
    }

    fn one_runs(&self) -> bool {
        let host = &self.world.host;
        (host.running().len(), host.ledger.monitors.len(), host.ledger.taps.len()) == (1, 1, 1)
    }
}

pub fn update(unikernel: &str, change: Change) -> Request {
    Request::Update { name: name(unikernel), change: change.into(), window_s: WINDOW_S }
}

pub fn rollback(unikernel: &str, generation: Option<u32>) -> Request {
    Request::Rollback { name: name(unikernel), generation }
}

fn args(all: &[&str]) -> Change {
    let all: Vec<_> = all.iter().map(|arg| Blob::try_from(arg.as_bytes()).unwrap()).collect();
    Change { args: Some(all.try_into().unwrap()), ..Change::default() }
}

fn ready_at_80(create: Create) -> Create {
    let ready = Some("tcp:10.0.0.9:80".parse().unwrap());
    Create { supervision: Supervision { ready, ..create.supervision }, ..create }
}

#[test]
fn a_change_that_is_made_while_the_image_of_another_is_looked_into_is_not_lost() {
    let mut site = Site::new();
    site.send(update("a", site.to_new()));
    let restart = site.send(restart("a", args(&["two"])));
    site.has_both_changes_and_superseded(restart);
}

#[test]
fn a_change_of_what_got_another_image_meanwhile_is_of_that_image() {
    let mut site = Site::within(World::with_disk(1 << 20));
    // It has forgotten what it has looked into, and looks into the new one first.
    site.world.restart();
    site.world.run();
    site.session = site.world.client();
    site.ask(Request::ImagePush { digest: site.new, bytes: 1 });
    site.send(update("a", args(&["two"])));
    let restart = site.send(restart("a", site.to_new()));
    site.has_both_changes_and_superseded(restart);
}

#[test]
fn an_update_is_done_when_the_new_generation_has_run_through_its_window() {
    let mut site = Site::new();
    let id = site.updating();
    assert!(site.one_runs());
    assert_eq!(site.world.info("a").watching.trial_from, Some(1));
    site.world.sleep_ms(29_999);
    assert!(site.world.nothing_for(site.session));
    site.world.sleep_ms(1000);
    let Response::Updated(updated) = site.world.next(site.session, id) else { panic!() };
    assert_eq!((updated.generation, updated.image, updated.state), (2, site.new, State::Running));
    assert_eq!(site.numbers(), "1 2*");
    assert_eq!((updated.restarts, site.world.info("a").watching.trial_from), (0, None));
    let macs: Vec<_> = site.world.host.spawned.iter().map(|spawn| spawn.nets[0].mac).collect();
    assert_eq!(macs[0], macs[1], "its address stays");
}

#[test]
fn a_generation_that_ends_in_its_window_is_given_up_for_the_one_before() {
    let mut site = Site::new();
    let id = site.updating();
    let instance = site.world.running("a");
    site.world.host.end(instance, ExitStatus::Code(255));
    site.world.run();
    let why = Setback::Ended(ExitStatus::Code(255));
    let refusal = Refusal::RolledBack { failed: 2, generation: 1, why };
    assert_eq!(site.world.next(site.session, id), Response::Refused(refusal));
    assert_eq!(site.spawned(), (3, site.old));
    assert_eq!((site.numbers().as_str(), site.world.state("a")), ("1* 2!", State::Running));
    assert!(site.one_runs());
}

#[test]
fn a_generation_that_is_not_ready_in_time_is_given_up_and_one_that_is_ready_is_kept_at_once() {
    for ready in [false, true] {
        let mut site = Site::new();
        let wanted = ready_at_80(networked("a", site.old, &["net0"]));
        assert!(matches!(site.ask(create(Create { force: true, ..wanted })), Response::Created(_)));
        assert_eq!(site.world.probed(true), "tcp:10.0.0.9:80");
        assert_eq!(site.world.state("a"), State::Ready);
        let change = site.to_new();
        let id = site.send(update("a", change));
        site.world.run();
        for passed in [false, false, ready] {
            assert!(site.world.nothing_for(site.session));
            site.world.probed(passed);
            site.world.sleep_ms(300);
        }
        if ready {
            let Response::Updated(updated) = site.world.next(site.session, id) else { panic!() };
            assert_eq!((updated.state, updated.generation), (State::Ready, 3));
        } else {
            site.world.sleep_ms(30_000);
            let refusal = Refusal::RolledBack { failed: 3, generation: 2, why: Setback::NotReady };
            assert_eq!(site.world.next(site.session, id), Response::Refused(refusal));
            assert_eq!(site.spawned().1, site.old);
        }
        assert!(site.one_runs());
    }
}

#[test]
fn a_generation_that_cannot_be_started_is_given_up_with_the_reason() {
    for request in [update("a", args(&["x"])), restart("a", args(&["x"]))] {
        let mut site = Site::new();
        let os = Fault::Os { errno: 12 };
        site.world.host.faults.push((|op| matches!(op, Op::Spawn(_)), os));
        assert_eq!(site.ask(request), Response::Refused(Refusal::Shim(os)));
        assert_eq!((site.numbers().as_str(), site.world.state("a")), ("1* 2!", State::Running));
        assert_eq!(*site.world.info("a").args, []);
        assert!(site.one_runs());
    }
}

#[test]
fn a_change_that_cannot_be_is_refused_and_changes_nothing() {
    let mut site = Site::new();
    let other = site.world.host.store(image::build(&Recipe { padding: 2, ..Recipe::default() }));
    let image = |image| Change { image: Some(image), ..Change::default() };
    let memory = |memory_mib| Change { memory_mib: Some(memory_mib), ..Change::default() };
    let cpus = Change { cpus: Some(vec![7].try_into().unwrap()), ..Change::default() };
    let device = "net0".parse().unwrap();
    let cases = [
        (image(image::digest(b"nowhere")), Refusal::NoSuchImage),
        (image(other), Refusal::DeviceUnknown { device, kind: petrel_wire::operator::DeviceKind::Net }),
        (memory(2049), Refusal::Memory { asked_mib: 2049, min_mib: 3, max_mib: 2048 }),
        (cpus, Refusal::CpuUnknown(7)),
        (args(&["a\0b"]), Refusal::Arguments { max: 8192 }),
    ];
    for (change, refusal) in cases {
        assert_eq!(site.ask(update("a", change.clone())), Response::Refused(refusal.clone()));
        assert_eq!(site.ask(restart("a", change)), Response::Refused(refusal));
    }
    assert_eq!(site.ask(update("b", args(&[]))), Response::Refused(Refusal::NoSuchUnikernel));
    for window_s in [0, 3601] {
        let update = Request::Update { name: name("a"), change: args(&[]).into(), window_s };
        assert_eq!(site.ask(update), Response::Refused(Refusal::Supervision));
    }
    assert_eq!((site.spawned().0, site.numbers().as_str()), (1, "1*"));
}

#[test]
fn what_a_unikernel_holds_itself_it_may_have_again() {
    let mut site = Site::new();
    let change = Change { memory_mib: Some(2048), ..Change::default() };
    assert!(matches!(site.ask(restart("a", change)), Response::Started(_)));
    assert_eq!(site.world.info("a").unikernel.memory_mib, 2048);
    let change = Change { memory_mib: Some(100), ..Change::default() };
    assert!(matches!(site.ask(restart("a", change)), Response::Started(_)));
    let Response::Host(host) = site.ask(Request::Host) else { panic!() };
    assert_eq!(host.memory_used_mib, 100);
}

#[test]
fn a_restart_with_other_arguments_is_another_generation_of_the_same_name() {
    let mut site = Site::new();
    let Response::Started(started) = site.ask(restart("a", args(&["--verbose"]))) else { panic!() };
    assert_eq!((started.state, started.generation, started.image), (State::Running, 2, site.old));
    assert_eq!(site.world.host.spawned[1].args[0].to_vec(), b"--verbose");
    assert_eq!(site.world.host.spawned[0].nets[0].mac, site.world.host.spawned[1].nets[0].mac);
}

#[test]
fn an_operator_goes_back_to_an_earlier_generation() {
    let mut site = Site::new();
    for arg in ["two", "three"] {
        assert!(matches!(site.ask(restart("a", args(&[arg]))), Response::Started(_)));
    }
    let Response::Updated(updated) = site.ask(rollback("a", None)) else { panic!() };
    assert_eq!((updated.generation, site.numbers().as_str()), (2, "1 2* 3"));
    assert_eq!(site.world.host.spawned.last().unwrap().args[0].to_vec(), b"two");
    let Response::Updated(updated) = site.ask(rollback("a", Some(3))) else { panic!() };
    assert_eq!((updated.generation, updated.state), (3, State::Running));
    for generation in [Some(3), Some(4), Some(0)] {
        let refused = site.ask(rollback("a", generation));
        assert_eq!(refused, Response::Refused(Refusal::NoSuchGeneration));
    }
    assert!(matches!(site.ask(rollback("a", Some(1))), Response::Updated(_)));
    assert_eq!(site.ask(rollback("a", None)), Response::Refused(Refusal::NoSuchGeneration));
    // The next one has a number of its own.
    site.ask(restart("a", args(&["four"])));
    assert_eq!(site.numbers(), "1 2 3 4*");
    assert!(site.one_runs());
}

#[test]
fn the_latest_generations_are_kept() {
    let mut site = Site::new();
    for i in 2..20 {
        assert!(matches!(site.ask(restart("a", args(&[&i.to_string()]))), Response::Started(_)));
    }
    let numbers: Vec<u32> = site.history().iter().map(|generation| generation.number).collect();
    assert_eq!(numbers, (20 - GENERATIONS_MAX as u32..20).collect::<Vec<_>>());
}

#[test]
fn an_update_of_a_stopped_unikernel_leaves_it_stopped() {
    let mut site = Site::new();
    site.ask(stop("a"));
    let change = site.to_new();
    let Response::Updated(updated) = site.ask(update("a", change)) else { panic!() };
    assert_eq!((updated.state, updated.generation), (State::Stopped, 2));
    assert_eq!(site.spawned().0, 1);
    assert!(matches!(site.ask(rollback("a", None)), Response::Updated(_)));
    assert!(matches!(site.ask(rollback("a", Some(2))), Response::Updated(_)));
    assert!(matches!(site.ask(start("a")), Response::Started(_)));
    assert_eq!(site.spawned(), (2, site.new));
}

#[test]
fn a_restart_of_a_stopped_one_that_fails_leaves_it_stopped_as_it_was() {
    let mut site = Site::new();
    site.ask(stop("a"));
    let os = Fault::Os { errno: 12 };
    site.world.host.faults.push((|op| matches!(op, Op::Spawn(_)), os));
    assert_eq!(site.ask(restart("a", args(&["x"]))), Response::Refused(Refusal::Shim(os)));
    site.world.sleep_ms(100_000);
    assert_eq!((site.world.state("a"), site.numbers().as_str()), (State::Stopped, "1* 2!"));
}

#[test]
fn whoever_asks_for_something_else_ends_the_trial() {
    let asked: [(Request, State); 3] = [
        (stop("a"), State::Stopped),
        (restart("a", Change::default()), State::Running),
        (create(Create { force: true, ..networked("a", Digest([0; 32]), &["net0"]) }), State::Running),
    ];
    for (request, state) in asked {
        let mut site = Site::new();
        let old = site.old;
        let id = site.updating();
        let request = match request {
            Request::Create(wanted) => create(Create { image: old, ..*wanted }),
            other => other,
        };
        let other = site.send(request);
        site.world.run();
        assert_eq!(site.world.next(site.session, id), Response::Refused(Refusal::Superseded));
        let answer = site.world.next(site.session, other);
        assert!(!matches!(answer, Response::Refused(_)), "{answer:?}");
        site.world.sleep_ms(100_000);
        assert_eq!((site.world.state("a"), site.world.info("a").watching.trial_from), (state, None));
    }
    // A start asks for what is there already.
    let mut site = Site::new();
    let id = site.updating();
    assert!(matches!(site.ask(start("a")), Response::Started(_)));
    site.world.sleep_ms(31_000);
    assert!(matches!(site.world.next(site.session, id), Response::Updated(_)));
}

#[test]
fn a_unikernel_on_trial_can_be_destroyed() {
    let mut site = Site::new();
    let id = site.updating();
    let destroyed = site.send(destroy("a"));
    site.world.run();
    assert_eq!(site.world.next(site.session, id), Response::Refused(Refusal::Superseded));
    assert_eq!(site.world.next(site.session, destroyed), Response::Destroyed);
    assert!(site.world.host.ledger.monitors.is_empty());
    site.world.disconnect(site.session);
    assert_eq!(site.world.engine.poll_at(), None);
}

#[test]
fn an_update_during_an_update_goes_back_to_what_did_well() {
    let mut site = Site::new();
    site.updating();
    let id = site.send(update("a", args(&["x"])));
    site.world.run();
    assert!(matches!(site.world.next(site.session, id - 1), Response::Refused(Refusal::Superseded)));
    let instance = site.world.running("a");
    site.world.host.end(instance, ExitStatus::Code(1));
    site.world.run();
    let why = Setback::Ended(ExitStatus::Code(1));
    let refusal = Refusal::RolledBack { failed: 3, generation: 1, why };
    assert_eq!(site.world.next(site.session, id), Response::Refused(refusal));
    assert_eq!((site.numbers().as_str(), site.spawned().1), ("1* 2 3!", site.old));
}

#[test]
fn a_create_with_force_takes_the_place_of_what_there_is_and_may_change_everything() {
    let mut site = Site::new();
    let none = site.world.host.store(image::build(&Recipe::default()));
    assert_eq!(site.ask(create(plain("a", none))), Response::Refused(Refusal::NameTaken));
    let wanted = Create { force: true, memory_mib: 64, ..plain("a", none) };
    let Response::Created(created) = site.ask(create(wanted.clone())) else { panic!() };
    assert_eq!((created.generation, created.memory_mib, created.state), (2, 64, State::Running));
    assert!(site.world.info("a").nets.is_empty() && site.world.host.ledger.taps.is_empty());
    // Where there is none, it is created.
    let Response::Created(created) = site.ask(create(Create { name: name("b"), ..wanted })) else { panic!() };
    assert_eq!((created.generation, created.wish), (1, Wish::Running));
}

#[test]
fn a_trial_goes_on_while_the_link_is_away() {
    let mut site = Site::new();
    let id = site.updating();
    site.world.link_down();
    assert!(site.world.nothing_for(site.session));
    site.world.link_up();
    site.world.sleep_ms(31_000);
    assert!(matches!(site.world.next(site.session, id), Response::Updated(_)));
}

/// Breaks the link after each step of an update: it is done, or refused and undone.
#[test]
fn an_update_during_which_the_link_breaks_is_done_or_undone() {
    let mut met = std::collections::BTreeSet::new();
    for steps in 0..16 {
        let mut site = Site::new();
        let change = site.to_new();
        let id = site.send(update("a", change));
        for _ in 0..steps {
            site.world.step();
        }
        site.world.link_down();
        site.world.host.reap();
        site.world.link_up();
        site.world.sleep_ms(40_000);
        let expected = match site.world.next(site.session, id) {
            Response::Updated(_) => (2, site.new),
            Response::Refused(Refusal::ShimAway) => (1, site.old),
            other => panic!("{other:?} after {steps} steps"),
        };
        met.insert(expected.0);
        let shown = site.world.info("a").unikernel;
        assert_eq!((shown.generation, shown.state), (expected.0, State::Running), "after {steps} steps");
        assert_eq!(site.spawned().1, expected.1, "after {steps} steps");
        assert!(site.one_runs());
        assert_eq!(site.world.resets, 0);
    }
    assert_eq!(met.len(), 2, "both happen");
}

/// Its first generation is being started when the second is asked for.
#[test]
fn a_restart_is_answered_when_the_new_generation_runs_not_when_the_earlier_one_does() {
    let mut site = Site::new();
    let (world, session) = (&mut site.world, site.session);
    world.send(session, 2, create(networked("b", site.old, &["net0"])));
    let change = Box::new(Change { memory_mib: Some(64), ..Change::default() });
    world.send(session, 3, Request::Restart { name: name("b"), change });
    while !matches!(world.inboxes[&session].back(), Some(message) if message.id == 3) {
        assert!(world.step(), "it is not answered");
    }
    assert_eq!(world.host.spawned.last().unwrap().memory_mib, 64);
}

/// … which has been told to end for the new one, or was to be told so when the link broke.
#[test]
fn a_rollback_to_the_generation_that_still_runs_is_done() {
    for lost in [false, true] {
        let mut site = Site::new();
        let updating = site.send(update("a", args(&["new"])));
        let back = site.send(rollback("a", Some(1)));
        assert_eq!(site.world.next(site.session, updating), Response::Refused(Refusal::Superseded));
        if lost {
            site.world.link_down();
            site.world.link_up();
        }
        site.world.run();
        site.world.sleep_ms(2000);
        let answer = site.world.next(site.session, back);
        let as_expected =
            matches!(answer, Response::Updated(_)) || answer == Response::Refused(Refusal::ShimAway);
        assert!(as_expected, "{answer:?}");
        assert!(site.one_runs());
    }
}

/// The first generation is being started again, and cannot be, when the second is asked for.
#[test]
fn a_start_that_fails_says_nothing_of_the_generation_that_was_asked_for_meanwhile() {
    let mut site = Site::new();
    site.world.host.end(site.world.instance(0), ExitStatus::Code(7));
    site.world.run();
    site.world.wait_ms(1000);
    site.world.host.faults.push((|op| matches!(op, Op::Spawn(_)), Fault::Os { errno: 12 }));
    let id = site.send(update("a", site.to_new()));
    site.world.sleep_ms(u64::from(WINDOW_S) * 1000 + 1000);
    assert!(matches!(site.world.next(site.session, id), Response::Updated(_)));
    assert_eq!(site.spawned(), (2, site.new));
}

/// A create that is forced finds one that is being started, with a volume that somebody has taken away.
#[test]
fn a_start_that_fails_is_refused_for_what_it_was_made_from() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe { devices: &[("disk", BLOCK)], ..Recipe::default() }));
    let session = world.client();
    let with = |unikernel: &str, volume: &str| {
        let block = Block { device: "disk".parse().unwrap(), volume: volume.parse().unwrap() };
        Create { blocks: vec![block].try_into().unwrap(), ..plain(unikernel, digest) }
    };
    world.create(session, 1, with("first", "data"));
    world.ask(session, 1, destroy("first"));
    world.host.faults.push((|op| matches!(op, Op::Spawn(_)), Fault::NoVolume));
    world.send(session, 1, create(with("a", "more")));
    world.send(session, 2, create(Create { force: true, ..with("a", "data") }));
    world.run();
    let missing = Refusal::Volume(VolumeRefusal::Missing(name("more")));
    assert_eq!(world.next(session, 1), Response::Refused(missing));
}
