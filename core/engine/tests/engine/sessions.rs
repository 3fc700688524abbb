//! Hello, versions, numbers of requests, and what the host says of itself.

use petrel_engine::{Input, Peer, SessionId};
use petrel_wire::{
    Blob,
    limits::{PAGE_ENTRIES_MAX, REQUESTS_MAX, SESSIONS_MAX},
    operator::{Hello, Refusal, Request, Response, State, Table},
};

use crate::{
    image::{self, Recipe},
    world::{World, console, create, destroy, hello, info, name, plain},
};

fn refusal(response: Response) -> Refusal {
    match response {
        Response::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_hello_is_answered_with_the_version_and_the_hosts_name() {
    let mut world = World::new();
    let session = world.connect();
    world.send(session, 7, Request::Hello(Hello { oldest: 0, newest: 9 }));
    let Response::Hello(welcome) = world.next(session, 7) else { panic!() };
    assert_eq!((welcome.version, &*welcome.host), (1, "alpha"));
}

#[test]
fn a_client_that_speaks_no_version_of_ours_is_told_which_there_are() {
    for (oldest, newest) in [(2, 9), (0, 0), (1, 0)] {
        let mut world = World::new();
        let session = world.connect();
        world.send(session, 7, Request::Hello(Hello { oldest, newest }));
        let ours = Hello { oldest: 1, newest: 1 };
        assert_eq!(refusal(world.next(session, 7)), Refusal::Version(ours));
        assert!(world.closed.contains(&session));
    }
}

#[test]
fn the_hello_comes_first_and_only_first() {
    let mut world = World::new();
    for first in [Request::Host, Request::Cancel, Request::ImageChunk(Blob::default()), info("a")] {
        let session = world.connect();
        world.unanswered.insert((session, 1), "anything".into());
        world.send_unchecked(session, 1, first);
        assert_eq!(refusal(world.next(session, 1)), Refusal::HelloExpected);
        assert!(world.closed.contains(&session));
    }
    let session = world.client();
    assert_eq!(world.refused(session, 1, hello()), Refusal::HelloExpected);
    assert!(world.closed.contains(&session));
}

#[test]
fn a_frame_that_is_no_message_ends_its_session_only() {
    let mut world = World::new();
    let (bad, good) = (world.client(), world.client());
    world.input(Input::SessionFrame { session: bad, payload: &[42, 0xff, 0xff] });
    assert_eq!(refusal(world.next(bad, 42)), Refusal::Malformed);
    assert!(world.closed.contains(&bad));
    let bad = world.client();
    world.input(Input::SessionFrame { session: bad, payload: &[] });
    assert_eq!(refusal(world.next(bad, 0)), Refusal::Malformed);
    let bad = world.client();
    world.input(Input::SessionFrameTooLong { session: bad, claimed: 1 << 31 });
    assert_eq!(refusal(world.next(bad, 0)), Refusal::FrameTooLong { claimed: 1 << 31 });
    assert!(world.closed.contains(&bad));
    assert!(matches!(world.ask(good, 1, Request::Host), Response::Host(_)));
}

#[test]
fn a_number_of_an_unanswered_request_is_not_used_again() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.send(session, 1, create(plain("a", digest)));
    world.send_unchecked(session, 1, Request::Host);
    assert_eq!(refusal(world.next(session, 1)), Refusal::IdInUse);
    assert!(world.closed.contains(&session));
    // What was asked before is carried out all the same.
    world.run();
    assert_eq!(world.list().len(), 1);
}

#[test]
fn a_chunk_under_the_number_of_another_request_ends_the_session() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.send(session, 1, create(plain("a", digest)));
    world.send_unchecked(session, 1, Request::ImageChunk(Blob::default()));
    assert_eq!(refusal(world.next(session, 1)), Refusal::IdInUse);
    assert!(world.closed.contains(&session));
}

#[test]
fn requests_may_follow_the_hello_at_once_and_each_other() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.connect();
    world.send(session, 1, hello());
    world.send(session, 2, create(plain("a", digest)));
    world.send(session, 3, create(plain("b", digest)));
    world.send(session, 4, Request::Host);
    world.run();
    let answers: Vec<u32> = world.inboxes[&session].iter().map(|message| message.id).collect();
    assert_eq!(answers, [1, 4, 2, 3]);
    assert_eq!(world.unanswered.len(), 0);
}

#[test]
fn one_request_too_many_is_refused_and_the_others_go_on() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    for i in 0..REQUESTS_MAX as u32 {
        world.send(session, i, create(plain(&format!("u{i}"), digest)));
    }
    world.send(session, 99, Request::Host);
    assert_eq!(refusal(world.next(session, 99)), Refusal::Full(Table::Requests));
    world.run();
    assert_eq!(world.list().len(), REQUESTS_MAX);
    assert!(world.unanswered.is_empty());
}

#[test]
fn one_session_too_many_is_closed() {
    let mut world = World::new();
    let sessions: Vec<_> = (0..SESSIONS_MAX).map(|_| world.client()).collect();
    let extra = world.connect();
    assert_eq!(refusal(world.next(extra, 0)), Refusal::Full(Table::Sessions));
    assert!(world.closed.contains(&extra));
    world.disconnect(sessions[0]);
    world.client();
}

