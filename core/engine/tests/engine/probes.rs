//! Probes: what shows that a unikernel is ready, and what is done with one that is no longer alive.

use petrel_wire::{
    Digest,
    operator::{Create, Liveness, Refusal, Response, RestartWhen, State, Supervision},
};

use crate::{
    image,
    restart::restarted,
    world::{World, create, plain},
};

fn world_with_image() -> (World, Digest) {
    let mut world = World::new();
    let digest = world.host.store(image::build(&image::Recipe::default()));
    (world, digest)
}

pub fn ready(probe: &str, create: Create) -> Create {
    let ready = Some(probe.parse().unwrap());
    Create { supervision: Supervision { ready, ..create.supervision }, ..create }
}

fn alive(probe: &str, create: Create) -> Create {
    let alive = Some(Liveness { probe: probe.parse().unwrap(), every_s: 5, failures: 3 });
    Create { supervision: Supervision { alive, ..create.supervision }, ..create }
}

#[test]
fn a_unikernel_is_ready_when_its_probe_succeeds_and_not_before() {
    for probe in ["tcp:10.0.0.9:80", "http:10.0.0.9:8080/health"] {
        let (mut world, digest) = world_with_image();
        let session = world.client();
        let unikernel = world.create(session, 1, ready(probe, plain("a", digest)));
        assert_eq!(unikernel.state, State::Running);
        for _ in 0..3 {
            assert_eq!(world.probed(false), probe);
            assert_eq!(world.state("a"), State::Running);
            assert!(world.probes.is_empty(), "not again at once");
            world.sleep_ms(251);
        }
        world.probed(true);
        assert_eq!(world.state("a"), State::Ready);
        world.sleep_ms(60_000);
        assert!(world.probes.is_empty(), "it is not asked again");
    }
}

#[test]
fn a_text_on_the_console_makes_it_ready_however_it_is_cut() {
    for cut in 1.."listening".len() {
        let (mut world, digest) = world_with_image();
        let session = world.client();
        world.create(session, 1, ready("console:listening", plain("a", digest)));
        let instance = world.running("a");
        world.host.write(instance, b"booting\nlisteni");
        world.run();
        assert_eq!(world.state("a"), State::Running);
        let (first, rest) = "listening".split_at(cut);
        for part in [" ng is listen", "ed to: now ", first, rest, " on 80\n"] {
            world.host.write(instance, part.as_bytes());
            world.run();
        }
        assert_eq!(world.state("a"), State::Ready, "cut at {cut}");
    }
}

#[test]
fn an_instance_that_is_started_again_has_to_get_ready_again() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    let wanted = restarted(RestartWhen::Always, &[], plain("a", digest));
    world.create(session, 1, ready("tcp:10.0.0.9:80", wanted));
    let (late, ..) = world.probes[0].clone();
    let instance = world.running("a");
    world.host.end(instance, petrel_wire::ExitStatus::Code(2));
    world.sleep_ms(201);
    // The answer that was for the earlier instance says nothing of this one.
    world.probes.pop_front();
    world.input(petrel_engine::Input::Probed { id: late, passed: true });
    assert_eq!(world.state("a"), State::Running);
    world.probed(true);
    assert_eq!(world.state("a"), State::Ready);
}

#[test]
fn one_that_is_not_alive_any_more_is_killed_and_its_policy_holds() {
    for when in [RestartWhen::OnFailure, RestartWhen::Never] {
        let (mut world, digest) = world_with_image();
        let session = world.client();
        world.create(session, 1, restarted(when, &[], alive("tcp:10.0.0.9:80", plain("a", digest))));
        // Failures that are not in a row are forgiven.
        for passed in [false, false, true, false, false] {
            assert!(world.probes.is_empty());
            world.sleep_ms(5001);
            world.probed(passed);
        }
        assert_eq!((world.host.spawned.len(), world.state("a")), (1, State::Running));
        world.sleep_ms(5001);
        world.probed(false);
        world.sleep_ms(1000);
        let killed = State::Ended(petrel_wire::ExitStatus::Signal(9));
        let expected = if when == RestartWhen::Never { killed } else { State::Running };
        assert_eq!(world.state("a"), expected);
        assert_eq!(world.host.running().len(), usize::from(expected == State::Running));
    }
}

#[test]
fn a_console_that_falls_silent_is_a_sign_too() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, alive("console:tick", plain("a", digest)));
    let instance = world.running("a");
    for _ in 0..4 {
        world.host.write(instance, b"tick\n");
        world.sleep_ms(5001);
    }
    assert_eq!(world.state("a"), State::Running);
    world.sleep_ms(16_000);
    assert_eq!(world.state("a"), State::Ended(petrel_wire::ExitStatus::Signal(9)));
}

#[test]
fn a_liveness_probe_begins_when_it_is_ready() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    let wanted = alive("tcp:10.0.0.9:81", ready("tcp:10.0.0.9:80", plain("a", digest)));
    world.create(session, 1, wanted);
    for _ in 0..50 {
        assert_eq!(world.probed(false), "tcp:10.0.0.9:80");
        world.sleep_ms(251);
    }
    world.probed(true);
    world.sleep_ms(4_900);
    assert!(world.probes.is_empty());
    world.sleep_ms(200);
    assert_eq!(world.probed(true), "tcp:10.0.0.9:81");
}

#[test]
fn never_more_than_a_few_probes_are_under_way_and_each_gets_its_turn() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    for i in 0..40 {
        let probe = format!("tcp:10.0.0.{i}:80");
        world.create(session, 1, ready(&probe, plain(&format!("u{i}"), digest)));
    }
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..40 {
        assert_eq!(world.probes.len(), 16.min(40 - answered.len()));
        answered.insert(world.probed(true));
        world.sleep_ms(101);
    }
    assert_eq!(answered.len(), 40);
    assert!(world.list().iter().all(|unikernel| unikernel.state == State::Ready));
}

#[test]
fn a_probe_of_what_is_gone_is_nobodys() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, ready("tcp:10.0.0.9:80", plain("a", digest)));
    assert_eq!(world.ask(session, 2, crate::world::destroy("a")), Response::Destroyed);
    world.probed(true);
    assert!(world.list().is_empty());
    world.disconnect(session);
    assert_eq!(world.engine.poll_at(), None);
}

#[test]
fn a_liveness_probe_without_an_interval_is_refused() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    let mut wanted = alive("tcp:10.0.0.9:80", plain("a", digest));
    for (id, (every_s, failures)) in (1..).zip([(0, 3), (5, 0)]) {
        let probe = "tcp:10.0.0.9:80".parse().unwrap();
        wanted.supervision.alive = Some(Liveness { probe, every_s, failures });
        assert_eq!(world.refused(session, id, create(wanted.clone())), Refusal::Supervision);
    }
}

#[test]
fn a_control_plane_that_comes_back_asks_again_who_is_ready() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, ready("tcp:10.0.0.9:80", plain("a", digest)));
    world.create(session, 2, ready("console:up", plain("b", digest)));
    world.restart();
    world.run();
    // What the console said once can no longer be known.
    assert_eq!((world.state("a"), world.state("b")), (State::Running, State::Ready));
    world.sleep_ms(1);
    world.probed(true);
    assert_eq!(world.state("a"), State::Ready);
}
