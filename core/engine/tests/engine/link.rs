//! The link to the shim: what a break at each moment leaves, what a control plane without memory takes over, and
//! what is done with a shim that makes no sense.

use petrel_engine::{Input, Level};
use petrel_wire::{
    Blob, Digest, ExitStatus, List,
    limits::SHIM_VERSION,
    operator::{Refusal, Request, Response, State, UnikernelInfo},
    shim::{Backend, Event, Fault, FromShim, InstanceId, Op, Reply, TapId, VolumeOp},
};

use crate::{
    host::Applies,
    image::{self, NET, Recipe},
    world::{World, console, create, destroy, encoded, info, name, networked, push},
};

fn world_with_image() -> (World, Digest) {
    let mut world = World::new();
    let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    (world, digest)
}

fn states(world: &mut World) -> Vec<(String, State)> {
    world.list().into_iter().map(|unikernel| (unikernel.name.to_string(), unikernel.state)).collect()
}

/// What the operator is shown is what there is.
fn agrees(world: &mut World) -> bool {
    let shown = world.list().len();
    let running = world.list().iter().filter(|unikernel| unikernel.state == State::Running).count();
    (shown, running) == (world.host.ledger.monitors.len(), world.host.running().len())
}

#[test]
fn the_first_things_asked_are_who_the_shim_is_what_it_has_and_what_runs() {
    let mut world = World::unlinked();
    world.link_up();
    let mut asked = Vec::new();
    loop {
        asked.extend(world.requests.iter().map(|request| request.op.clone()));
        while world.step_host() {}
        if !world.step_link() {
            break;
        }
    }
    let stored = [Op::Volume(VolumeOp::List { after: None }), Op::ImageList { after: None }];
    let [volumes, images] = stored;
    let expected = [Op::Hello { version: SHIM_VERSION }, Op::Host, volumes, images, Op::List { after: None }];
    assert_eq!(asked, expected);
}

#[test]
fn before_the_shim_has_told_what_runs_nothing_is_said_about_it() {
    let mut world = World::unlinked();
    let session = world.client();
    let requests = [Request::Host, Request::List, info("a"), console("a", true), destroy("a")];
    for request in requests {
        assert_eq!(world.refused(session, 1, request), Refusal::ShimAway);
    }
}

#[test]
fn without_a_link_what_is_known_is_still_shown_and_the_rest_is_refused() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.host.write(world.instance(0), b"hello");
    world.run();
    world.link_down();
    assert_eq!(states(&mut world), [("a".into(), State::Running)]);
    assert!(matches!(world.ask(session, 2, info("a")), Response::Info(_)));
    assert!(matches!(world.ask(session, 3, console("a", false)), Response::Console { .. }));
    assert_eq!(world.next(session, 3), Response::ConsoleEnd);
    let image = b"something".to_vec();
    let refused = [
        Request::Host,
        create(networked("b", digest, &["net0"])),
        destroy("a"),
        push(image::digest(&image), image.len()),
    ];
    for request in refused {
        world.send(session, 4, request);
        assert_eq!(world.next(session, 4), Response::Refused(Refusal::ShimAway));
    }
}

/// Breaks the link after each step of a create, by either side's memory of it: nothing is left of a refused one.
#[test]
fn a_create_during_which_the_link_breaks_leaves_nothing_or_all() {
    for known in [false, true] {
        for steps in 0..12 {
            let (mut world, digest) = world_with_image();
            let session = world.client();
            if known {
                world.create(session, 1, networked("known", digest, &["net0"]));
                assert_eq!(world.ask(session, 2, destroy("known")), Response::Destroyed);
            }
            world.send(session, 3, create(networked("a", digest, &["net0"])));
            for _ in 0..steps {
                world.step();
            }
            world.link_down();
            let created = match world.next(session, 3) {
                Response::Created(_) => true,
                Response::Refused(Refusal::ShimAway) => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(world.list().len(), usize::from(created));
            world.link_up();
            world.run();
            assert_eq!(world.host.ledger.monitors.len(), usize::from(created), "after {steps} steps");
            assert_eq!(world.host.ledger.taps.len(), usize::from(created));
            assert!(agrees(&mut world));
            if !created {
                world.create(session, 4, networked("a", digest, &["net0"]));
            }
        }
    }
}

#[test]
fn a_create_that_is_being_undone_when_the_link_breaks_is_refused_with_its_own_reason() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    let fault = Fault::Os { errno: 12 };
    world.host.faults.push((|op| matches!(op, Op::Spawn(_)), fault));
    world.send(session, 1, create(networked("a", digest, &["net0"])));
    while !world.requests.iter().any(|request| matches!(request.op, Op::TapDestroy(_))) {
        assert!(world.step());
    }
    world.link_down();
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::Shim(fault)));
    assert!(world.host.ledger.taps.is_empty());
}

