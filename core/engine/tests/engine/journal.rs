//! What the control plane remembers, and that nothing leaves before it is remembered; state files.

use petrel_engine::{Input, Level, SessionId};
use petrel_wire::{
    Blob, Digest, ExitStatus, List, Path,
    limits::{ARGS_MAX, CMDLINE_BYTES_MAX},
    operator::{Change, Journal, ReadOnly, Refusal, Request, Response, RestartWhen, Revocable, State},
    shim::{Fault, Op, VolumeOp},
};

use crate::{
    chain::{Says, chain, says},
    disk::Disk,
    generations::{rollback, update},
    image::{self, NET, Recipe},
    order::after,
    policy::below,
    probes::ready,
    restart::{restart, restarted, start, stop},
    world::{World, console, create, destroy, info, name, networked, push},
};

pub const DISK_BYTES: usize = 1 << 20;

pub fn with_image(mut world: World) -> (World, Digest) {
    let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    (world, digest)
}

pub fn given_a_disk() -> (World, Digest) {
    with_image(World::with_disk(DISK_BYTES))
}

pub fn names(world: &mut World) -> Vec<String> {
    world.list().into_iter().map(|unikernel| unikernel.name.to_string()).collect()
}

/// What `petrel host` says of the journal.
pub fn journal(world: &mut World) -> Journal {
    let session = world.client();
    let Response::Host(host) = world.ask(session, 1, Request::Host) else { panic!() };
    world.disconnect(session);
    host.journal
}

pub fn is_logged(world: &World, level: Level, text: &str) -> bool {
    world.log.iter().any(|(of, line)| *of == level && line.contains(text))
}

// Remembering.

#[test]
fn without_a_disk_it_works_and_says_so() {
    let (mut world, digest) = with_image(World::new());
    assert!(is_logged(&world, Level::Info, "kept in memory only"));
    assert_eq!(journal(&mut world), Journal::InMemory);
    let session = world.client();
    world.send(session, 1, create(networked("a", digest, &["net0"])));
    world.run();
    assert!(!world.order.contains(&"persist"));
}

#[test]
fn nothing_leaves_before_its_record() {
    let (mut world, digest) = given_a_disk();
    // The first record of all begins the journal, which takes three writes.
    world.wait_ms(1000);
    let session = world.client();
    world.order.clear();
    // The image is looked into; then the create goes out.
    world.send(session, 1, create(networked("a", digest, &["net0"])));
    assert_eq!(std::mem::take(&mut world.order), ["request"], "a question needs no record");
    assert!(world.step_host() && world.step_link());
    assert_eq!(std::mem::take(&mut world.order), ["persist", "log", "log", "request", "request"]);
    assert!(world.step_host() && world.step_link());
    assert!(world.step_host() && world.step_link());
    assert_eq!(std::mem::take(&mut world.order), ["log", "answer"], "that it runs, the shim tells again");
    assert!(matches!(world.next(session, 1), Response::Created(_)));

    world.order.clear();
    world.send(session, 2, destroy("a"));
    assert_eq!(std::mem::take(&mut world.order), ["persist", "log", "request"]);
    while world.nothing_for(session) {
        world.order.clear();
        assert!(world.step());
    }
    assert_eq!(std::mem::take(&mut world.order), ["persist", "log", "answer"]);
    assert_eq!(world.next(session, 2), Response::Destroyed);
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    for i in 0..10 {
        world.create(session, i, networked(&format!("u{i}"), digest, &["net0"]));
    }
    world.host.end(world.instance(4), ExitStatus::Code(1));
    world.run();
    assert_eq!(world.ask(session, 20, destroy("u7")), Response::Destroyed);
    let before: Vec<_> = ["u1", "u4", "u9"].map(|name| world.ask(session, 21, info(name))).into();
    let listed = world.list();
    world.restart();
    assert!(is_logged(&world, Level::Info, "state: the journal is in epoch"));
    world.run();
    let session = world.client();
    let after: Vec<_> = ["u1", "u4", "u9"].map(|name| world.ask(session, 21, info(name))).into();
    assert_eq!((before, listed), (after, world.list()));
    assert_eq!(world.refused(session, 22, create(networked("u1", digest, &["net0"]))), Refusal::NameTaken);
    world.create(session, 23, networked("u7", digest, &["net0"]));
    assert!(matches!(journal(&mut world), Journal::Kept { epoch: 1, used_bytes: 1.., .. }));
}

