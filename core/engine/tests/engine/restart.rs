//! What happens when a unikernel ends by itself, and when an operator starts and stops it.

use petrel_wire::{
    Digest, ExitStatus,
    operator::{
        Change, Create, Refusal, Request, Response, Restart, RestartWhen, State, Supervision, VolumeRefusal,
        Wish,
    },
    shim::{Fault, Op},
};

use crate::{
    image::{self, BLOCK, NET, Recipe},
    world::{World, console, create, destroy, name, networked},
};

const LONG_MS: u64 = 60_000;

fn world_with_image() -> (World, Digest) {
    let mut world = World::new();
    let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    (world, digest)
}

pub fn restarted(when: RestartWhen, codes: &[u8], create: Create) -> Create {
    let restart = Restart { when, codes: codes.to_vec().try_into().unwrap() };
    Create { supervision: Supervision { restart, ..create.supervision }, ..create }
}

fn always(create: Create) -> Create {
    restarted(RestartWhen::Always, &[], create)
}

pub fn start(unikernel: &str) -> Request {
    Request::Start(name(unikernel))
}

pub fn stop(unikernel: &str) -> Request {
    Request::Stop(name(unikernel))
}

pub fn restart(unikernel: &str, change: Change) -> Request {
    Request::Restart { name: name(unikernel), change: change.into() }
}

/// Ends the unikernel that runs as `a`; returns after how long its next instance was spawned, in milliseconds.
fn end_and_wait(world: &mut World, status: ExitStatus) -> u64 {
    let instance = world.running("a");
    let spawned = world.host.spawned.len();
    world.host.end(instance, status);
    world.run();
    let begin_ms = world.now.wall_ms;
    while world.host.spawned.len() == spawned {
        let at_ns = world.engine.poll_at().expect("it will be started again");
        let ms = at_ns.saturating_sub(world.now.monotonic_ns).div_ceil(1_000_000);
        world.wait_ms(ms);
        world.run();
    }
    world.now.wall_ms - begin_ms
}

#[test]
fn a_unikernel_that_ends_is_started_again_as_its_policy_says() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    let cases = [
        ("never", RestartWhen::Never, ExitStatus::Code(3), false),
        ("failed", RestartWhen::OnFailure, ExitStatus::Code(3), true),
        ("listed", RestartWhen::OnFailure, ExitStatus::Code(1), true),
        ("killed", RestartWhen::OnFailure, ExitStatus::Signal(11), true),
        ("done", RestartWhen::OnFailure, ExitStatus::Code(0), false),
        ("again", RestartWhen::Always, ExitStatus::Code(0), true),
        ("wrong", RestartWhen::Always, ExitStatus::Code(64), false),
    ];
    for (id, (unikernel, when, status, again)) in (1..).zip(cases) {
        let codes: &[u8] = if unikernel == "listed" { &[1] } else { &[] };
        world.create(session, id, restarted(when, codes, networked(unikernel, digest, &["net0"])));
        let instance = world.running(unikernel);
        world.host.end(instance, status);
        world.sleep_ms(1000);
        let expected = if again { State::Running } else { State::Ended(status) };
        let shown = world.info(unikernel).unikernel;
        assert_eq!(shown.state, expected, "{unikernel}");
        assert_eq!((shown.restarts, shown.last_exit), (u32::from(again), Some(status)), "{unikernel}");
    }
    assert_eq!(world.resets, 0);
}

#[test]
fn the_waits_double_until_it_is_a_crash_loop_which_is_tried_once_a_minute() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    let mut waits = Vec::new();
    for quick_ends in 1..9 {
        waits.push(end_and_wait(&mut world, ExitStatus::Code(255)));
        assert_eq!(world.info("a").unikernel.restarts, quick_ends);
    }
    let full = [200, 400, 800, 1600, 3200, LONG_MS, LONG_MS, LONG_MS];
    for (wait, full) in waits.iter().zip(full) {
        assert!((full * 3 / 4..=full + 1).contains(wait), "{waits:?}");
    }
    let instance = world.running("a");
    world.host.end(instance, ExitStatus::Code(255));
    world.run();
    let info = world.info("a");
    assert_eq!(info.unikernel.state, State::CrashLoop);
    assert!(info.watching.retry_ms.unwrap() > world.now.wall_ms + LONG_MS / 2);
    // Nothing is left of the earlier instances.
    assert_eq!(world.host.ledger.monitors.len(), 1);
    assert!(world.host.ledger.taps.is_empty());
}

