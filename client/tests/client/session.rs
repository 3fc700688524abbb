use petrel::{Error, Session};
use petrel_wire::limits::FRAME_BYTES_MAX;
use petrel_wire::operator::{
    ConsoleAsked, HostInfo, Journal, Refusal, Request, Response, State, Unikernel, Wish,
};
use petrel_wire::{Digest, ExitStatus, List};

use crate::peer::{config, serve};
use crate::site::{Site, failure, stdout};

pub fn unikernel(name: &str, image: Digest) -> Unikernel {
    Unikernel {
        name: name.parse().unwrap(),
        state: State::Running,
        image,
        memory_mib: 32,
        created_ms: 1,
        ended_ms: None,
        wish: Wish::Running,
        generation: 1,
        restarts: 0,
        last_exit: None,
    }
}

/// What is asked of a console that is followed: all that is kept, or what the latest start wrote.
pub fn watched(name: &str, latest: bool) -> ConsoleAsked {
    ConsoleAsked { name: name.parse().unwrap(), follow: true, since: None, tail: None, latest }
}

pub fn host_info() -> HostInfo {
    HostInfo {
        host: "alpha".parse().unwrap(),
        control_plane: [0, 1, 0],
        shim: [0, 1, 0],
        uptime_ms: 61_000,
        cpus: vec![0, 1].try_into().unwrap(),
        memory_mib: 2048,
        memory_used_mib: 64,
        unikernels: 2,
        volumes_mib: None,
        volumes_used_mib: 0,
        bridges: vec!["service".parse().unwrap()].try_into().unwrap(),
        monitors: List::new(),
        limits: List::new(),
        journal: Journal::Kept { epoch: 3, used_bytes: 2048, area_bytes: 8 << 20 },
        address: None,
    }
}

#[test]
fn requests_are_pipelined_and_answers_taken_in_any_order() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        // Both are read before either is answered, and the later is answered first.
        let (host, first) = peer.read();
        let (list, second) = peer.read();
        assert_eq!((first, second), (Request::Host, Request::List));
        peer.write(list, Response::Listed { page: List::new(), more: false });
        peer.write(host, Response::Host(Box::new(host_info())));
        assert_eq!(peer.try_read(), None);
    });
    let mut session = Session::connect(&site.profile()).unwrap();
    let host = session.send(Request::Host).unwrap();
    let list = session.send(Request::List).unwrap();
    assert_eq!(session.receive(host).unwrap(), Response::Host(Box::new(host_info())));
    assert!(matches!(session.receive(list).unwrap(), Response::Listed { more: false, .. }));
    assert_eq!(&*session.welcome().unwrap().host, "alpha");
    drop(session);
    peer.join().unwrap();
}

#[test]
fn a_listing_comes_in_pages_and_is_shown_whole() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, request) = peer.read();
        assert_eq!(request, Request::List);
        for (name, more) in [("a", true), ("b", true), ("c", false)] {
            let page = vec![unikernel(name, Digest([1; 32]))].try_into().unwrap();
            peer.write(id, Response::Listed { page, more });
        }
    });
    let output = site.petrel(&["ps", "--json"]).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = told.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    peer.join().unwrap();
}

#[test]
fn a_refusal_ends_its_request_and_not_the_session() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, _) = peer.read();
        peer.write(id, Response::Refused(Refusal::NoSuchUnikernel));
        let (id, request) = peer.read();
        assert_eq!(request, Request::Host);
        peer.write(id, Response::Host(Box::new(host_info())));
    });
    let mut session = Session::connect(&site.profile()).unwrap();
    let refused = session.request(Request::Destroy("web".parse().unwrap())).unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::NoSuchUnikernel)), "{refused:?}");
    assert!(matches!(session.request(Request::Host).unwrap(), Response::Host(_)));
    peer.join().unwrap();
}

#[test]
fn a_refused_command_names_the_unikernel_and_exits_1() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, _) = peer.read();
        peer.write(id, Response::Refused(Refusal::NoSuchUnikernel));
    });
    let (code, said) = failure(&mut site.petrel(&["destroy", "web"]));
    assert_eq!(code, 1);
    assert!(said.starts_with("petrel: there is no unikernel \"web\": "), "{said}");
    peer.join().unwrap();
}

#[test]
fn a_console_comes_raw_where_the_output_is_no_terminal() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, request) = peer.read();
        assert_eq!(request, Request::Console(watched("web", false)));
        peer.write(id, Response::Console { wall_ms: 0, data: b"\x1b[1mready\n"[..].try_into().unwrap() });
        peer.write(id, Response::ConsoleMissed { bytes: 7, lines: 0 });
        peer.write(id, Response::Console { wall_ms: 0, data: b"\xff\r\n"[..].try_into().unwrap() });
        peer.write(id, Response::Ended(ExitStatus::Code(3)));
        peer.write(id, Response::ConsoleEnd);
    });
    let output = site.petrel(&["console", "web", "-f"]).output().unwrap();
    assert_eq!(output.stdout, b"\x1b[1mready\n\xff\r\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "petrel: 7 bytes of the console are no longer kept\n"
    );
    peer.join().unwrap();
}

#[test]
fn a_host_is_shown_for_people_and_for_programs() {
    let site = Site::new();
    for form in [&["host"][..], &["host", "--json"]] {
        let peer = serve(&site.listener, config(&site.seal()), |peer| {
            peer.greet();
            let (id, _) = peer.read();
            peer.write(id, Response::Host(Box::new(host_info())));
        });
        let shown = stdout(&site.petrel(form).output().unwrap());
        peer.join().unwrap();
        if form.len() == 1 {
            assert!(shown.contains("memory      2048 MiB, 64 MiB of it given to unikernels\n"), "{shown}");
            assert!(shown.contains("cpus        0-1\n") && shown.contains("up          1m\n"), "{shown}");
        } else {
            let told: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(told["memory_used_mib"], 64);
            assert_eq!(told["bridges"][0], "service");
        }
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_left_with_a_reason() {
    let site = Site::new();
    let too_long = 1u32 << 31;
    assert!(too_long as usize > FRAME_BYTES_MAX);
    let cases: [(Vec<u8>, &str); 3] = [
        (too_long.to_le_bytes().to_vec(), "a frame of 2147483648 bytes"),
        (vec![2, 0, 0, 0, 0xff, 0xff], "not one well-formed message"),
        (vec![], "ended early"),
    ];
    for (bytes, expected) in cases {
        let peer = serve(&site.listener, config(&site.seal()), move |peer| {
            peer.greet();
            peer.read();
            peer.write_raw(&bytes);
        });
        let (code, said) = failure(&mut site.petrel(&["ps"]));
        assert_eq!(code, 3, "{said}");
        assert!(said.contains(expected), "{expected:?} is missing in {said}");
        peer.join().unwrap();
    }
}

#[test]
fn an_answer_to_no_question_is_an_error() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        peer.read();
        peer.write(77, Response::Destroyed);
    });
    let (code, said) = failure(&mut site.petrel(&["ps"]));
    assert!(code == 3 && said.contains("an answer to no question"), "{said}");
    peer.join().unwrap();
}