#[test]
fn the_end_of_one_is_remembered_even_if_nobody_asks_for_anything() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.disconnect(session);
    world.wait_ms(1000);
    world.host.end(world.instance(0), ExitStatus::Code(7));
    world.run();
    let ended_ms = world.list()[0].ended_ms;
    let at_ns = world.engine.poll_at().expect("it waits for company");
    world.wait_ms(1000);
    assert!(world.now.monotonic_ns >= at_ns && world.engine.poll_at().is_none());
    world.restart();
    world.run();
    assert_eq!((world.list()[0].ended_ms, ended_ms.is_some()), (ended_ms, true));
}

/// A control plane that cannot know all takes over what runs; one that does ends what nobody was promised.
#[test]
fn what_only_the_shim_knows_is_adopted_once_and_is_nobodys_later() {
    let (mut world, digest) = with_image(World::new());
    let session = world.client();
    world.create(session, 1, networked("old", digest, &["net0"]));
    // The control plane is given a disk.
    world.disk = Some(crate::disk::Disk::new(DISK_BYTES));
    world.restart();
    world.run();
    assert_eq!(names(&mut world), ["old"]);
    let session = world.client();
    world.create(session, 1, networked("new", digest, &["net0"]));
    world.restart();
    world.run();
    assert_eq!(names(&mut world), ["new", "old"]);

    // Its create was refused, because the link broke; before it could be ended the control plane went down.
    let session = world.client();
    world.send(session, 1, create(networked("refused", digest, &["net0"])));
    while world.host.running().len() < 3 {
        assert!(world.step_host() || world.step_link());
    }
    world.link_down();
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::ShimAway));
    world.restart();
    world.run();
    assert_eq!((names(&mut world), world.host.running().len()), (vec!["new".into(), "old".into()], 2));
    assert!(is_logged(&world, Level::Warning, "nobody's"));
}

/// The control plane dies after each step of a create and of a destroy. What it said holds.
/// The disk fails while the shim tells what runs: what was known before that is still all there is.
#[test]
fn what_is_nobodys_is_not_adopted_because_the_disk_fails() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    for i in 0..4 {
        world.create(session, i, networked(&format!("u{i}"), digest, &["net0"]));
    }
    world.send(session, 5, create(networked("refused", digest, &["net0"])));
    while world.step_host() {}
    world.link_down();
    world.host.end(world.instance(0), ExitStatus::Code(1));
    world.restart();
    // As far as the first page of the ledger, on which is the one that has ended: a hello, the host, the volumes and the
    // images come first.
    for _ in 0..5 {
        world.step_host();
        world.step_link();
    }
    world.disk.as_mut().unwrap().writes_left = Some(0);
    world.wait_ms(1100);
    assert!(is_logged(&world, Level::Error, "cannot be written"));
    world.run();
    assert_eq!(names(&mut world), ["u0", "u1", "u2", "u3"]);
    assert_eq!(world.host.running().len(), 3);
}

#[test]
fn a_crash_at_each_step_takes_nothing_back() {
    for steps in 0..8 {
        let (mut world, digest) = given_a_disk();
        let session = world.client();
        world.create(session, 1, networked("kept", digest, &["net0"]));
        world.create(session, 2, networked("gone", digest, &["net0"]));
        world.send(session, 3, create(networked("new", digest, &["net0"])));
        world.send(session, 4, destroy("gone"));
        (0..steps).for_each(|_| _ = world.step());
        let told: Vec<_> = world.inboxes[&session].iter().map(|message| message.id).collect();
        world.restart();
        world.run();
        let names = names(&mut world);
        assert!(names.contains(&"kept".to_string()), "after {steps} steps");
        assert!(!told.contains(&3) || names.contains(&"new".to_string()), "after {steps} steps");
        assert!(!told.contains(&4) || !names.contains(&"gone".to_string()), "after {steps} steps");
        let session = world.client();
        for (id, name) in (0..).zip(&names) {
            assert_eq!(world.ask(session, id, destroy(name)), Response::Destroyed, "after {steps} steps");
        }
        assert_eq!((world.host.ledger.monitors.len(), world.host.ledger.taps.len()), (0, 0));
    }
}