#[test]
fn an_earlier_instance_that_the_host_could_not_forget_is_forgotten_later() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    world.host.faults.push((|op| matches!(op, Op::Forget(_)), Fault::Os { errno: 5 }));
    end_and_wait(&mut world, ExitStatus::Code(255));
    assert_eq!(world.host.ledger.monitors.len(), 2);
    world.sleep_ms(2000);
    assert_eq!(world.host.ledger.monitors.len(), 1);
    world.disconnect(session);
    assert_eq!(world.engine.poll_at(), None, "nothing is left to be done");
}

#[test]
fn one_that_has_lived_long_enough_begins_again_with_the_shortest_wait() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    for _ in 0..4 {
        end_and_wait(&mut world, ExitStatus::Code(255));
    }
    world.sleep_ms(LONG_MS);
    assert!(end_and_wait(&mut world, ExitStatus::Code(255)) <= 201);
}

#[test]
fn one_that_waits_to_be_started_again_is_shown_so_and_can_be_stopped_started_and_destroyed() {
    let (mut world, digest) = world_with_image();
    for (id, request) in [(2, stop("a")), (4, start("a")), (6, destroy("a"))] {
        let session = world.client();
        world.create(session, id - 1, always(networked("a", digest, &["net0"])));
        let instance = world.running("a");
        world.host.end(instance, ExitStatus::Code(255));
        world.run();
        assert_eq!(world.state("a"), State::BackOff);
        match world.ask(session, id, request) {
            Response::Stopped(unikernel) => assert_eq!(unikernel.state, State::Stopped),
            Response::Started(unikernel) => assert_eq!(unikernel.state, State::Running),
            other => assert_eq!(other, Response::Destroyed),
        }
        world.sleep_ms(LONG_MS);
        if id < 6 {
            assert_eq!(world.ask(session, 10 + id, destroy("a")), Response::Destroyed);
        }
        assert!(world.host.ledger.monitors.is_empty() && world.list().is_empty());
        world.disconnect(session);
        assert_eq!(world.engine.poll_at(), None, "nothing is left to be done");
    }
}

#[test]
fn a_stopped_one_stays_so_holds_nothing_and_is_started_as_what_it_was() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    let Response::Stopped(stopped) = world.ask(session, 2, stop("a")) else { panic!() };
    assert_eq!((stopped.state, stopped.wish), (State::Stopped, Wish::Stopped));
    assert_eq!(stopped.last_exit, Some(ExitStatus::Signal(9)));
    world.sleep_ms(2 * LONG_MS);
    assert!(world.host.running().is_empty());
    let Response::Host(host) = world.ask(session, 3, Request::Host) else { panic!() };
    assert_eq!((host.unikernels, host.memory_used_mib), (1, 0));
    // It can be stopped again, and its name is still taken.
    assert!(matches!(world.ask(session, 4, stop("a")), Response::Stopped(_)));
    assert_eq!(world.refused(session, 5, create(networked("a", digest, &["net0"]))), Refusal::NameTaken);
    let Response::Started(started) = world.ask(session, 6, start("a")) else { panic!() };
    assert_eq!((started.state, started.wish, started.restarts), (State::Running, Wish::Running, 0));
    let macs: Vec<_> = world.host.spawned.iter().map(|spawn| spawn.nets[0].mac).collect();
    assert_eq!(macs[0], macs[1]);
    assert!(world.host.spawned[0].instance < world.host.spawned[1].instance);
    assert!(matches!(world.ask(session, 7, start("a")), Response::Started(_)), "it runs already");
    assert_eq!(world.host.spawned.len(), 2);
}

#[test]
fn one_that_has_ended_for_good_is_started_when_asked_for() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    let instance = world.running("a");
    world.host.end(instance, ExitStatus::Code(0));
    world.run();
    assert_eq!(world.state("a"), State::Ended(ExitStatus::Code(0)));
    assert!(matches!(world.ask(session, 2, start("a")), Response::Started(_)));
    assert_eq!((world.host.running().len(), world.host.ledger.monitors.len()), (1, 1));
}

#[test]
fn a_restart_kills_and_starts_anew_whatever_the_policy() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    let Response::Started(started) = world.ask(session, 2, restart("a", Change::default())) else { panic!() };
    assert_eq!((started.state, started.generation, started.restarts), (State::Running, 1, 0));
    assert_eq!((world.host.spawned.len(), world.host.running().len()), (2, 1));
}

