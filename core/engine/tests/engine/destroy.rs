//! Destroying: in every state, by several at once, and what is left: nothing.

use petrel_wire::{
    Digest, ExitStatus,
    operator::{Change, Refusal, Request, Response, State, Wish},
    shim::{Fault, Op},
};

use crate::{
    host::Applies,
    image::{self, NET, Recipe},
    restart::restart,
    world::{World, console, create, destroy, info, name, networked},
};

fn world_with_image() -> (World, Digest) {
    let mut world = World::new();
    let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    (world, digest)
}

fn nothing_is_left(world: &mut World) -> bool {
    let empty = world.list().is_empty();
    empty && world.host.ledger.taps.is_empty() && world.host.ledger.monitors.is_empty()
}

#[test]
fn a_destroy_is_answered_when_nothing_is_left() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.send(session, 2, destroy("a"));
    while world.nothing_for(session) {
        assert!(world.step());
    }
    assert_eq!(world.next(session, 2), Response::Destroyed);
    assert!(nothing_is_left(&mut world));
}

#[test]
fn a_unikernel_is_stopping_while_it_is_destroyed() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.send(session, 2, destroy("a"));
    assert_eq!(world.list()[0].state, State::Stopping);
    world.run();
    assert!(world.list().is_empty());
}

#[test]
fn all_who_destroy_one_unikernel_are_answered_and_it_is_killed_once() {
    let (mut world, digest) = world_with_image();
    let (first, second) = (world.client(), world.client());
    world.create(first, 1, networked("a", digest, &["net0"]));
    world.send(first, 2, destroy("a"));
    world.send(first, 3, destroy("a"));
    world.send(second, 2, destroy("a"));
    assert_eq!(world.requests.iter().filter(|request| matches!(request.op, Op::Kill(_))).count(), 1);
    world.run();
    let answers = [world.next(first, 2), world.next(first, 3), world.next(second, 2)];
    assert!(answers.iter().all(|answer| *answer == Response::Destroyed));
}

/// Destroys at each step of a create: both are answered, and nothing is left.
#[test]
fn a_unikernel_that_is_starting_can_be_destroyed() {
    for fails in [false, true] {
        for steps in 0..8 {
            let (mut world, digest) = world_with_image();
            let session = world.client();
            world.send(session, 1, create(networked("a", digest, &["net0"])));
            if fails {
                world.host.faults.push((|op| matches!(op, Op::Spawn(_)), Fault::Os { errno: 12 }));
            }
            for _ in 0..steps {
                world.step();
            }
            world.send(session, 2, destroy("a"));
            world.run();
            assert!(world.unanswered.is_empty());
            let taken =
                world.inboxes[&session].iter().any(|m| m.id == 2 && m.response == Response::Destroyed);
            // Before it has a place in the table there is nothing to destroy.
            assert_eq!(world.list().is_empty(), taken || fails);
            assert!(!taken || nothing_is_left(&mut world));
        }
    }
}

#[test]
fn who_asked_for_a_unikernel_that_was_destroyed_while_it_started_is_told_that_it_ran() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("first", digest, &["net0"]));
    world.send(session, 2, create(networked("a", digest, &["net0"])));
    world.send(session, 3, destroy("a"));
    assert_eq!(world.list()[0].state, State::Stopping);
    world.run();
    let Response::Created(unikernel) = world.next(session, 2) else { panic!() };
    assert_eq!(unikernel.state, State::Stopping);
    assert_eq!(world.next(session, 3), Response::Destroyed);
}

#[test]
fn a_unikernel_that_has_ended_is_kept_with_its_console_until_it_is_destroyed() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    let instance = world.instance(0);
    world.host.write(instance, b"last words");
    world.host.end(instance, ExitStatus::Code(255));
    world.run();
    assert_eq!(world.list()[0].state, State::Ended(ExitStatus::Code(255)));
    world.send(session, 2, console("a", false));
    assert!(matches!(world.next(session, 2), Response::Console { data, .. } if *data == *b"last words"));
    assert_eq!(world.next(session, 2), Response::ConsoleEnd);
    world.send(session, 3, destroy("a"));
    assert!(matches!(world.requests[0].op, Op::Forget(_)));
    world.run();
    assert_eq!(world.next(session, 3), Response::Destroyed);
    assert!(nothing_is_left(&mut world));
}

#[test]
fn a_unikernel_that_ends_by_itself_while_it_is_destroyed_is_destroyed() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.host.end(world.instance(0), ExitStatus::Code(0));
    world.send(session, 2, destroy("a"));
    world.run();
    assert_eq!(world.next(session, 2), Response::Destroyed);
    assert!(nothing_is_left(&mut world));
}

#[test]
fn a_destroy_that_the_host_cannot_do_is_told_to_go_on_and_is_done_as_soon_as_it_can() {
    let os = Fault::Os { errno: 1 };
    let steps: [Applies; 2] = [|op| matches!(op, Op::Kill(_)), |op| matches!(op, Op::Forget(_))];
    for step in steps {
        let (mut world, digest) = world_with_image();
        let session = world.client();
        world.create(session, 1, networked("a", digest, &["net0"]));
        world.host.faults.extend([(step, os); 3]);
        assert_eq!(world.refused(session, 2, destroy("a")), Refusal::BeingDestroyed);
        let shown = world.info("a");
        assert_eq!(shown.unikernel.wish, Wish::Destroyed);
        assert_eq!(shown.watching.failure, Some(Box::new(Refusal::Shim(os))));
        assert_eq!(world.refused(session, 3, restart("a", Change::default())), Refusal::BeingDestroyed);
        world.sleep_ms(3500);
        assert!(nothing_is_left(&mut world));
        let told = world.log.iter().filter(|(_, line)| line.contains("could not be ended")).count();
        assert_eq!(told, 1);
    }
}

#[test]
fn a_monitor_that_the_host_does_not_know_is_destroyed() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.host.ledger.monitors.clear();
    world.host.ledger.taps.clear();
    assert_eq!(world.ask(session, 2, destroy("a")), Response::Destroyed);
    assert!(nothing_is_left(&mut world));
}

#[test]
fn a_destroy_goes_on_when_its_client_is_gone() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.send(session, 2, destroy("a"));
    world.disconnect(session);
    world.run();
    assert!(nothing_is_left(&mut world));
}

#[test]
fn a_destroyed_name_can_be_given_again_at_once() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    for id in 1..20 {
        world.create(session, 2 * id, networked("a", digest, &["net0"]));
        assert_eq!(world.ask(session, 2 * id + 1, destroy("a")), Response::Destroyed);
    }
    assert_eq!(world.refused(session, 1, info("a")), Refusal::NoSuchUnikernel);
    assert_eq!(world.refused(session, 2, Request::Destroy(name("a"))), Refusal::NoSuchUnikernel);
}