// Not being able to.

/// A world whose disk takes so many writes more, with `kept` on it.
fn given_a_failing_disk(writes: usize) -> (World, Digest) {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    world.create(session, 1, networked("kept", digest, &["net0"]));
    world.disconnect(session);
    world.disk.as_mut().unwrap().writes_left = Some(writes);
    (world, digest)
}

#[test]
fn a_create_that_cannot_be_kept_is_refused_and_was_never_asked_for() {
    let (mut world, digest) = given_a_failing_disk(0);
    let session = world.client();
    let unwritable = Refusal::ReadOnly(ReadOnly::Unwritable);
    let spawned = world.host.spawned.len();
    assert_eq!(world.refused(session, 1, create(networked("a", digest, &["net0"]))), unwritable);
    assert_eq!((world.host.spawned.len(), world.host.ledger.taps.len()), (spawned, 1));
    assert!(is_logged(&world, Level::Error, "cannot be written"));
    // From here on: reads are served, changes are refused.
    assert_eq!(names(&mut world), ["kept"]);
    assert!(matches!(world.ask(session, 2, info("kept")), Response::Info(_)));
    world.host.write(world.instance(0), b"still here");
    world.run();
    assert!(matches!(world.ask(session, 3, console("kept", false)), Response::Console { .. }));
    assert_eq!(world.next(session, 3), Response::ConsoleEnd);
    let image = vec![1; 5000];
    for request in [
        create(networked("b", digest, &["net0"])),
        destroy("kept"),
        push(image::digest(&image), image.len()),
        Request::StateImport { bytes: 10, force: true },
    ] {
        assert_eq!(world.refused(session, 4, request), unwritable);
    }
    assert_eq!(journal(&mut world), Journal::ReadOnly(ReadOnly::Unwritable));
    assert_eq!(world.resets, 0, "the shim has nothing to do with it");
    // A new start with a disk that works, and all is as it was.
    world.disk.as_mut().unwrap().writes_left = None;
    world.restart();
    world.run();
    let session = world.client();
    assert_eq!(names(&mut world), ["kept"]);
    world.create(session, 5, networked("a", digest, &["net0"]));
}

#[test]
fn a_destroy_that_cannot_be_kept_is_refused_and_all_goes_on() {
    let (mut world, _) = given_a_failing_disk(0);
    let session = world.client();
    assert_eq!(world.refused(session, 1, destroy("kept")), Refusal::ReadOnly(ReadOnly::Unwritable));
    assert_eq!(world.list()[0].state, State::Running);
    assert_eq!(world.host.running().len(), 1);
}

#[test]
fn a_destroy_whose_end_cannot_be_kept_is_not_acknowledged() {
    let (mut world, _) = given_a_failing_disk(1);
    let session = world.client();
    assert_eq!(world.refused(session, 1, destroy("kept")), Refusal::ReadOnly(ReadOnly::Unwritable));
    assert_eq!((names(&mut world), world.host.ledger.monitors.len()), (vec![], 0), "it is gone all the same");
}

#[test]
fn what_cannot_be_kept_is_refused_also_to_those_who_call_it_by_a_shorter_name() {
    let (mut world, digest) = given_a_disk();
    let root = world.client();
    world.create(root, 1, networked("acme:web", digest, &["net0"]));
    world.host.end(world.instance(0), ExitStatus::Code(0));
    world.run();
    let session = world.client_as(&below(&["acme"]));
    world.disk.as_mut().unwrap().writes_left = Some(0);
    let unwritable = Refusal::ReadOnly(ReadOnly::Unwritable);
    assert_eq!(world.refused(session, 1, stop("web")), unwritable);
}

