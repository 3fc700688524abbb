//! Consoles: history, following, and readers that are slow.

use petrel_engine::Input;
use petrel_wire::{
    ExitStatus,
    limits::{CONSOLE_HISTORY_BYTES, CONSOLES_DEAD_BYTES_MAX, CONSOLES_DEAD_MAX, SESSION_QUEUE_BYTES},
    operator::{ConsoleAsked, Refusal, Request, Response, Since},
    shim::{Event, InstanceId},
};

use crate::{
    image::{self, Recipe},
    world::{World, console, create, destroy, name, plain},
};

fn world_with_guest() -> (World, petrel_engine::SessionId, InstanceId) {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    let instance = world.instance(0);
    (world, session, instance)
}

/// What a client has got of a console: its text with `(n/m)` for n missed bytes and m missed lines, `|` for another
/// start, and what came at the end.
fn read(world: &mut World, session: petrel_engine::SessionId, id: u32) -> String {
    let mut text = String::new();
    while !world.nothing_for(session) {
        match world.next(session, id) {
            Response::Console { data: bytes, .. } => text.push_str(core::str::from_utf8(&bytes).unwrap()),
            Response::ConsoleMissed { bytes, lines } => text.push_str(&format!("({bytes}/{lines})")),
            Response::ConsoleBegan { .. } => text.push('|'),
            Response::Ended(status) => text.push_str(&format!("[{status}]")),
            Response::ConsoleEnd => text.push('.'),
            other => panic!("{other:?}"),
        }
    }
    text
}

#[test]
fn a_console_holds_what_was_written() {
    let (mut world, session, instance) = world_with_guest();
    world.send(session, 2, console("a", false));
    assert_eq!(read(&mut world, session, 2), ".");
    world.host.write(instance, b"one\n");
    world.host.write(instance, b"two\n");
    world.run();
    world.send(session, 3, console("a", false));
    assert_eq!(read(&mut world, session, 3), "one\ntwo\n.");
}

#[test]
fn a_follower_sees_what_comes_and_how_it_ends() {
    let (mut world, session, instance) = world_with_guest();
    world.host.write(instance, b"one ");
    world.run();
    world.send(session, 2, console("a", true));
    assert_eq!(read(&mut world, session, 2), "one ");
    world.host.write(instance, b"two ");
    world.run();
    assert_eq!(read(&mut world, session, 2), "two ");
    world.host.write(instance, b"three");
    world.host.end(instance, ExitStatus::Code(3));
    world.run();
    assert_eq!(read(&mut world, session, 2), "three[exit 3].");
    world.send(session, 3, console("a", true));
    assert_eq!(read(&mut world, session, 3), "one two three[exit 3].");
}

#[test]
fn a_follower_may_be_there_before_the_guest_has_started() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("known", digest));
    world.host.brief_guests = true;
    world.send(session, 2, create(plain("a", digest)));
    world.send(session, 3, console("a", true));
    world.run();
    assert!(matches!(world.next(session, 2), Response::Created(_)));
    assert_eq!(read(&mut world, session, 3), "bye\n[exit 0].");
}

#[test]
fn a_follower_of_a_unikernel_that_could_not_be_started_comes_to_its_end() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("known", digest));
    let fault = petrel_wire::shim::Fault::Os { errno: 12 };
    world.host.faults.push((|op| matches!(op, petrel_wire::shim::Op::Spawn(_)), fault));
    let follower = world.client();
    world.send(session, 2, create(plain("a", digest)));
    world.send(follower, 3, console("a", true));
    world.run();
    assert_eq!(read(&mut world, follower, 3), ".");
}

#[test]
fn only_so_much_is_kept_and_what_is_not_is_counted() {
    let (mut world, session, instance) = world_with_guest();
    world.host.write(instance, &vec![b'x'; CONSOLE_HISTORY_BYTES]);
    world.host.write(instance, b"12345");
    world.run();
    world.send(session, 2, console("a", false));
    let text = read(&mut world, session, 2);
    assert!(text.starts_with("(5/0)xxx") && text.ends_with("xxx12345."));
    assert_eq!(text.len(), "(5/0)".len() + CONSOLE_HISTORY_BYTES + ".".len());
}

#[test]
fn bytes_that_the_shim_had_to_drop_are_counted_where_they_were() {
    let (mut world, session, instance) = world_with_guest();
    world.host.write(instance, b"before ");
    world.host.tell(Event::ConsoleLost { instance, bytes: 77, lines: 3 });
    world.host.write(instance, b" after");
    world.run();
    world.send(session, 2, console("a", false));
    assert_eq!(read(&mut world, session, 2), "before (77/3) after.");
}

