//! The order in which unikernels are started.

use petrel_wire::{
    Digest, ExitStatus,
    operator::{Change, Create, Refusal, Request, Response, RestartWhen, State, Supervision},
    shim::InstanceId,
};

use crate::{
    image,
    probes::ready,
    restart::{restart, restarted, start, stop},
    world::{World, create, destroy, name, plain},
};

fn world_with_image() -> (World, Digest) {
    let mut world = World::new();
    let digest = world.host.store(image::build(&image::Recipe::default()));
    (world, digest)
}

pub fn after(others: &[&str], create: Create) -> Create {
    let after = others.iter().map(|other| name(other)).collect::<Vec<_>>().try_into().unwrap();
    Create { supervision: Supervision { after, ..create.supervision }, ..create }
}

#[test]
fn one_is_started_when_those_before_it_are_ready_and_shows_what_it_waits_for() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, ready("tcp:10.0.0.1:1", plain("db", digest)));
    world.create(session, 2, plain("log", digest));
    let waits = world.create(session, 3, after(&["db", "log"], plain("web", digest)));
    assert_eq!(waits.state, State::Waiting);
    assert_eq!(*world.info("web").watching.waits_for, [name("db")]);
    let last = world.create(session, 4, after(&["web"], plain("edge", digest)));
    assert_eq!((last.state, world.host.spawned.len()), (State::Waiting, 2));
    world.probed(true);
    assert_eq!((world.state("web"), world.state("edge")), (State::Running, State::Running));
    assert!(world.info("web").watching.waits_for.is_empty());
}

#[test]
fn what_waits_can_be_stopped_started_and_destroyed() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, plain("db", digest));
    world.ask(session, 2, stop("db"));
    world.create(session, 3, after(&["db"], plain("web", digest)));
    let Response::Stopped(stopped) = world.ask(session, 4, stop("web")) else { panic!() };
    assert_eq!(stopped.state, State::Stopped);
    let Response::Started(started) = world.ask(session, 5, start("web")) else { panic!() };
    assert_eq!(started.state, State::Waiting);
    let changed = restart("web", Change { memory_mib: Some(64), ..Change::default() });
    let Response::Started(started) = world.ask(session, 6, changed) else { panic!() };
    assert_eq!((started.state, started.memory_mib), (State::Waiting, 64));
    assert!(matches!(world.ask(session, 7, start("db")), Response::Started(_)));
    assert_eq!(world.state("web"), State::Running);
    world.ask(session, 8, stop("db"));
    world.ask(session, 9, stop("web"));
    world.ask(session, 10, start("web"));
    assert_eq!(world.ask(session, 11, destroy("web")), Response::Destroyed);
    world.ask(session, 12, start("db"));
    assert_eq!(world.host.running().len(), 1);
}

#[test]
fn the_order_holds_for_each_start() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(
        session,
        1,
        restarted(RestartWhen::Always, &[], ready("tcp:10.0.0.1:1", plain("db", digest))),
    );
    world.probed(true);
    world.create(session, 2, restarted(RestartWhen::Always, &[], after(&["db"], plain("web", digest))));
    for unikernel in ["db", "web"] {
        let instance = world.running(unikernel);
        world.host.end(instance, ExitStatus::Code(2));
    }
    world.sleep_ms(1000);
    assert_eq!((world.state("db"), world.state("web")), (State::Running, State::Waiting));
    world.probed(true);
    assert_eq!(world.state("web"), State::Running);
}

#[test]
fn what_others_are_started_after_may_go_and_come_back() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, plain("db", digest));
    world.create(session, 2, after(&["db"], plain("web", digest)));
    assert_eq!(world.ask(session, 3, destroy("db")), Response::Destroyed);
    assert_eq!(world.state("web"), State::Running, "it is about starting only");
    let Response::Started(started) = world.ask(session, 4, restart("web", Default::default())) else {
        panic!()
    };
    assert_eq!(started.state, State::Waiting);
    let change = Change { memory_mib: Some(64), ..Change::default() };
    assert!(matches!(world.ask(session, 6, restart("web", change)), Response::Started(_)));
    world.create(session, 5, plain("db", digest));
    assert_eq!(world.state("web"), State::Running);
}