/// The upload of a session that ends is given up, whether that can be kept for which it ends or not.
#[test]
fn who_waits_for_the_upload_of_one_who_is_turned_out_has_its_turn() {
    let (mut world, _) = given_a_disk();
    let says = Says { serial: 9, ..says("mallory") };
    let [first, second, root] = [world.client_as(&chain(&[says])), world.client(), world.client()];
    let image = image::build(&Recipe::default());
    let offer = || push(image::digest(&image), image.len());
    assert_eq!(world.ask(first, 1, offer()), Response::ImageWanted);
    world.send(second, 1, offer());
    world.run();
    world.disk.as_mut().unwrap().writes_left = Some(0);
    let what = Revocable::Serial(vec![9].try_into().unwrap());
    let unwritable = Refusal::ReadOnly(ReadOnly::Unwritable);
    assert_eq!(world.refused(root, 1, Request::CertRevoke { path: Path::ROOT, what }), unwritable);
    assert!(world.closed.contains(&first));
    assert_eq!(world.next(second, 1), Response::ImageWanted);
}

/// The disk fails when the news comes that it runs.
#[test]
fn a_create_that_was_kept_is_acknowledged_though_what_came_of_it_cannot_be_kept() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    world.send(session, 1, create(networked("a", digest, &["net0"])));
    while world.host.spawned.is_empty() {
        world.step();
    }
    world.send(session, 2, update("a", Change { memory_mib: Some(48), ..Change::default() }));
    world.send(session, 3, rollback("a", None));
    world.disk.as_mut().unwrap().writes_left = Some(0);
    world.run();
    assert_eq!(world.next(session, 2), Response::Refused(Refusal::Superseded));
    world.expect(session, 1, |response| matches!(response, Response::Created(_)));
    let unwritable = Response::Refused(Refusal::ReadOnly(ReadOnly::Unwritable));
    assert_eq!(world.next(session, 3), unwritable, "that it does well could not be kept");
    assert_eq!(names(&mut world), ["a"]);
}

/// The disk fails at each write of an update that goes back by itself: whatever it comes to, it runs, and runs once.
#[test]
fn an_update_that_cannot_be_kept_leaves_one_that_runs() {
    for writes in 0..8 {
        let (mut world, digest) = given_a_disk();
        let session = world.client();
        world.create(session, 1, restarted(RestartWhen::Always, &[], networked("a", digest, &["net0"])));
        let recipe = Recipe { devices: &[("net0", NET)], padding: 1, ..Recipe::default() };
        let image = world.host.store(image::build(&recipe));
        world.disk.as_mut().unwrap().writes_left = Some(writes);
        let change = Box::new(Change { image: Some(image), ..Change::default() });
        world.send(session, 2, Request::Update { name: name("a"), change, window_s: 5 });
        for _ in 0..20 {
            world.run();
            world.sleep_ms(1000);
        }
        world.run();
        let running = world.host.running();
        assert_eq!(running.len(), 1, "after {writes} writes");
        let pid = world.host.ledger.monitors[&running[0]].listed.pid;
        assert_eq!(world.info("a").pid, pid, "after {writes} writes");
        let answer = world.next(session, 2);
        let unwritable = Response::Refused(Refusal::ReadOnly(ReadOnly::Unwritable));
        assert!(matches!(answer, Response::Updated(_)) || answer == unwritable, "{writes}: {answer:?}");
    }
}

/// What an order follows from cannot be kept, and nothing of it has left for the shim: its monitor is being started.
#[test]
fn an_order_that_cannot_be_kept_is_refused_also_while_the_shim_is_at_something_else() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    world.create(session, 9, networked("first", digest, &["net0"]));
    world.send(session, 1, create(networked("a", digest, &["net0"])));
    world.disk.as_mut().unwrap().writes_left = Some(0);
    let change = Box::new(Change { memory_mib: Some(64), ..Change::default() });
    world.send(session, 2, Request::Update { name: name("a"), change, window_s: 5 });
    assert_eq!(world.next(session, 2), Response::Refused(Refusal::ReadOnly(ReadOnly::Unwritable)));
    world.run();
    world.expect(session, 1, |response| matches!(response, Response::Created(_)));
    assert_eq!(world.info("a").unikernel.memory_mib, 32);
}

