//! Statistics: asked of the shim when an operator asks, by pages, in the order of the names.

use petrel_engine::{Input, SessionId};
use petrel_wire::{
    ExitStatus, Path,
    limits::{SESSION_QUEUE_BYTES, STATS_PAGE_MAX},
    operator::{Flow, Refusal, Request, Response, Storage, Traffic, Usage},
    shim::{Op, TapId},
};

use crate::{
    image::{self, NET, Recipe},
    world::{World, networked, plain},
};

fn stats(path: Option<&str>) -> Request {
    Request::Stats(path.map_or(Path::ROOT, |path| path.parse().unwrap()))
}

/// All pages that a client has got.
fn read(world: &mut World, session: SessionId, id: u32) -> (Vec<Usage>, usize) {
    let (mut all, mut pages) = (Vec::new(), 0);
    loop {
        let Response::Stats { page, more } = world.next(session, id) else { panic!("another answer") };
        all.extend(page.into_vec());
        pages += 1;
        if !more {
            return (all, pages);
        }
    }
}

fn names(usages: &[Usage]) -> Vec<&str> {
    usages.iter().map(|usage| &*usage.name).collect()
}

#[test]
fn what_a_unikernel_uses_is_told_with_its_devices() {
    let mut world = World::new();
    let recipe = Recipe { devices: &[("net0", NET), ("net1", NET)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net1", "net0"]));
    world.send(session, 2, stats(Some("a")));
    world.run();
    let (told, _) = read(&mut world, session, 2);
    let (instance, taps) = (world.instance(0), world.host.spawned[0].nets.clone());
    let used = &told[0];
    assert_eq!((used.run_ms, used.cpu_ms, used.memory_mib), (instance.0 % 100 * 10, 100, 32));
    assert_eq!((used.resident_kib, used.storage), (20, Some(Storage { read_bytes: 1, written_bytes: 2 })));
    let received = |tap: TapId| Flow { bytes: tap.0.into(), packets: 5, dropped: 6 };
    let sent = Flow { bytes: 1, packets: 2, dropped: 3 };
    let nets: Vec<_> = used.nets.iter().map(|(device, traffic)| (&**device, *traffic)).collect();
    let traffic = |index: usize| Traffic { received: received(taps[index].tap), sent };
    assert_eq!(nets, [("net1", traffic(0)), ("net0", traffic(1))]);
}

#[test]
fn only_those_that_run_are_told_and_only_those_that_are_asked_for() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    for unikernel in ["acme:web", "acme", "acmes", "acme:gone"] {
        world.create(session, 1, plain(unikernel, digest));
    }
    world.host.end(world.instance(3), ExitStatus::Code(0));
    world.run();
    for (path, expected) in [
        (None, &["acme", "acme:web", "acmes"][..]),
        (Some("acme"), &["acme", "acme:web"]),
        (Some("acmes"), &["acmes"]),
    ] {
        world.send(session, 2, stats(path));
        world.run();
        assert_eq!(names(&read(&mut world, session, 2).0), expected);
    }
    assert_eq!(world.refused(session, 3, stats(Some("acme:gone"))), Refusal::NotRunning);
    assert_eq!(world.refused(session, 4, stats(Some("acme:never"))), Refusal::NoSuchUnikernel);
}

#[test]
fn on_an_empty_host_the_answer_is_an_empty_page() {
    let mut world = World::new();
    let session = world.client();
    let nothing = Response::Stats { page: Default::default(), more: false };
    assert_eq!(world.ask(session, 1, stats(None)), nothing);
}

#[test]
fn many_are_told_by_pages_and_a_client_that_does_not_read_is_not_asked_for() {
    let mut world = World::with_endless_memory();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    let many = 3 * STATS_PAGE_MAX + 1;
    for index in 0..many {
        world.create(session, 1, plain(&format!("u{index:04}"), digest));
    }
    world.stalled.insert(session, 0);
    world.send(session, 2, stats(None));
    world.input(Input::SessionDrained { session, queued: SESSION_QUEUE_BYTES });
    world.run();
    assert!(world.nothing_for(session), "the first page waits for room");
    assert!(world.requests.is_empty(), "and the next is not asked for");
    world.unstall(session);
    world.run();
    let (told, pages) = read(&mut world, session, 2);
    assert_eq!((told.len(), pages), (many, 4));
    assert!(names(&told).is_sorted());
}

#[test]
fn when_the_link_breaks_the_question_is_refused_and_later_it_is_answered_again() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    world.send(session, 2, stats(None));
    world.link_down();
    assert_eq!(world.next(session, 2), Response::Refused(Refusal::ShimAway));
    assert_eq!(world.refused(session, 3, stats(None)), Refusal::ShimAway);
    world.link_up();
    world.run();
    world.send(session, 4, stats(None));
    world.run();
    assert_eq!(names(&read(&mut world, session, 4).0), ["a"]);
}

#[test]
fn a_question_that_is_cancelled_is_not_answered() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    world.send(session, 2, stats(None));
    assert!(matches!(world.requests[0].op, Op::Stats(_)));
    world.send(session, 2, Request::Cancel);
    world.run();
    assert!(world.nothing_for(session));
    assert_eq!(world.resets, 0);
}