#[test]
fn a_console_is_followed_through_restarts_to_the_last_end() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, restarted(RestartWhen::OnFailure, &[], networked("a", digest, &["net0"])));
    world.send(session, 2, console("a", true));
    for (text, status) in [("one", ExitStatus::Code(2)), ("two", ExitStatus::Code(0))] {
        let instance = world.running("a");
        world.host.write(instance, text.as_bytes());
        world.host.end(instance, status);
        world.sleep_ms(1000);
    }
    let told = [
        |response: &Response| matches!(response, Response::Console { data, .. } if **data == *b"one"),
        |response: &Response| matches!(response, Response::ConsoleBegan { .. }),
        |response: &Response| matches!(response, Response::Console { data, .. } if **data == *b"two"),
    ];
    told.iter().for_each(|wanted| drop(world.expect(session, 2, *wanted)));
    assert_eq!(world.next(session, 2), Response::Ended(ExitStatus::Code(0)));
    assert_eq!(world.next(session, 2), Response::ConsoleEnd);
    // Both are kept.
    world.send(session, 3, console("a", false));
    told.iter().for_each(|wanted| drop(world.expect(session, 3, *wanted)));
    assert_eq!(world.next(session, 3), Response::ConsoleEnd);
}

#[test]
fn what_could_not_be_started_again_is_shown_with_the_reason_and_tried_again() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    let os = Fault::Os { errno: 12 };
    world.host.faults.push((|op| matches!(op, Op::Spawn(_)), os));
    let instance = world.running("a");
    world.host.end(instance, ExitStatus::Code(255));
    world.sleep_ms(220);
    let info = world.info("a");
    assert_eq!(info.unikernel.state, State::Failed);
    assert_eq!(info.watching.failure.as_deref(), Some(&Refusal::Shim(os)));
    assert!(world.host.ledger.taps.is_empty());
    world.sleep_ms(1000);
    assert_eq!((world.state("a"), world.info("a").watching.failure), (State::Running, None));
}

#[test]
fn a_start_that_fails_is_refused_and_it_stays_stopped() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    world.ask(session, 2, stop("a"));
    let os = Fault::Os { errno: 12 };
    world.host.faults.push((|op| matches!(op, Op::Spawn(_)), os));
    assert_eq!(world.refused(session, 3, start("a")), Refusal::Shim(os));
    world.sleep_ms(LONG_MS);
    assert_eq!(world.state("a"), State::Stopped);
    assert_eq!(world.refused(session, 4, start("b")), Refusal::NoSuchUnikernel);
}

#[test]
fn what_was_given_to_others_meanwhile_is_not_taken_back_by_a_start() {
    let mut world = World::new();
    let recipe = Recipe { devices: &[("disk", BLOCK)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    let session = world.client();
    let block =
        petrel_wire::operator::Block { device: "disk".parse().unwrap(), volume: "data".parse().unwrap() };
    let wanted = |unikernel, memory_mib| Create {
        memory_mib,
        blocks: vec![block.clone()].try_into().unwrap(),
        ..crate::world::plain(unikernel, digest)
    };
    world.create(session, 1, wanted("a", 1000));
    world.ask(session, 2, stop("a"));
    world.create(session, 3, wanted("b", 1500));
    let given = Refusal::MemoryGiven { host_mib: 2048, given_mib: 1500, asked_mib: 1000 };
    assert_eq!(world.refused(session, 4, start("a")), given);
    world.ask(session, 5, destroy("b"));
    world.create(session, 6, wanted("b", 500));
    let in_use = VolumeRefusal::InUse { volume: name("data"), user: Some(name("b")) };
    assert_eq!(world.refused(session, 7, start("a")), in_use.into());
    assert_eq!(world.state("a"), State::Stopped);
}

#[test]
fn one_that_is_to_be_started_again_keeps_what_it_needs() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    let large = Create { memory_mib: 2000, ..networked("a", digest, &["net0"]) };
    world.create(session, 1, always(large));
    let instance = world.running("a");
    world.host.end(instance, ExitStatus::Code(255));
    world.run();
    assert_eq!(world.state("a"), State::BackOff);
    let given = Refusal::MemoryGiven { host_mib: 2048, given_mib: 2000, asked_mib: 49 };
    let other = Create { memory_mib: 49, ..networked("b", digest, &["net0"]) };
    assert_eq!(world.refused(session, 2, create(other)), given);
}

#[test]
fn a_kill_that_shows_no_end_is_told_and_done_when_it_has_ended() {
    for request in [stop("a"), destroy("a")] {
        let (mut world, digest) = world_with_image();
        let session = world.client();
        world.create(session, 1, always(networked("a", digest, &["net0"])));
        world.host.immortal = true;
        world.send(session, 2, request);
        world.run();
        world.sleep_ms(9_999);
        assert!(world.nothing_for(session));
        world.sleep_ms(2);
        assert_eq!(world.next(session, 2), Response::Refused(Refusal::NotEnding { seconds: 10 }));
        assert_eq!(world.state("a"), State::Stopping);
        world.host.immortal = false;
        world.sleep_ms(10_000);
        assert!(world.host.running().is_empty());
        assert!(world.list().iter().all(|unikernel| unikernel.state == State::Stopped));
    }
}

#[test]
fn a_later_order_takes_the_place_of_an_earlier_one() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, networked("a", digest, &["net0"]));
    world.send(session, 2, stop("a"));
    world.send(session, 3, stop("a"));
    world.send(session, 4, start("a"));
    world.run();
    assert_eq!(world.next(session, 2), Response::Refused(Refusal::Superseded));
    assert_eq!(world.next(session, 3), Response::Refused(Refusal::Superseded));
    let Response::Started(started) = world.next(session, 4) else { panic!() };
    assert_eq!((started.state, world.host.running().len()), (State::Running, 1));
    world.ask(session, 8, stop("a"));
    for id in [9, 10] {
        world.send(session, id, start("a"));
    }
    world.run();
    let both = [9, 10].map(|id| matches!(world.next(session, id), Response::Started(_)));
    assert!(
        both == [true, true] && world.host.running().len() == 1,
        "who asks for the same waits for the same"
    );
    world.send(session, 5, restart("a", Change::default()));
    world.send(session, 6, destroy("a"));
    world.send(session, 7, start("a"));
    world.run();
    assert_eq!(world.next(session, 5), Response::Refused(Refusal::Superseded));
    assert_eq!(world.next(session, 7), Response::Refused(Refusal::BeingDestroyed));
    assert_eq!(world.next(session, 6), Response::Destroyed);
    assert!(world.host.ledger.monitors.is_empty());
}

