//! What happened and who did it: in order, filtered, followed, bounded.

use petrel_engine::{Input, SessionId};
use petrel_wire::{
    ExitStatus, Path,
    limits::{EVENTS_MAX, EVENTS_OF_SESSIONS_MAX, SESSION_QUEUE_BYTES},
    operator::{
        Change, Event, EventsAsked, ImageRequest, Refusal, Request, Response, RestartWhen, Since,
        VolumeRequest, VolumeResponse, What, Who,
    },
    shim::{Fault, Op, VolumeOp},
};

use crate::{
    image::{self, Recipe},
    policy::{below, memory, set, world},
    restart::{restart, restarted, start, stop},
    volumes,
    world::{World, create, destroy, hello, plain},
};

fn events(asked: EventsAsked) -> Request {
    Request::Events(asked.into())
}

/// What a client has got of a stream: the kinds with what they are about, `(n)` for n missed ones, `.` at the end.
fn read(world: &mut World, session: SessionId, id: u32) -> Vec<String> {
    let mut told = Vec::new();
    while !world.nothing_for(session) {
        match world.next(session, id) {
            Response::Events(page) => told.extend(page.iter().map(short)),
            Response::EventsMissed(count) => told.push(format!("({count})")),
            Response::EventsEnd => told.push(".".into()),
            other => panic!("{other:?}"),
        }
    }
    told
}

fn short(event: &Event) -> String {
    let about = if event.about.is_root() { String::new() } else { format!("{} ", event.about) };
    format!("{about}{}", event.what.kind())
}

fn ask(world: &mut World, session: SessionId, id: u32, asked: EventsAsked) -> Vec<String> {
    world.send(session, id, events(asked));
    read(world, session, id)
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn kinds(kinds: &[&str]) -> EventsAsked {
    let kinds: Vec<_> = kinds.iter().map(|kind| kind.parse().unwrap()).collect();
    EventsAsked { kinds: kinds.try_into().unwrap(), ..EventsAsked::default() }
}

#[test]
fn the_life_of_a_unikernel_is_told_in_order_with_who_did_it() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    world.host.end(world.instance(0), ExitStatus::Code(3));
    world.run();
    world.ask(session, 2, destroy("a"));
    world.send(session, 3, events(EventsAsked::default()));
    let Response::Events(told) = world.next(session, 3) else { panic!("no events") };
    world.expect(session, 3, |response| *response == Response::EventsEnd);
    let told: Vec<_> = told.into_vec().into_iter().collect();
    assert!(told.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence));
    let what: Vec<_> = told.iter().map(|event| event.what.clone()).collect();
    let expected = [
        What::ControlPlaneStarted([0, 1, 0]),
        What::ShimConnected([0, 1, 0]),
        What::SessionOpened,
        What::Created(digest),
        What::Started(1000),
        What::Exited(ExitStatus::Code(3)),
        What::Destroying,
        What::Destroyed,
    ];
    assert_eq!(what, expected);
    let by_alice: Vec<_> = told.iter().map(|event| event.who != Who::ControlPlane).collect();
    assert_eq!(by_alice, [false, false, true, true, true, false, true, true]);
    assert_eq!(told[3].who.to_string(), "alice");
    assert_eq!(told[3].about, path("a"));
}

#[test]
fn what_is_done_to_volumes_and_images_is_told() {
    let (mut world, session) = volumes::given_no_volumes();
    world.ask(session, 1, volumes::make("made", 4096));
    volumes::push_whole(&mut world, session, 2, "made", &[7; 4096]);
    world.ask(session, 3, volumes::snapshot("made", "copy"));
    world.ask(session, 4, volumes::resize("copy", 8192));
    world.ask(session, 5, volumes::remove("copy"));
    world.host.faults.push((|op| matches!(op, Op::Volume(VolumeOp::Create { .. })), Fault::Os { errno: 28 }));
    world.ask(session, 6, volumes::make("none", 4096));
    let image = image::build(&Recipe::default());
    world.push(session, 7, &image);
    world.ask(session, 8, Request::Image(ImageRequest::Remove(image::digest(&image))));
    let told = ask(&mut world, session, 9, EventsAsked::default());
    let expected = [
        "made volume-created",
        "made volume-pushed",
        "copy volume-copied",
        "copy volume-resized",
        "copy volume-removed",
        "none volume-failed",
        "image-stored",
        "image-removed",
        ".",
    ];
    assert!(told.ends_with(&expected.map(String::from)), "{told:?}");
}