/// The disk fails while a unikernel waits for another, which then gets ready.
#[test]
fn what_was_started_while_nothing_could_be_kept_is_not_started_twice() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    world.create(session, 1, ready("tcp:10.0.0.1:1", networked("db", digest, &["net0"])));
    world.create(session, 2, after(&["db"], networked("web", digest, &["net0"])));
    world.disk.as_mut().unwrap().writes_left = Some(0);
    world.refused(session, 3, create(networked("x", digest, &["net0"])));
    world.probed(true);
    let running = world.host.running();
    assert_eq!(running.len(), 2);
    world.disk.as_mut().unwrap().writes_left = None;
    world.restart();
    world.run();
    world.sleep_ms(5000);
    assert_eq!(world.host.running(), running);
    assert_eq!(world.state("web"), State::Running);
}

/// One runs, which was kept long ago, and another that waited for it cannot be started.
#[test]
fn what_was_kept_is_acknowledged_also_if_what_follows_from_it_for_others_cannot_be() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    world.create(session, 9, networked("first", digest, &["net0"]));
    world.send(session, 1, create(networked("a", digest, &["net0"])));
    let mut waits = networked("b", digest, &["net0"]);
    waits.supervision.after.push(name("a")).unwrap();
    world.send(session, 2, create(waits));
    world.expect(session, 2, |response| matches!(response, Response::Created(_)));
    world.disk.as_mut().unwrap().writes_left = Some(0);
    world.run();
    world.expect(session, 1, |response| matches!(response, Response::Created(_)));
}