#[test]
fn what_is_wanted_running_is_started_by_a_control_plane_that_comes_back_to_a_link() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    world.create(session, 2, networked("b", digest, &["net0"]));
    world.create(session, 3, always(networked("c", digest, &["net0"])));
    world.ask(session, 4, stop("c"));
    world.link_down();
    for unikernel in ["a", "b"] {
        let instance = world.running(unikernel);
        world.host.end(instance, ExitStatus::Code(7));
    }
    world.sleep_ms(LONG_MS);
    world.link_up();
    world.sleep_ms(1000);
    let states = [world.state("a"), world.state("b"), world.state("c")];
    assert_eq!(states, [State::Running, State::Ended(ExitStatus::Code(7)), State::Stopped]);
    assert_eq!(world.host.running().len(), 1);
}

#[test]
fn a_control_plane_without_memory_keeps_on_as_the_tags_say() {
    let (mut world, digest) = world_with_image();
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    world.restart();
    world.run();
    let instance = world.running("a");
    world.host.end(instance, ExitStatus::Code(7));
    world.sleep_ms(1000);
    assert_eq!(world.state("a"), State::Running);
    assert_eq!((world.host.running().len(), world.host.ledger.monitors.len()), (1, 1));
}

/// A control plane that remembers comes back after the host was started anew: nothing runs, and nothing is left of it.
#[test]
fn what_is_wanted_running_is_started_on_a_host_that_was_started_anew() {
    let mut world = World::with_disk(1 << 20);
    let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    let session = world.client();
    for (id, unikernel) in (1..).zip(["never", "always", "ended", "stopped"]) {
        let when = if unikernel == "always" { RestartWhen::Always } else { RestartWhen::Never };
        world.create(session, id, restarted(when, &[], networked(unikernel, digest, &["net0"])));
    }
    let instance = world.running("ended");
    world.host.end(instance, ExitStatus::Code(0));
    world.ask(session, 10, stop("stopped"));
    world.sleep_ms(1001);
    world.host.ledger.monitors.clear();
    world.host.ledger.taps.clear();
    world.restart();
    world.run();
    let states = ["never", "always", "ended", "stopped"].map(|unikernel| world.state(unikernel));
    let expected = [State::Running, State::Running, State::Ended(ExitStatus::Code(0)), State::Stopped];
    assert_eq!((states, world.host.running().len()), (expected, 2));
}