#[test]
fn each_event_is_a_line_of_the_log() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    let line = format!("a: created from {digest:?}, by alice");
    assert_eq!(world.log.iter().filter(|(_, logged)| *logged == line).count(), 1, "{:?}", world.log);
}

#[test]
fn what_could_not_be_done_is_told_too() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.host.faults.push((|op| matches!(op, Op::Spawn(_)), Fault::Os { errno: 12 }));
    world.ask(session, 1, create(plain("a", digest)));
    world.create(session, 2, plain("b", digest));
    world.host.faults.push((|op| matches!(op, Op::Kill(_)), Fault::Os { errno: 1 }));
    world.ask(session, 3, destroy("b"));
    let told = ask(&mut world, session, 4, kinds(&["create-failed", "end-failed"]));
    assert_eq!(told, ["a create-failed", "b end-failed", "."]);
}

#[test]
fn events_are_had_by_name_kind_time_and_number() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    for unikernel in ["acme:web", "acme-x", "other"] {
        world.create(session, 1, plain(unikernel, digest));
        world.wait_ms(10_000);
    }
    let acme = EventsAsked { path: path("acme"), ..EventsAsked::default() };
    assert_eq!(ask(&mut world, session, 2, acme), ["acme:web created", "acme:web started", "."]);
    let created = ["acme:web created", "acme-x created", "other created", "."];
    assert_eq!(ask(&mut world, session, 3, kinds(&["created"])), created);
    let since = EventsAsked { since: Some(Since::Ago(20_000)), ..kinds(&["created"]) };
    assert_eq!(ask(&mut world, session, 4, since), created[1..]);
    let last = EventsAsked { limit: Some(1), ..kinds(&["created"]) };
    assert_eq!(ask(&mut world, session, 5, last), created[2..]);
    let none = EventsAsked { limit: Some(0), ..EventsAsked::default() };
    assert_eq!(ask(&mut world, session, 6, none), ["."]);
    assert_eq!(ask(&mut world, session, 7, kinds(&["no-such-kind"])), ["."]);
}

#[test]
fn a_follower_is_told_what_happens_as_it_happens() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let (session, follower) = (world.client(), world.client());
    let asked = EventsAsked { follow: true, limit: Some(0), path: path("a"), ..EventsAsked::default() };
    world.send(follower, 1, events(asked));
    assert!(world.nothing_for(follower));
    world.create(session, 1, plain("b", digest));
    world.create(session, 2, plain("a", digest));
    assert_eq!(read(&mut world, follower, 1), ["a created", "a started"]);
    world.link_down();
    world.link_up();
    world.host.end(world.instance(1), ExitStatus::Code(0));
    world.run();
    assert_eq!(read(&mut world, follower, 1), ["a exited"]);
    world.send(follower, 1, Request::Cancel);
    world.ask(session, 3, destroy("a"));
    assert!(world.nothing_for(follower));
}

#[test]
fn a_slow_follower_is_told_how_many_it_missed() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let (session, slow) = (world.client(), world.client());
    world.send(slow, 1, events(EventsAsked { follow: true, limit: Some(0), ..EventsAsked::default() }));
    world.stalled.insert(slow, 0);
    world.input(Input::SessionDrained { session: slow, queued: SESSION_QUEUE_BYTES });
    let rounds = EVENTS_MAX / 5 + 10;
    for _ in 0..rounds {
        world.create(session, 1, plain("a", digest));
        world.ask(session, 2, destroy("a"));
    }
    assert!(world.nothing_for(slow));
    world.unstall(slow);
    let told = read(&mut world, slow, 1);
    assert_eq!(told[0], format!("({})", 5 * rounds - EVENTS_MAX));
    assert_eq!(told.len(), 1 + EVENTS_MAX);
    assert_eq!(told.last().unwrap(), "a destroyed");
}

#[test]
fn a_history_that_falls_out_while_it_is_read_is_missed_too() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let (session, slow) = (world.client(), world.client());
    world.create(session, 1, plain("early", digest));
    world.stalled.insert(slow, 0);
    world.input(Input::SessionDrained { session: slow, queued: SESSION_QUEUE_BYTES });
    world.send(slow, 1, events(EventsAsked { path: path("early"), ..EventsAsked::default() }));
    for _ in 0..EVENTS_MAX / 5 + 10 {
        world.create(session, 1, plain("a", digest));
        world.ask(session, 2, destroy("a"));
    }
    world.unstall(slow);
    assert_eq!(
        read(&mut world, slow, 1),
        ["(2)", "."],
        "created, started; the others are not what it asked for"
    );
}