/// Breaks the link after each step of a destroy.
#[test]
fn a_destroy_during_which_the_link_breaks_is_done_when_the_link_is_back() {
    for ended in [false, true] {
        for steps in 0..8 {
            let (mut world, digest) = world_with_image();
            let session = world.client();
            world.create(session, 1, networked("a", digest, &["net0"]));
            if ended {
                world.host.end(world.instance(0), ExitStatus::Code(0));
                world.run();
            }
            world.send(session, 2, destroy("a"));
            for _ in 0..steps {
                world.step();
            }
            world.link_down();
            let destroyed = match world.next(session, 2) {
                Response::Destroyed => true,
                Response::Refused(Refusal::BeingDestroyed) => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(world.list().is_empty(), destroyed);
            world.host.reap();
            world.link_up();
            world.run();
            assert!(world.list().is_empty(), "after {steps} steps: {:?}", states(&mut world));
            assert!(world.host.ledger.monitors.is_empty() && world.host.ledger.taps.is_empty());
        }
    }
}

#[test]
fn a_destroy_of_a_starting_unikernel_is_refused_when_the_link_breaks_and_nothing_is_left() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("known", digest, &["net0"]));
    world.send(session, 2, create(networked("a", digest, &["net0"])));
    world.send(session, 3, destroy("a"));
    world.step();
    world.step();
    world.link_down();
    assert_eq!(world.next(session, 2), Response::Refused(Refusal::ShimAway));
    assert_eq!(world.next(session, 3), Response::Refused(Refusal::BeingDestroyed));
    world.link_up();
    world.run();
    assert!(agrees(&mut world));
    assert_eq!(world.list().len(), 1);
}

#[test]
fn a_link_that_breaks_again_while_the_leftovers_are_ended_leaves_nothing_in_the_end() {
    for steps in 0..12 {
        let (mut world, digest) = world_with_image();
        let session = world.client();
        world.create(session, 1, networked("known", digest, &["net0"]));
        world.send(session, 2, create(networked("a", digest, &["net0"])));
        world.step_host();
        world.step_host();
        world.link_down();
        assert_eq!(world.next(session, 2), Response::Refused(Refusal::ShimAway));
        assert_eq!(world.host.running().len(), 2);
        world.link_up();
        for _ in 0..steps {
            world.step();
        }
        world.link_down();
        world.link_up();
        world.run();
        assert_eq!(world.host.ledger.monitors.len(), 1, "after {steps} steps");
        assert!(agrees(&mut world));
    }
}

/// The shim fails to forget the leftover while it still tells what else runs; that must not be forgotten here.
#[test]
fn a_leftover_that_cannot_be_ended_at_first_is_ended_when_the_link_opens_anew() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    for i in 0..3 {
        world.create(session, i, networked(&format!("u{i}"), digest, &["net0"]));
    }
    world.send(session, 5, create(networked("refused", digest, &["net0"])));
    while world.step_host() {}
    world.link_down();
    world.next(session, 5);
    let leftover = world.instance(3);
    world.host.end(leftover, ExitStatus::Code(0));
    for i in 4..9 {
        world.host.start_foreign(InstanceId(leftover.0 + i), &[], b"another's");
    }
    world.link_up();
    let forgets: Applies = |op| matches!(op, Op::Forget(_));
    world.host.faults.push((forgets, Fault::Os { errno: 5 }));
    world.run();
    assert!(world.host.ledger.monitors.contains_key(&leftover));
    world.link_down();
    world.link_up();
    world.run();
    assert!(!world.host.ledger.monitors.contains_key(&leftover));
    assert_eq!(world.list().len(), 3);
}

