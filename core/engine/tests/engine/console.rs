//! Consoles: history, following, and readers that are slow.

use petrel_wire::{
    ExitStatus,
    limits::{CONSOLE_HISTORY_BYTES, SESSION_QUEUE_BYTES},
    operator::{Request, Response},
    shim::{Event, InstanceId},
};

use crate::{
    image::{self, Recipe},
    world::{World, console, create, destroy, plain},
};

fn world_with_guest() -> (World, petrel_engine::SessionId, InstanceId) {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    let instance = world.instance(0);
    (world, session, instance)
}

/// What a client has got of a console: its text with `(n)` for n missed bytes, and what came at the end.
fn read(world: &mut World, session: petrel_engine::SessionId, id: u32) -> String {
    let mut text = String::new();
    while !world.nothing_for(session) {
        match world.next(session, id) {
            Response::Console(bytes) => text.push_str(core::str::from_utf8(&bytes).unwrap()),
            Response::ConsoleMissed(bytes) => text.push_str(&format!("({bytes})")),
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
    assert!(text.starts_with("(5)xxx") && text.ends_with("xxx12345."));
    assert_eq!(text.len(), "(5)".len() + CONSOLE_HISTORY_BYTES + ".".len());
}

#[test]
fn bytes_that_the_shim_had_to_drop_are_counted_where_they_were() {
    let (mut world, session, instance) = world_with_guest();
    world.host.write(instance, b"before ");
    world.host.tell(Event::ConsoleLost { instance, bytes: 77 });
    world.host.write(instance, b" after");
    world.run();
    world.send(session, 2, console("a", false));
    assert_eq!(read(&mut world, session, 2), "before (77) after.");
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
        let line = [b'a' + u8::try_from(i % 26).unwrap(); 1024];
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
    assert!(rest.starts_with(&format!("({missed})")), "{}", &rest[..20]);
    assert_eq!(rest.len(), format!("({missed})").len() + CONSOLE_HISTORY_BYTES);
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
        Response::Console(bytes) => bytes.len(),
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
    let late: Vec<_> = world.inboxes[&slow].iter().map(|m| (m.id, m.response.clone())).collect();
    let expected = [
        (2, Response::ConsoleMissed(4)),
        (2, Response::Ended(ExitStatus::Signal(9))),
        (2, Response::ConsoleEnd),
        (3, Response::ConsoleMissed(4)),
        (3, Response::ConsoleEnd),
    ];
    assert_eq!(late, expected);
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