#[test]
fn a_follower_that_is_slow_misses_bytes_and_costs_nobody_else() {
    let (mut world, slow, instance) = world_with_guest();
    let quick = world.client();
    world.stalled.insert(slow, 0);
    world.send(slow, 2, console("a", true));
    world.send(quick, 2, console("a", true));
    let written = 4 * SESSION_QUEUE_BYTES;
    let mut seen = 0;
    for i in 0..written / 1024 {
        let mut line = [b'a' + u8::try_from(i % 26).unwrap(); 1024];
        line[1023] = b'\n';
        world.host.write(instance, &line);
        world.run();
        seen += read(&mut world, quick, 2).len();
        assert!(world.stalled[&slow] < SESSION_QUEUE_BYTES + 8 * 1024);
    }
    assert_eq!(seen, written);
    let kept = read(&mut world, slow, 2).len();
    world.unstall(slow);
    let rest = read(&mut world, slow, 2);
    let missed = written - kept - CONSOLE_HISTORY_BYTES;
    let told = format!("({missed}/{})", missed / 1024);
    assert!(rest.starts_with(&told), "{}", &rest[..20]);
    assert_eq!(rest.len(), told.len() + CONSOLE_HISTORY_BYTES);
    world.host.write(instance, b"go on");
    world.run();
    assert_eq!(read(&mut world, slow, 2), "go on");
}

#[test]
fn the_streams_of_one_session_share_its_queue_fairly() {
    let (mut world, session, instance) = world_with_guest();
    world.host.write(instance, &[b'x'; CONSOLE_HISTORY_BYTES]);
    world.run();
    world.stalled.insert(session, 0);
    for id in 10..20 {
        world.send(session, id, console("a", false));
    }
    assert!(world.stalled[&session] < SESSION_QUEUE_BYTES + 8 * 1024);
    assert!(!world.unanswered.is_empty());
    while !world.unanswered.is_empty() {
        world.stalled.insert(session, 0);
        world.input(petrel_engine::Input::SessionDrained { session, queued: 0 });
    }
    let ended = world.inboxes[&session].iter().filter(|m| m.response == Response::ConsoleEnd).count();
    let bytes = |m: &petrel_wire::operator::ServerMessage| match &m.response {
        Response::Console { data, .. } => data.len(),
        _ => 0,
    };
    let bytes: usize = world.inboxes[&session].iter().map(bytes).sum();
    assert_eq!((ended, bytes), (10, 10 * CONSOLE_HISTORY_BYTES));
}

#[test]
fn a_cancelled_stream_says_nothing_more() {
    let (mut world, session, instance) = world_with_guest();
    world.send(session, 2, console("a", true));
    world.send(session, 3, console("a", true));
    world.send(session, 2, Request::Cancel);
    world.host.write(instance, b"x");
    world.run();
    assert_eq!(read(&mut world, session, 3), "x");
    world.send(session, 3, Request::Cancel);
    world.send(session, 99, Request::Cancel);
    world.host.write(instance, b"y");
    world.run();
    assert!(world.nothing_for(session));
}

#[test]
fn the_followers_of_a_destroyed_unikernel_are_told_all_that_is_left_to_tell() {
    let (mut world, session, instance) = world_with_guest();
    let (quick, slow) = (world.client(), world.client());
    world.host.write(instance, b"text");
    world.run();
    world.stalled.insert(slow, 0);
    world.input(petrel_engine::Input::SessionDrained { session: slow, queued: SESSION_QUEUE_BYTES });
    world.send(quick, 2, console("a", true));
    world.send(slow, 2, console("a", true));
    world.send(slow, 3, console("a", false));
    assert_eq!(world.ask(session, 2, destroy("a")), Response::Destroyed);
    assert_eq!(read(&mut world, quick, 2), "text[signal 9].");
    assert!(world.nothing_for(slow));
    world.unstall(slow);
    let late: Vec<_> = world.inboxes[&slow].iter().map(|m| m.id).collect();
    assert_eq!(late, [2, 3, 2, 2, 3], "what is kept of the dead is read in turn");
    assert_eq!(world.inboxes[&slow][2].response, Response::Ended(ExitStatus::Signal(9)));
}

#[test]
fn a_follower_stays_while_the_link_is_away() {
    let (mut world, session, instance) = world_with_guest();
    world.send(session, 2, console("a", true));
    world.host.write(instance, b"one ");
    world.run();
    world.link_down();
    world.link_up();
    world.host.write(instance, b"early ");
    world.run();
    world.host.write(instance, b"two");
    world.run();
    assert_eq!(read(&mut world, session, 2), "one two");
}

fn asked(unikernel: &str) -> ConsoleAsked {
    ConsoleAsked { name: name(unikernel), follow: false, since: None, tail: None, latest: false }
}

#[test]
fn the_console_of_a_destroyed_unikernel_can_be_read_and_goes_on_with_the_next_of_its_name() {
    let (mut world, session, instance) = world_with_guest();
    world.host.write(instance, b"first\n");
    world.run();
    assert_eq!(world.ask(session, 2, destroy("a")), Response::Destroyed);
    world.send(session, 3, console("a", false));
    assert_eq!(read(&mut world, session, 3), "first\n.");
    world.send(session, 4, console("a", true));
    assert_eq!(read(&mut world, session, 4), "first\n[signal 9].", "nothing more will come of it");
    let image = world.host.spawned[0].image;
    world.create(session, 5, plain("a", image));
    let second = world.instance(1);
    world.send(session, 6, Request::Console(ConsoleAsked { latest: true, follow: true, ..asked("a") }));
    world.host.write(second, b"second\n");
    world.run();
    assert_eq!(read(&mut world, session, 6), "second\n");
    world.send(session, 7, console("a", false));
    assert_eq!(read(&mut world, session, 7), "first\n|second\n.");
}