#[test]
fn what_ended_while_the_link_was_away_has_ended() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.create(session, 2, networked("b", digest, &["net0"]));
    world.send(session, 3, console("a", true));
    world.link_down();
    world.host.end(world.instance(0), ExitStatus::Signal(11));
    world.host.ledger.monitors.remove(&world.instance(1));
    world.link_up();
    world.run();
    let ended = |status| State::Ended(status);
    let expected = [("a".into(), ended(ExitStatus::Signal(11))), ("b".into(), ended(ExitStatus::Unknown))];
    assert_eq!(states(&mut world), expected);
    assert_eq!(world.list()[0].ended_ms, None, "nobody saw when");
    assert_eq!(world.next(session, 3), Response::Ended(ExitStatus::Signal(11)));
    assert_eq!(world.next(session, 3), Response::ConsoleEnd);
    for (id, unikernel) in [(4, "a"), (5, "b")] {
        assert_eq!(world.ask(session, id, destroy(unikernel)), Response::Destroyed);
    }
}

#[test]
fn a_unikernel_whose_monitor_is_no_longer_offered_goes_on_and_is_not_started_again() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    let running = world.info("a");
    assert_eq!(running.backend, Some(Backend::Ring3));
    // A shim that was started anew with another configuration: it may require KVM now.
    world.link_down();
    world.host.facts.monitors = List::new();
    world.link_up();
    world.run();
    assert_eq!(world.info("a"), UnikernelInfo { backend: None, ..running.clone() });
    let none = Refusal::NoMonitor { target: image::HVT, version: 2 };
    assert_eq!(world.refused(session, 2, create(networked("b", digest, &["net0"]))), none);
    assert!(matches!(world.ask(session, 3, Request::Stop(name("a"))), Response::Stopped(_)));
    let unknown = Refusal::MonitorUnknown(running.monitor);
    assert_eq!(world.refused(session, 4, Request::Start(name("a"))), unknown);
}

#[test]
fn a_control_plane_without_memory_takes_over_all_that_runs() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    // More than a page of the ledger holds.
    for i in 0..10 {
        world.create(session, i, networked(&format!("u{i}"), digest, &["net0"]));
    }
    world.host.end(world.instance(4), ExitStatus::Code(1));
    world.run();
    let before: Vec<_> = (0..10).map(|i| world.ask(session, i, info(&format!("u{i}")))).collect();
    world.restart();
    world.run();
    let session = world.client();
    for (i, before) in (0..).zip(before) {
        let (Response::Info(mut before), Response::Info(after)) =
            (before, world.ask(session, i, info(&format!("u{i}"))))
        else {
            panic!()
        };
        before.unikernel.ended_ms = None;
        assert_eq!(before, after);
    }
    // They can be used as before, and what is created next gets in nobody's way.
    world.host.write(world.instance(3), b"still here");
    world.run();
    assert!(matches!(world.ask(session, 20, console("u3", false)), Response::Console { .. }));
    world.next(session, 20);
    assert_eq!(world.ask(session, 21, destroy("u3")), Response::Destroyed);
    assert_eq!(world.refused(session, 22, create(networked("u5", digest, &["net0"]))), Refusal::NameTaken);
    world.create(session, 23, networked("u3", digest, &["net0"]));
    let Response::Host(host) = world.ask(session, 24, Request::Host) else { panic!() };
    assert_eq!((host.unikernels, host.memory_used_mib), (10, 9 * 32));
    assert!(agrees(&mut world));
}

#[test]
fn console_bytes_that_come_before_their_unikernel_is_listed_are_kept() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.restart();
    world.step_host();
    world.step_link();
    world.host.write(world.instance(0), b"early");
    world.run();
    let session = world.client();
    assert!(
        matches!(world.ask(session, 1, console("a", false)), Response::Console { data, .. } if *data == *b"early")
    );
}