#[test]
fn a_session_number_that_is_used_again_gets_nothing_meant_for_the_one_before() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.send(session, 1, create(plain("a", digest)));
    world.disconnect(session);
    let peer = Peer { name: "bob".into(), chain: crate::chain::plain().to_vec() };
    world.inboxes.insert(session, Default::default());
    world.input(Input::SessionOpened { session, peer });
    world.send(session, 0, hello());
    world.send(session, 1, create(plain("b", digest)));
    world.run();
    assert!(matches!(world.next(session, 0), Response::Hello(_)));
    assert!(matches!(world.next(session, 1), Response::Created(unikernel) if unikernel.name == name("b")));
    assert!(world.nothing_for(session));
    assert!(world.list().iter().all(|unikernel| unikernel.state == State::Running));
}

#[test]
fn inputs_of_unknown_sessions_do_nothing() {
    let mut world = World::new();
    let session = SessionId(77);
    world.input(Input::SessionFrame { session, payload: &[1, 2, 3] });
    world.input(Input::SessionFrameTooLong { session, claimed: 9 });
    world.input(Input::SessionDrained { session, queued: 0 });
    world.input(Input::SessionClosed { session });
    assert!(world.inboxes.is_empty() && world.closed.is_empty());
}

#[test]
fn the_host_tells_what_it_is_and_what_is_used() {
    let mut world = World::new();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    world.create(session, 1, plain("a", digest));
    world.wait_ms(1500);
    let Response::Host(host) = world.ask(session, 2, Request::Host) else { panic!() };
    assert_eq!((&*host.host, host.control_plane, host.shim), ("alpha", [0, 1, 0], [0, 1, 0]));
    assert_eq!((host.memory_mib, host.memory_used_mib, host.unikernels), (2048, 32, 1));
    assert_eq!((host.uptime_ms, &*host.cpus, host.bridges.len()), (1500, &[0, 1][..], 2));
    assert_eq!(host.monitors.len(), 3);
}

#[test]
fn a_listing_comes_in_the_order_of_names_and_in_pages() {
    let mut world = World::with_endless_memory();
    let digest = world.host.store(image::build(&Recipe::default()));
    let session = world.client();
    for i in (0..2 * PAGE_ENTRIES_MAX as u32).rev() {
        world.create(session, i + 1, plain(&format!("u{i:04}"), digest));
    }
    world.send(session, 9999, Request::List);
    let pages: Vec<(usize, bool)> = world.inboxes[&session]
        .iter()
        .map(|message| match &message.response {
            Response::Listed { page, more } => (page.len(), *more),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pages, [(PAGE_ENTRIES_MAX, true), (PAGE_ENTRIES_MAX, false)]);
    let names: Vec<_> = world.list().into_iter().map(|unikernel| unikernel.name).collect();
    assert!(names.is_sorted() && names.len() == 2 * PAGE_ENTRIES_MAX);
}

#[test]
fn a_name_that_is_not_there_is_refused() {
    let mut world = World::new();
    let session = world.client();
    for (id, request) in [(1, info("a")), (2, console("a", true)), (3, destroy("a"))] {
        assert_eq!(world.refused(session, id, request), Refusal::NoSuchUnikernel);
    }
}

#[test]
fn a_unikernels_info_holds_all_that_was_asked_for() {
    let mut world = World::new();
    let recipe = Recipe { devices: &[("net0", image::NET), ("disk", image::BLOCK)], ..Recipe::default() };
    let digest = world.host.store(image::build(&recipe));
    let session = world.client();
    let mut wanted = crate::world::networked("a:b", digest, &["net0"]);
    let block =
        petrel_wire::operator::Block { device: "disk".parse().unwrap(), volume: "data".parse().unwrap() };
    wanted.blocks.push(block.clone()).unwrap();
    wanted.args.push(Blob::try_from(&b"--ipv4=10.0.0.3/24"[..]).unwrap()).unwrap();
    wanted.cpus = vec![1, 0, 1].try_into().unwrap();
    let brief = world.create(session, 1, wanted);
    assert_eq!((brief.name, brief.state, brief.memory_mib), (name("a:b"), State::Running, 32));
    assert_eq!((brief.created_ms, brief.ended_ms), (1_700_000_000_000, None));
    let Response::Info(info) = world.ask(session, 2, info("a:b")) else { panic!() };
    assert_eq!((info.pid, &*info.monitor), (1000, "petrel-tender"));
    assert_eq!((&*info.cpus, &*info.blocks), (&[0, 1][..], &[block][..]));
    assert_eq!(&*info.args[0], b"--ipv4=10.0.0.3/24");
    let spawned = &world.host.spawned[0];
    assert_eq!(info.nets[0].1, spawned.nets[0].mac);
    assert_eq!(info.nets[0].1.0[..3], [0x00, 0x80, 0x41]);
    assert_eq!((spawned.memory_mib, &*spawned.cpus, &spawned.args), (32, &[0, 1][..], &info.args));
}