#[test]
fn visitors_push_out_visitors_only() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    for _ in 0..EVENTS_MAX {
        let visitor = world.connect();
        world.disconnect(visitor);
    }
    let expected = ["control-plane-started", "shim-connected", "a created", "a started"];
    let all = ask(&mut world, session, 2, EventsAsked::default());
    assert_eq!(all[..4], expected);
    assert_eq!(all.len(), expected.len() + EVENTS_OF_SESSIONS_MAX + 1);
}

#[test]
fn a_client_that_does_not_keep_to_the_protocol_is_told_of() {
    let mut world = World::new();
    let (session, rude) = (world.client(), world.client());
    world.lenient = true;
    world.send_unchecked(rude, 1, hello());
    let told = ask(&mut world, session, 1, kinds(&["session-refused"]));
    assert_eq!(told, ["session-refused", "."]);
}

#[test]
fn events_are_there_after_a_crash_and_go_on_from_their_number() {
    let mut world = World::with_disk(1 << 20);
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    // What is only history goes to the disk within a second.
    world.wait_ms(1000);
    world.restart();
    world.run();
    let session = world.client();
    world.ask(session, 2, destroy("a"));
    world.send(session, 3, events(EventsAsked::default()));
    let Response::Events(told) = world.next(session, 3) else { panic!("no events") };
    let told = told.into_vec();
    assert!(told.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence), "{told:?}");
    let short: Vec<_> = told.iter().map(short).collect();
    let start = ["control-plane-started", "shim-connected", "session-opened"];
    let expected =
        [&start[..], &["a created", "a started"], &start, &["a destroying", "a exited", "a destroyed"]];
    assert_eq!(short, expected.concat());
}

#[test]
fn a_small_disk_keeps_the_latest_events_and_has_room_for_what_counts() {
    let mut world = World::with_disk(128 * 1024);
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    for _ in 0..EVENTS_MAX {
        world.create(session, 1, plain("a", digest));
        assert_eq!(world.ask(session, 2, destroy("a")), Response::Destroyed);
    }
    world.create(session, 1, plain("last", digest));
    world.wait_ms(1000);
    world.restart();
    world.run();
    let session = world.client();
    let told = ask(&mut world, session, 3, EventsAsked { path: path("last"), ..EventsAsked::default() });
    assert_eq!(told, ["last created", "last started", "."]);
    let all = ask(&mut world, session, 4, kinds(&["destroyed"])).len();
    assert!(all > 20 && all < EVENTS_MAX, "{all}");
}

#[test]
fn a_journal_that_fails_is_told_of() {
    let mut world = World::with_disk(1 << 20);
    let (session, follower) = (world.client(), world.client());
    world.send(follower, 1, events(EventsAsked { follow: true, ..kinds(&["journal-failed"]) }));
    world.input(Input::StateFailed);
    // It is told with the next input: there may be nothing to tell it with at this one.
    world.input(Input::SessionDrained { session, queued: 0 });
    world.input(Input::SessionDrained { session: follower, queued: 0 });
    assert_eq!(read(&mut world, follower, 1), ["journal-failed"]);
}

#[test]
fn what_is_kept_running_tells_of_itself_and_of_whoever_changed_it() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, restarted(RestartWhen::OnFailure, &[], plain("a", digest)));
    world.host.end(world.running("a"), ExitStatus::Code(2));
    world.sleep_ms(1000);
    world.ask(session, 2, stop("a"));
    world.ask(session, 3, start("a"));
    let change = Change { memory_mib: Some(48), ..Change::default() };
    world.ask(session, 4, restart("a", change));
    world.send(session, 5, events(EventsAsked { path: path("a"), ..EventsAsked::default() }));
    let mut told = Vec::new();
    while let Response::Events(page) = world.next(session, 5) {
        told.extend(page.into_vec());
    }
    let by_alice = |event: &Event| if event.who == Who::ControlPlane { "" } else { ", by alice" };
    let told: Vec<_> = told.iter().map(|event| format!("{}{}", event.what.kind(), by_alice(event))).collect();
    let expected = [
        "created, by alice",
        "started, by alice",
        "exited",
        "back-off",
        "started",
        "stopping, by alice",
        "exited",
        "stopped, by alice",
        "starting, by alice",
        "started, by alice",
        "updating, by alice",
        "exited",
        "started, by alice",
        "updated",
    ];
    assert_eq!(told, expected);
}