#[test]
fn a_monitor_that_is_not_ours_is_left_alone_and_its_number_and_taps_are_not_used() {
    let mut world = World::unlinked();
    let far = InstanceId(1 << 60);
    world.host.start_foreign(far, &[TapId(1), TapId(3)], b"another's");
    world.host.start_foreign(InstanceId(5), &[], &[]);
    world.link_up();
    world.run();
    assert!(world.list().is_empty());
    assert_eq!(world.host.running().len(), 2);
    assert_eq!(world.log.iter().filter(|(level, _)| *level == Level::Warning).count(), 2);
    let recipe = Recipe { devices: &[("net0", NET), ("net1", NET)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0", "net1"]));
    assert_eq!(world.instance(0), InstanceId((1 << 60) + 1));
    // What it does is no concern of ours.
    world.host.write(far, b"?");
    world.host.end(far, ExitStatus::Code(0));
    world.run();
    assert_eq!((world.resets, world.list().len()), (0, 1));
}

#[test]
fn of_two_unikernels_of_one_name_the_older_is_ended() {
    for ended in [false, true] {
        let (mut world, digest) = world_with_image();
        let session = world.client();
        world.create(session, 1, networked("a", digest, &["net0"]));
        let newer = world.host.spawned.last().unwrap().clone();
        let older = InstanceId(newer.instance.0 - 1);
        world.host.start_foreign(older, &[], &newer.tag);
        if ended {
            world.host.end(older, ExitStatus::Signal(9));
        }
        world.restart();
        world.run();
        assert_eq!(world.host.running(), [newer.instance]);
        assert_eq!(world.host.ledger.monitors.len(), 1);
        let session = world.client();
        assert_eq!(world.ask(session, 1, destroy("a")), Response::Destroyed);
    }
}

/// A control plane that could not read what is kept has started it, under a number that was given before.
#[test]
fn what_runs_under_the_number_of_one_that_has_ended_is_ended() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    let spawn = world.host.spawned[0].clone();
    world.host.end(spawn.instance, ExitStatus::Code(0));
    world.run();
    world.link_down();
    world.host.start_foreign(spawn.instance, &[], &spawn.tag);
    world.link_up();
    world.run();
    assert_eq!(world.host.running(), []);
    assert_eq!(states(&mut world), [("a".into(), State::Ended(ExitStatus::Code(0)))]);
}

#[test]
fn what_runs_under_the_number_of_another_is_ended_and_the_other_is_not_taken_for_it() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.create(session, 2, networked("b", digest, &["net0"]));
    let [a, b] = [0, 1].map(|index| world.host.spawned[index].clone());
    world.link_down();
    world.host.end(a.instance, ExitStatus::Code(0));
    world.host.start_foreign(a.instance, &[], &b.tag);
    world.link_up();
    world.run();
    assert_eq!(world.host.running(), [b.instance]);
    assert_eq!(world.state("a"), State::Ended(ExitStatus::Unknown));
}

#[test]
fn the_taps_of_a_monitor_that_is_being_ended_are_not_given_to_another() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    let newer = world.host.spawned.last().unwrap().clone();
    let older = InstanceId(newer.instance.0 - 1);
    world.host.start_foreign(older, &[TapId(newer.nets[0].tap.0 + 1)], &newer.tag);
    world.restart();
    while world.step_link() || world.step_host() {}
    let session = world.client();
    world.send(session, 1, create(networked("b", digest, &["net0"])));
    while world.step_link() || world.step_host() {}
    // It has been killed, and has not ended yet.
    assert!(world.host.running().contains(&older));
    world.expect(session, 1, |response| matches!(response, Response::Created(_)));
}

/// Sends the engine each of these as the answer to the last request it made.
#[test]
fn a_shim_that_makes_no_sense_has_its_link_reset_and_is_believed_again_after_the_next_hello() {
    let reply = |id, reply| FromShim::Reply { id, result: Ok(reply) };
    for case in 0..5 {
        let (mut world, digest) = world_with_image();
        let session = world.client();
        world.create(session, 1, networked("known", digest, &["net0"]));
        world.send(session, 2, create(networked("a", digest, &["net0"])));
        let id = world.requests[0].id;
        let instance = InstanceId(world.instance(0).0 + 1);
        let payload = match case {
            0 => encoded(&reply(id.wrapping_add(1), Reply::Done)),
            1 => encoded(&reply(id, Reply::Stored { bytes: 7 })),
            2 => encoded(&FromShim::Event(Event::Exited { instance, status: ExitStatus::Code(0) })),
            3 => vec![0xff; 9],
            _ => Vec::new(),
        };
        world.input(Input::LinkFrame { payload: &payload });
        assert_eq!(world.resets, 1, "case {case}");
        assert_eq!(world.next(session, 2), Response::Refused(Refusal::ShimAway));
        world.input(Input::LinkFrame { payload: &payload });
        world.input(Input::LinkClosed);
        assert_eq!(world.resets, 1, "what still comes over the old link is ignored");
        world.link_up();
        world.run();
        world.create(session, 3, networked("a", digest, &["net0"]));
        assert!(agrees(&mut world));
    }
}