#[test]
fn of_a_name_that_never_wrote_nothing_is_kept() {
    let (mut world, session, _) = world_with_guest();
    world.send(session, 2, console("a", false));
    assert_eq!(read(&mut world, session, 2), ".");
    assert_eq!(world.ask(session, 3, destroy("a")), Response::Destroyed);
    assert_eq!(world.refused(session, 4, console("a", false)), Refusal::NoSuchUnikernel);
    let nothing = Response::Consoles { page: Default::default(), more: false };
    assert_eq!(world.ask(session, 5, Request::Consoles), nothing);
}

#[test]
fn a_part_of_a_console_is_had_by_lines_and_by_time() {
    let (mut world, session, instance) = world_with_guest();
    let start = world.now.wall_ms;
    for line in ["one\n", "two\n", "three\n"] {
        world.host.write(instance, line.as_bytes());
        world.run();
        world.wait_ms(10_000);
    }
    let mut part = |id, asked| {
        world.send(session, id, Request::Console(asked));
        read(&mut world, session, id)
    };
    assert_eq!(part(2, ConsoleAsked { tail: Some(2), ..asked("a") }), "two\nthree\n.");
    assert_eq!(part(3, ConsoleAsked { since: Some(Since::Ago(10_000)), ..asked("a") }), "three\n.");
    let at = Since::At(start + 5_000);
    assert_eq!(part(4, ConsoleAsked { since: Some(at), ..asked("a") }), "two\nthree\n.");
    assert_eq!(part(5, ConsoleAsked { since: Some(at), tail: Some(1), ..asked("a") }), "three\n.");
    assert_eq!(part(6, ConsoleAsked { since: Some(Since::Ago(0)), ..asked("a") }), ".");
}

/// The names and states of all consoles, as the listing tells them.
fn consoles(world: &mut World, session: petrel_engine::SessionId, id: u32) -> Vec<(String, bool)> {
    world.send(session, id, Request::Consoles);
    let mut all = Vec::new();
    loop {
        let Response::Consoles { page, more } = world.next(session, id) else { panic!("another answer") };
        all.extend(page.iter().map(|entry| (entry.name.to_string(), entry.exists)));
        if !more {
            return all;
        }
    }
}

#[test]
fn the_dead_are_kept_until_others_need_the_room() {
    let mut world = World::with_endless_memory();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    let many = CONSOLES_DEAD_MAX + 3;
    for index in 0..many {
        let unikernel = format!("u{index:04}");
        world.create(session, 1, plain(&unikernel, digest));
        world.host.write(world.instance(index), b"bye\n");
        assert_eq!(world.ask(session, 2, destroy(&unikernel)), Response::Destroyed);
    }
    world.create(session, 1, plain("alive", digest));
    world.host.write(world.instance(many), b"hi\n");
    world.run();
    let all = consoles(&mut world, session, 3);
    assert_eq!(all.len(), CONSOLES_DEAD_MAX + 1);
    assert_eq!(all[0], ("alive".into(), true));
    assert_eq!(all[1], ("u0003".into(), false), "the first three fell out");
    assert_eq!(world.refused(session, 4, console("u0002", false)), Refusal::NoSuchUnikernel);
}

#[test]
fn the_dead_are_bounded_by_their_bytes_and_their_late_readers_are_told() {
    let mut world = World::with_endless_memory();
    let digest = world.host.store(image::build(&Recipe::default()));
    let (session, slow) = (world.client(), world.client());
    let fit = CONSOLES_DEAD_BYTES_MAX / CONSOLE_HISTORY_BYTES;
    for index in 0..=fit {
        let unikernel = format!("u{index:04}");
        world.create(session, 1, plain(&unikernel, digest));
        world.host.write(world.instance(index), &[b'x'; CONSOLE_HISTORY_BYTES]);
        world.run();
        if index == 0 {
            world.stalled.insert(slow, 0);
            world.input(Input::SessionDrained { session: slow, queued: SESSION_QUEUE_BYTES });
            world.send(slow, 9, console(&unikernel, true));
        }
        assert_eq!(world.ask(session, 2, destroy(&unikernel)), Response::Destroyed);
    }
    assert_eq!(consoles(&mut world, session, 3).len(), fit);
    assert_eq!(read(&mut world, slow, 9), format!("({CONSOLE_HISTORY_BYTES}/0)[signal 9]."));
}

#[test]
fn a_follower_that_was_told_of_a_loss_is_told_of_more_of_it() {
    let (mut world, session, instance) = world_with_guest();
    world.host.write(instance, b"one ");
    world.run();
    world.send(session, 2, console("a", true));
    for bytes in [77, 5] {
        world.host.tell(Event::ConsoleLost { instance, bytes, lines: 1 });
        world.run();
    }
    world.host.write(instance, b"two ");
    world.run();
    assert_eq!(read(&mut world, session, 2), "one (77/1)(5/1)two ");
}