/// All events that a session may see.
fn all(world: &mut World, session: SessionId, id: u32) -> Vec<Event> {
    world.send(session, id, events(EventsAsked::default()));
    let mut told = Vec::new();
    while let Response::Events(page) = world.next(session, id) {
        told.extend(page.into_vec());
    }
    told
}

#[test]
fn a_session_sees_what_is_about_its_scope_and_calls_it_as_it_is_called_there() {
    let (mut world, digest, root) = world();
    let acme = world.client_as(&below(&["acme"]));
    world.create(root, 1, plain("acme:web", digest));
    world.create(root, 2, plain("acmes", digest));
    world.create(acme, 1, plain("api", digest));
    let seen: Vec<_> = all(&mut world, acme, 2).iter().map(short).collect();
    let own = ["web created", "web started", "api created", "api started"];
    assert_eq!(
        seen,
        [&["session-opened"][..], &own].concat(),
        "of the host itself nothing but its own visits"
    );
    let of_web = ask(&mut world, acme, 3, EventsAsked { path: path("web"), ..EventsAsked::default() });
    assert_eq!(of_web, ["web created", "web started", "."]);
    let told = all(&mut world, root, 3);
    let of_api = told.iter().find(|event| event.about == path("acme:api")).unwrap();
    assert_eq!(of_api.who.to_string(), "alice of acme");
    assert!(told.iter().any(|event| event.what.kind() == "shim-connected"));
}

#[test]
fn policies_and_revocations_are_told_with_their_paths() {
    let (mut world, _, root) = world();
    let acme = world.client_as(&below(&["acme"]));
    world.ask(root, 1, set("acme", memory(100)));
    world.ask(root, 2, set("other", memory(100)));
    let told = ask(&mut world, root, 3, kinds(&["policy-set"]));
    assert_eq!(told, ["acme policy-set", "other policy-set", "."]);
    assert_eq!(
        ask(&mut world, acme, 1, kinds(&["policy-set"])),
        ["policy-set", "."],
        "its own path has no name there"
    );
}

#[test]
fn consoles_and_statistics_are_those_of_the_scope() {
    let (mut world, digest, root) = world();
    let acme = world.client_as(&below(&["acme"]));
    for (id, unikernel) in [(1, "acme:web"), (2, "acmes")] {
        world.create(root, id, plain(unikernel, digest));
        world.host.write(world.instance(id as usize - 1), b"hi\n");
    }
    world.run();
    let Response::Consoles { page, more: false } = world.ask(acme, 1, Request::Consoles) else { panic!() };
    assert_eq!(page.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["web"]);
    let Response::Stats { page, more: false } = world.ask(acme, 2, Request::Stats(Path::ROOT)) else {
        panic!()
    };
    assert_eq!(page.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn what_is_called_as_a_scope_is_called_belongs_to_the_place_above() {
    let (mut world, digest, root) = world();
    let acme = world.client_as(&below(&["acme"]));
    world.create(root, 1, plain("acme", digest));
    world.ask(root, 2, volumes::make("acme", volumes::MIB));
    world.host.write(world.instance(0), b"hi\n");
    world.run();
    let consoles = Response::Consoles { page: Default::default(), more: false };
    assert_eq!(world.ask(acme, 1, Request::Consoles), consoles);
    let stats = Response::Stats { page: Default::default(), more: false };
    assert_eq!(world.ask(acme, 2, Request::Stats(Path::ROOT)), stats);
    let listed = VolumeResponse::Listed { page: Default::default(), more: false };
    assert_eq!(world.ask(acme, 3, Request::Volume(VolumeRequest::List)), Response::Volume(listed));
    let pull = Request::Image(ImageRequest::Pull(digest));
    assert_eq!(world.refused(acme, 4, pull), Refusal::NoSuchImage);
    assert_eq!(ask(&mut world, acme, 5, EventsAsked::default()), ["session-opened", "."]);
    assert_eq!(
        ask(&mut world, root, 3, EventsAsked { path: path("acme"), ..EventsAsked::default() }),
        ["acme created", "acme started", "acme volume-created", "."]
    );
}