#[test]
fn a_greeting_that_makes_no_sense_resets_the_link() {
    let listed = |more| Reply::Listed { page: Default::default(), more };
    let cases: [&[Result<Reply, Fault>]; 4] = [
        &[Err(Fault::Full)],
        &[Ok(Reply::Hello { release: [1, 0, 0] }), Ok(Reply::Done)],
        &[
            Ok(Reply::Hello { release: [1, 0, 0] }),
            Ok(Reply::Host(crate::host::Host::new().facts.into())),
            Ok(listed(true)),
        ],
        &[Ok(listed(false))],
    ];
    for replies in cases {
        let mut world = World::unlinked();
        world.link_up();
        for (id, result) in (0..).zip(replies) {
            assert_eq!(world.resets, 0);
            let payload = encoded(&FromShim::Reply { id, result: result.clone() });
            world.input(Input::LinkFrame { payload: &payload });
        }
        assert_eq!(world.resets, 1);
        world.link_up();
        world.run();
        let session = world.client();
        assert!(matches!(world.ask(session, 1, Request::Host), Response::Host(_)));
    }
}

#[test]
fn a_shim_that_falls_silent_has_its_link_reset() {
    let (mut world, digest) = world_with_image();
    assert_eq!(world.engine.poll_at(), None, "nothing is waited for");
    let session = world.client();
    world.send(session, 1, create(networked("a", digest, &["net0"])));
    let asked_ns = world.now.monotonic_ns;
    assert_eq!(world.engine.poll_at(), Some(asked_ns + 30_000_000_000));
    world.wait_ms(29_999);
    assert_eq!(world.resets, 0);
    // Anything that is heard is a sign of life.
    world.host.write(InstanceId(1), b"alive");
    world.step_link();
    world.wait_ms(29_999);
    assert_eq!(world.resets, 0);
    world.wait_ms(1);
    assert_eq!(world.resets, 1);
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::ShimAway));
    world.disconnect(session);
    assert_eq!(world.engine.poll_at(), None);
}

#[test]
fn a_link_that_opens_while_one_is_open_takes_its_place() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.send(session, 1, create(networked("a", digest, &["net0"])));
    world.requests.clear();
    world.host.link_ended();
    world.link_up();
    assert_eq!(world.next(session, 1), Response::Refused(Refusal::ShimAway));
    world.run();
    world.create(session, 2, networked("a", digest, &["net0"]));
}

/// Its end is told first, then the page of the ledger that has it as ended, then that it is forgotten.
#[test]
fn one_that_makes_way_for_another_and_is_listed_meanwhile_is_forgotten_once() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    // The ledger takes more than a page.
    for id in 10..30 {
        let mut other = networked(&format!("other{id}"), digest, &["net0"]);
        other.args.push(Blob::try_from(vec![b'x'; 4000]).unwrap()).unwrap();
        world.create(session, id, other);
    }
    world.send(session, 2, Request::Restart { name: name("a"), change: Box::default() });
    assert!(world.step_host(), "it is killed");
    world.link_down();
    assert_eq!(world.next(session, 2), Response::Refused(Refusal::ShimAway));
    world.link_up();
    while !matches!(world.requests.front(), Some(petrel_wire::shim::Request { op: Op::List { .. }, .. })) {
        assert!(world.step_link() || world.step_host());
    }
    world.host.reap();
    world.run();
    assert_eq!(states(&mut world).first(), Some(&("a".into(), State::Running)));
    assert!(agrees(&mut world));
}