#[test]
fn many_creates_in_one_go_are_refused_together() {
    let (mut world, _) = given_a_failing_disk(0);
    // An image that nobody has looked into: the creates wait for it, and all of them are admitted in one handle.
    let recipe = Recipe { devices: &[("net0", NET)], padding: 50, ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    let session = world.client();
    for id in 0..10 {
        world.send(session, id, create(networked(&format!("u{id}"), digest, &["net0"])));
    }
    world.run();
    for id in 0..10 {
        let refused = world.next(session, id);
        assert_eq!(refused, Response::Refused(Refusal::ReadOnly(ReadOnly::Unwritable)));
    }
    assert_eq!((names(&mut world), world.host.ledger.monitors.len()), (vec!["kept".into()], 1));
    assert_eq!(world.host.ledger.taps.len(), 1);
}

/// The disk fails at each write of a long conversation: nobody is told what is not so.
#[test]
fn whichever_write_fails_what_was_acknowledged_is_on_the_disk() {
    for writes in 0..60 {
        let (mut world, digest) = with_image(World::with_disk(128 << 10));
        world.disk.as_mut().unwrap().writes_left = Some(writes);
        let session = world.client();
        let mut acknowledged = std::collections::BTreeSet::new();
        let mut refused = 0;
        for id in 0..40 {
            let name = format!("u{}", id / 2);
            let gone = id % 4 == 3;
            let name = if gone { format!("u{}", id / 2 - 1) } else { name };
            let request = match gone {
                true => destroy(&name),
                false if id % 4 == 1 => info(&name),
                false => create(networked(&name, digest, &["net0"])),
            };
            match world.ask(session, id, request) {
                Response::Created(_) => drop(acknowledged.insert(name)),
                Response::Destroyed => drop(acknowledged.remove(&name)),
                Response::Refused(Refusal::ReadOnly(_)) => {
                    refused += 1;
                    // It may be on the disk that it shall be gone, and not that it is.
                    if gone {
                        acknowledged.remove(&name);
                    }
                }
                Response::Info(_) | Response::Refused(Refusal::NoSuchUnikernel) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(refused > 0 || writes > 30, "after {writes} writes");
        world.disk.as_mut().unwrap().writes_left = None;
        world.restart();
        world.run();
        let names = names(&mut world);
        let missing: Vec<_> = acknowledged.iter().filter(|name| !names.contains(name)).collect();
        assert!(missing.is_empty(), "after {writes} writes: {missing:?} are missing");
        assert!(names.len() <= acknowledged.len() + 1, "after {writes} writes: {names:?}");
    }
}

fn large_args() -> List<Blob<CMDLINE_BYTES_MAX>, ARGS_MAX> {
    vec![Blob::try_from(vec![b'x'; 4000]).unwrap()].try_into().unwrap()
}

/// Creates until there is no room in the journal; returns what is said then.
fn fill(world: &mut World, session: SessionId, digest: Digest) -> Response {
    let full = Response::Refused(Refusal::ReadOnly(ReadOnly::Full));
    let large = |id| petrel_wire::operator::Create {
        args: large_args(),
        ..networked(&format!("u{id}"), digest, &["net0"])
    };
    assert!((100..200).any(|id| world.ask(session, id, create(large(id))) == full), "it is never full");
    full
}

#[test]
fn a_full_disk_refuses_creates_until_something_is_destroyed() {
    let (mut world, digest) = with_image(World::with_disk(128 << 10));
    let session = world.client();
    let large = |name: &str| {
        let args = vec![Blob::try_from(vec![b'x'; 4000]).unwrap()].try_into().unwrap();
        petrel_wire::operator::Create { args, ..networked(name, digest, &["net0"]) }
    };
    let mut count = 0;
    let refusal = loop {
        match world.ask(session, 1, create(large(&format!("u{count}")))) {
            Response::Created(_) => count += 1,
            Response::Refused(refusal) => break refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((refusal, count > 8), (Refusal::ReadOnly(ReadOnly::Full), true));
    assert_eq!((names(&mut world).len(), world.host.ledger.monitors.len()), (count, count));
    assert!(matches!(journal(&mut world), Journal::Kept { .. }));
    for i in 0..3 {
        assert_eq!(world.ask(session, 2, destroy(&format!("u{i}"))), Response::Destroyed);
    }
    world.create(session, 3, large("again"));
    world.restart();
    world.run();
    assert_eq!(names(&mut world).len(), count - 2);
}

/// Its monitor has ended, and would have made way for the one that could not be kept.
#[test]
fn an_update_that_a_full_disk_has_no_room_for_is_refused_at_once_and_what_there_was_can_be_destroyed() {
    let (mut world, digest) = with_image(World::with_disk(128 << 10));
    let session = world.client();
    world.create(session, 1, restarted(RestartWhen::Always, &[], networked("a", digest, &["net0"])));
    world.host.end(world.instance(0), ExitStatus::Code(7));
    world.run();
    let full = fill(&mut world, session, digest);
    let change = Change { args: Some(large_args()), ..Change::default() };
    world.send(session, 1, update("a", change));
    assert_eq!(world.next(session, 1), full);
    assert_eq!(world.ask(session, 1, destroy("a")), Response::Destroyed);
}

/// The earlier generation is on trial as the one was that could not be kept, but nobody waits for it any more.
#[test]
fn an_update_that_a_full_disk_has_no_room_for_is_refused_at_once_also_in_the_place_of_another() {
    let (mut world, digest) = with_image(World::with_disk(128 << 10));
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    let full = fill(&mut world, session, digest);
    world.send(session, 1, update("a", Change { memory_mib: Some(48), ..Change::default() }));
    let change = Change { args: Some(large_args()), ..Change::default() };
    world.send(session, 2, update("a", change));
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::Superseded));
    assert_eq!(world.next(session, 2), full);
    world.run();
    assert_eq!(world.info("a").unikernel.memory_mib, 48);
}

/// The disk failed before: the one who was found out is turned out all the same, and not let in again.
#[test]
fn where_nothing_can_be_kept_certificates_are_revoked_as_long_as_the_control_plane_lives() {
    let (mut world, digest) = given_a_disk();
    let root = world.client();
    world.disk.as_mut().unwrap().writes_left = Some(0);
    let unwritable = Refusal::ReadOnly(ReadOnly::Unwritable);
    assert_eq!(world.refused(root, 1, create(networked("a", digest, &["net0"]))), unwritable);
    let thief = chain(&[Says { serial: 66, ..says("thief") }]);
    let session = world.client_as(&thief);
    let what = Revocable::Serial(vec![66].try_into().unwrap());
    assert_eq!(world.refused(root, 2, Request::CertRevoke { path: Path::ROOT, what }), unwritable);
    assert!(world.closed.contains(&session));
}

/// What could not be kept is tried again after a while, and so is what is to be done after it.
#[test]
fn what_was_to_be_stopped_and_is_still_there_is_started_at_once() {
    let (mut world, digest) = with_image(World::with_disk(128 << 10));
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    assert!(matches!(world.ask(session, 1, stop("a")), Response::Stopped(_)));
    let full = fill(&mut world, session, digest);
    world.send(session, 1, start("a"));
    world.send(session, 2, stop("a"));
    let change = Change { args: Some(large_args()), ..Change::default() };
    world.send(session, 3, update("a", change));
    world.run();
    let superseded = Response::Refused(Refusal::Superseded);
    assert_eq!((world.next(session, 1), world.next(session, 3)), (superseded.clone(), full));
    world.send(session, 4, start("a"));
    assert_eq!(world.next(session, 2), superseded);
    world.expect(session, 4, |response| matches!(response, Response::Started(_)));
    world.sleep_ms(60_000);
    assert_eq!(world.state("a"), State::Running);
}

#[test]
fn a_damaged_disk_serves_reads_and_refuses_changes() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    for i in 0..5 {
        world.create(session, i, networked(&format!("u{i}"), digest, &["net0"]));
    }
    let disk = world.disk.as_mut().unwrap();
    disk.bytes[600..].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
    let writes = disk.writes;
    world.restart();
    assert!(is_logged(&world, Level::Error, "changes are refused: Damaged"));
    world.run();
    assert_eq!(names(&mut world), ["u0", "u1", "u2", "u3", "u4"], "the shim knows those that run");
    let session = world.client();
    let damaged = Refusal::ReadOnly(ReadOnly::Damaged);
    assert_eq!(world.refused(session, 1, create(networked("x", digest, &["net0"]))), damaged);
    assert_eq!(world.refused(session, 2, destroy("u1")), damaged);
    assert_eq!(journal(&mut world), Journal::ReadOnly(ReadOnly::Damaged));
    // Whatever happens on the host is shown; nothing is written, and nothing is ended.
    world.host.end(world.instance(2), ExitStatus::Code(9));
    world.run();
    world.wait_ms(5000);
    assert_eq!(world.list()[2].state, State::Ended(ExitStatus::Code(9)));
    world.link_down();
    world.link_up();
    world.run();
    assert_eq!((world.host.running().len(), world.resets), (4, 0));
    assert_eq!(world.disk.as_ref().unwrap().writes, writes);
}

#[test]
fn a_disk_that_is_too_small_says_how_large_it_should_be() {
    let mut world = World::with_disk(4096);
    let small = ReadOnly::TooSmall { bytes: 4096, min: 128 << 10 };
    assert_eq!(journal(&mut world), Journal::ReadOnly(small));
}

#[test]
fn requests_to_the_shim_that_were_taken_back_are_no_reason_to_wait_for_it() {
    let (mut world, digest) = given_a_failing_disk(0);
    let session = world.client();
    world.refused(session, 1, create(networked("a", digest, &["net0"])));
    world.disconnect(session);
    assert_eq!(world.engine.poll_at(), None);
    world.wait_ms(60_000);
    assert_eq!(world.resets, 0);
    // Nor does it matter that it is told again.
    world.input(Input::StateFailed);
    assert_eq!(names(&mut world), ["kept"]);
}

/// The volumes can be listed only later. What is refused after that is nobody's for the next control plane too.
#[test]
fn a_control_plane_that_learned_of_volumes_late_takes_over_nothing_that_was_refused() {
    let mut world = World::unlinked();
    world.disk = Some(Disk::new(DISK_BYTES));
    world.restart();
    world.host.faults.push((|op| matches!(op, Op::Volume(VolumeOp::List { .. })), Fault::Os { errno: 5 }));
    let (mut world, digest) = with_image(world);
    world.sleep_ms(120_000);
    let session = world.client();
    world.create(session, 1, networked("kept", digest, &["net0"]));
    world.send(session, 2, create(networked("a", digest, &["net0"])));
    while world.step_host() {}
    world.link_down();
    assert_eq!(world.next(session, 2), Response::Refused(Refusal::ShimAway));
    world.restart();
    world.run();
    assert_eq!(names(&mut world), ["kept"]);
    assert_eq!(world.host.running().len(), 1);
}

/// The first control plane was told of no volumes, so it never knew that it knew all.
#[test]
fn an_older_monitor_is_not_taken_for_the_one_that_took_its_place() {
    let mut world = World::unlinked();
    world.disk = Some(Disk::new(DISK_BYTES));
    world.restart();
    let os = Fault::Os { errno: 5 };
    world.host.faults.push((|op| matches!(op, Op::Volume(VolumeOp::List { .. })), os));
    world.run();
    let (mut world, digest) = with_image(world);
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.host.faults.push((|op| matches!(op, Op::Forget(_)), os));
    assert!(matches!(world.ask(session, 2, restart("a", Change::default())), Response::Started(_)));
    let runs = world.running("a");
    assert_eq!(world.host.ledger.monitors.len(), 2, "the older one is still there");
    world.restart();
    world.run();
    assert_eq!(world.running("a"), runs);
    assert_eq!((world.host.ledger.monitors.len(), world.host.running()), (1, vec![runs]));
}

/// It ends, and is started again, on a host whose disk takes nothing any more; then the control plane goes down.
#[test]
fn what_was_started_again_while_nothing_could_be_kept_goes_on() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    world.create(session, 1, restarted(RestartWhen::Always, &[], networked("a", digest, &["net0"])));
    world.disk.as_mut().unwrap().writes_left = Some(0);
    assert_eq!(world.refused(session, 2, stop("a")), Refusal::ReadOnly(ReadOnly::Unwritable));
    world.host.end(world.instance(0), ExitStatus::Code(7));
    world.sleep_ms(10_000);
    let runs = world.running("a");
    assert_ne!(runs, world.instance(0));
    world.disk.as_mut().unwrap().writes_left = None;
    for _ in 0..2 {
        world.restart();
        world.sleep_ms(10_000);
        assert_eq!(
            (world.running("a"), world.host.running(), world.state("a")),
            (runs, vec![runs], State::Running)
        );
        assert_eq!(world.host.ledger.monitors.len(), 1);
    }
}

/// What follows from the shim's news cannot be kept, as the disk fails again; the news is true all the same.
#[test]
fn what_the_shim_tells_of_is_known_also_if_what_follows_from_it_cannot_be_kept() {
    let (mut world, digest) = given_a_disk();
    let session = world.client();
    for (id, name) in [(1, "a"), (2, "b")] {
        world.create(session, id, restarted(RestartWhen::Always, &[], networked(name, digest, &["net0"])));
    }
    world.disk.as_mut().unwrap().writes_left = Some(0);
    assert_eq!(world.refused(session, 3, stop("a")), Refusal::ReadOnly(ReadOnly::Unwritable));
    world.host.end(world.instance(0), ExitStatus::Code(7));
    world.sleep_ms(10_000);
    let runs = world.running("a");
    // The next one to hear of it has to start the other one, and to keep that.
    let other = world.running("b");
    world.link_down();
    world.host.end(other, ExitStatus::Code(7));
    world.disk.as_mut().unwrap().writes_left = Some(0);
    world.restart();
    world.sleep_ms(60_000);
    assert_eq!((world.running("a"), world.host.running().len()), (runs, 2));
}