/// The control plane dies after each step of what an operator orders, and comes back with its memory: what was
/// acknowledged holds, one instance runs at most, and all comes to rest.
#[test]
fn an_order_over_which_the_control_plane_dies_is_done_or_not_done() {
    let orders: [fn() -> Request; 4] = [
        || stop("a"),
        || start("b"),
        || restart("a", Change { memory_mib: Some(64), ..Change::default() }),
        || Request::Rollback { name: name("a"), generation: None },
    ];
    for (order, steps) in orders.into_iter().flat_map(|order| (0..14).map(move |steps| (order, steps))) {
        let mut world = World::with_disk(1 << 20);
        let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
        let digest = world.host.store(image::build(&recipe));
        let session = world.client();
        world.create(session, 1, always(networked("a", digest, &["net0"])));
        world.create(session, 2, always(networked("b", digest, &["net0"])));
        world.ask(session, 3, restart("a", Change { memory_mib: Some(40), ..Change::default() }));
        world.ask(session, 4, stop("b"));
        world.send(session, 5, order());
        (0..steps).for_each(|_| _ = world.step());
        let told = world.inboxes[&session].iter().find(|message| message.id == 5).cloned();
        world.restart();
        world.sleep_ms(2000);
        let context = format!("{:?} after {steps} steps", order());
        for unikernel in ["a", "b"] {
            let shown = world.info(unikernel).unikernel;
            let runs = world.host.running().len();
            match (&told.as_ref().map(|message| &message.response), shown.state) {
                (
                    Some(Response::Stopped(said) | Response::Started(said) | Response::Updated(said)),
                    state,
                ) if said.name == shown.name => {
                    let same = (said.wish, said.generation, said.memory_mib, said.state);
                    assert_eq!(same, (shown.wish, shown.generation, shown.memory_mib, state), "{context}");
                }
                (Some(Response::Refused(refusal)), _) => panic!("{context}: {refusal:?}"),
                (_, state) => {
                    assert!(matches!(state, State::Running | State::Stopped), "{context}: {state:?}")
                }
            }
            assert!(runs <= 2, "{context}");
        }
        let running = ["a", "b"].map(|unikernel| world.state(unikernel) == State::Running);
        let running = running.iter().filter(|runs| **runs).count();
        assert_eq!(
            (world.host.running().len(), world.host.ledger.taps.len()),
            (running, running),
            "{context}"
        );
    }
}

/// Nothing can be kept any more: what runs is kept running all the same, and orders are refused.
#[test]
fn a_control_plane_whose_disk_has_failed_goes_on_keeping_unikernels_running() {
    let mut world = World::with_disk(1 << 20);
    let recipe = Recipe { devices: &[("net0", NET)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    let session = world.client();
    world.create(session, 1, always(networked("a", digest, &["net0"])));
    world.disk.as_mut().unwrap().writes_left = Some(0);
    for round in 0..3 {
        let instance = world.running("a");
        world.host.end(instance, ExitStatus::Code(2));
        world.sleep_ms(5000);
        assert_eq!((world.state("a"), world.host.running().len()), (State::Running, 1), "round {round}");
    }
    let unwritable = Refusal::ReadOnly(petrel_wire::operator::ReadOnly::Unwritable);
    for (id, request) in [(2, stop("a")), (3, start("a")), (4, restart("a", Change::default()))] {
        assert_eq!(world.refused(session, id, request), unwritable);
    }
    assert_eq!((world.state("a"), world.resets), (State::Running, 0));
}

/// Breaks the link after each step of a stop, a start and a restart: each is done or refused, and what is shown once
/// the link is back is what there is.
#[test]
fn an_order_during_which_the_link_breaks_is_done_or_refused() {
    let orders: [(bool, fn() -> Request); 3] =
        [(false, || stop("a")), (true, || start("a")), (false, || restart("a", Change::default()))];
    for (stopped, request) in orders {
        for steps in 0..14 {
            let (mut world, digest) = world_with_image();
            let session = world.client();
            world.create(session, 1, always(networked("a", digest, &["net0"])));
            if stopped {
                world.ask(session, 2, stop("a"));
            }
            let before = world.info("a").unikernel.wish;
            world.send(session, 3, request());
            for _ in 0..steps {
                world.step();
            }
            world.link_down();
            let answer = world.next(session, 3);
            let wish = world.info("a").unikernel.wish;
            match answer {
                Response::Started(_) => assert_eq!(wish, Wish::Running),
                Response::Stopped(_) => assert_eq!(wish, Wish::Stopped),
                other => {
                    assert_eq!((other, wish), (Response::Refused(Refusal::ShimAway), before));
                }
            }
            world.host.reap();
            world.link_up();
            world.sleep_ms(1000);
            let running = usize::from(wish == Wish::Running);
            assert_eq!(world.host.running().len(), running, "after {steps} steps");
            assert_eq!((world.host.ledger.taps.len(), world.resets), (running, 0));
        }
    }
}