#[test]
fn who_would_wait_for_itself_or_for_nobody_is_refused() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    let refused = |world: &mut World, id, wanted| world.refused(session, id, create(wanted));
    let unknown = refused(&mut world, 1, after(&["b"], plain("a", digest)));
    assert_eq!(unknown, Refusal::AfterUnknown(name("b")));
    let itself = refused(&mut world, 2, after(&["a"], plain("a", digest)));
    assert_eq!(itself, Refusal::AfterCycle(name("a")));
    world.create(session, 3, plain("a", digest));
    world.create(session, 4, after(&["a"], plain("b", digest)));
    world.create(session, 5, after(&["b"], plain("c", digest)));
    let forced = |others: &[&str]| Create { force: true, ..after(others, plain("a", digest)) };
    for (id, other) in [(6, "a"), (7, "b"), (8, "c")] {
        assert_eq!(refused(&mut world, id, forced(&[other])), Refusal::AfterCycle(name(other)));
    }
    // Nor by way of one that is gone and comes back.
    assert_eq!(world.ask(session, 9, destroy("a")), Response::Destroyed);
    assert_eq!(refused(&mut world, 10, after(&["c"], plain("a", digest))), Refusal::AfterCycle(name("c")));
    let generations = |world: &mut World| {
        world.send(session, 11, Request::History(name("b")));
        matches!(world.next(session, 11), Response::Generation { more: false, .. })
    };
    assert!(generations(&mut world), "nothing was changed");
}

#[test]
fn a_start_order_survives_a_control_plane_without_memory() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, ready("tcp:10.0.0.1:1", plain("db", digest)));
    world.probed(true);
    world.create(session, 2, restarted(RestartWhen::Always, &[], after(&["db"], plain("web", digest))));
    let instance = world.running("web");
    world.host.end(instance, ExitStatus::Code(2));
    world.restart();
    world.sleep_ms(1000);
    assert_eq!(world.state("web"), State::Waiting);
    world.probed(true);
    assert_eq!((world.state("db"), world.state("web")), (State::Ready, State::Running));
}

/// It has ended as its first generation, which its policy would not start again, and waits to be started as its second.
#[test]
fn one_that_waits_as_a_new_generation_waits_on_as_the_one_it_goes_back_to() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, plain("db", digest));
    world.create(session, 2, after(&["db"], plain("web", digest)));
    world.ask(session, 3, stop("db"));
    let change = Box::new(Change { memory_mib: Some(64), ..Change::default() });
    let update = Request::Update { name: name("web"), change, window_s: 5 };
    let Response::Updated(web) = world.ask(session, 4, update) else { panic!() };
    assert_eq!((web.state, web.generation), (State::Waiting, 2));
    let rollback = Request::Rollback { name: name("web"), generation: None };
    let Response::Updated(web) = world.ask(session, 5, rollback) else { panic!() };
    assert_eq!((web.state, web.generation), (State::Waiting, 1));
    world.ask(session, 6, start("db"));
    assert_eq!(world.state("web"), State::Running);
}

/// A control plane that could not read what is kept has given its number to another, which takes its time to end.
#[test]
fn one_whose_number_is_taken_is_started_under_another() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, plain("db", digest));
    world.ask(session, 2, stop("db"));
    world.create(session, 3, after(&["db"], plain("web", digest)));
    let number = InstanceId(world.instance(0).0 + 1);
    world.link_down();
    let tag = world.host.spawned[0].tag.clone();
    world.host.start_foreign(number, &[], &tag);
    world.host.immortal = true;
    world.link_up();
    world.run();
    world.ask(session, 4, start("db"));
    assert_eq!((world.state("web"), world.resets), (State::Running, 0));
    world.host.immortal = false;
    world.host.end(number, ExitStatus::Signal(9));
    world.run();
    assert_eq!((world.state("web"), world.host.running().len(), world.resets), (State::Running, 2, 0));
}

/// … that of one that had ended.
#[test]
fn one_whose_number_is_taken_is_destroyed_though_that_other_one_is_not_yet() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, plain("db", digest));
    world.create(session, 2, plain("web", digest));
    let number = world.instance(0);
    world.host.end(number, ExitStatus::Code(0));
    world.run();
    world.link_down();
    world.host.ledger.monitors.remove(&number);
    let tag = world.host.spawned[1].tag.clone();
    world.host.start_foreign(number, &[], &tag);
    world.host.immortal = true;
    world.link_up();
    world.run();
    assert_eq!(world.ask(session, 3, destroy("db")), Response::Destroyed);
    world.host.immortal = false;
    world.host.end(number, ExitStatus::Signal(9));
    world.run();
    assert_eq!((world.state("web"), world.host.ledger.monitors.len(), world.resets), (State::Running, 1, 0));
}
