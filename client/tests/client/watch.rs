//! What an operator sees of consoles, events and statistics, and what the client asks for.

use petrel_wire::operator::{
    ConsoleAsked, ConsoleBrief, Event, EventsAsked, Flow, Refusal, Request, Response, Since, Storage,
    Traffic, Usage, What, Who,
};
use petrel_wire::{CommonName, ExitStatus, List, Path};
use serde_json::{Value, json};

use crate::peer::{Peer, config, serve};
use crate::site::{Site, failure, stderr, stdout};

/// Runs the client against a host that plays `part` after the greeting.
fn against(arguments: &[&str], part: impl FnOnce(&mut Peer) + Send + 'static) -> std::process::Output {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        part(peer);
    });
    let output = site.petrel(arguments).env("TZ", "UTC").output().unwrap();
    peer.join().unwrap();
    output
}

fn lines(output: &std::process::Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_part_of_a_console_is_asked_for_and_printed_with_its_times_and_breaks() {
    let arguments = ["console", "web", "--since", "90s", "--tail", "3", "--times"];
    let output = against(&arguments, |peer| {
        let (id, request) = peer.read();
        let (since, tail) = (Some(Since::Ago(90_000)), Some(3));
        let name = "web".parse().unwrap();
        assert_eq!(
            request,
            Request::Console(ConsoleAsked { name, follow: false, since, tail, latest: false })
        );
        let data = |text: &str| text.as_bytes().try_into().unwrap();
        peer.write(id, Response::ConsoleMissed { bytes: 300, lines: 12 });
        peer.write(id, Response::Console { wall_ms: 1000, data: data("one\ntw") });
        peer.write(id, Response::Console { wall_ms: 2000, data: data("o\n") });
        peer.write(id, Response::ConsoleBegan { wall_ms: 60_000 });
        peer.write(id, Response::Console { wall_ms: 60_000, data: data("again\n") });
        peer.write(id, Response::ConsoleEnd);
    });
    let expected = "1970-01-01 00:00:01  one\n1970-01-01 00:00:01  two\n1970-01-01 00:01:00  again\n";
    assert_eq!(stdout(&output), expected);
    let said = stderr(&output);
    assert!(said.contains("petrel: 12 lines (300 bytes) of the console are no longer kept"), "{said}");
    assert!(said.contains("petrel: web was started anew, heard from at 1970-01-01 00:01:00"), "{said}");
}

#[test]
fn the_consoles_of_the_dead_are_listed_by_either_name() {
    for arguments in [&["consoles", "--json"][..], &["console", "--list", "--json"]] {
        let output = against(arguments, |peer| {
            let (id, request) = peer.read();
            assert_eq!(request, Request::Consoles);
            for (name, more) in [("alive", true), ("dead", false)] {
                let (exists, arrived_ms) = (more, Some((1000, 2000)));
                let page = vec![ConsoleBrief {
                    name: name.parse().unwrap(),
                    exists,
                    bytes: 5,
                    lines: 1,
                    arrived_ms,
                }];
                peer.write(id, Response::Consoles { page: page.try_into().unwrap(), more });
            }
        });
        let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let of = |name: &str, exists: bool| json!({"name": name, "exists": exists, "bytes": 5, "lines": 1, "first_ms": 1000, "last_ms": 2000});
        assert_eq!(told, json!([of("alive", true), of("dead", false)]));
    }
}

fn exited(sequence: u64) -> Event {
    let who = Who::ControlPlane;
    let what = What::Exited(ExitStatus::Code(3));
    Event { sequence, wall_ms: 3_600_000, who, what, about: "acme:web".parse().unwrap() }
}

#[test]
fn events_are_asked_for_by_all_filters_and_printed_a_line_each() {
    let arguments = [
        "events",
        "--name",
        "acme",
        "--kind",
        "exited",
        "--kind",
        "created",
        "--since",
        "1970-01-01",
        "--limit",
        "9",
    ];
    let output = against(&arguments, |peer| {
        let (id, request) = peer.read();
        let kinds = ["exited", "created"].map(|kind| kind.parse().unwrap()).to_vec().try_into().unwrap();
        let asked = EventsAsked {
            follow: false,
            path: "acme".parse().unwrap(),
            since: Some(Since::At(0)),
            kinds,
            limit: Some(9),
        };
        assert_eq!(request, Request::Events(asked.into()));
        let who = Who::Operator { name: CommonName::lossy("ada"), scope: Path::ROOT };
        let destroyed = Event { who, what: What::Destroyed, ..exited(8) };
        peer.write(id, Response::Events(vec![exited(7), destroyed].try_into().unwrap()));
        peer.write(id, Response::EventsMissed(2));
        peer.write(id, Response::EventsEnd);
    });
    let expected =
        "1970-01-01 01:00:00  acme:web: ended: exit 3\n1970-01-01 01:00:00  acme:web: destroyed, by ada\n";
    assert_eq!(stdout(&output), expected);
    assert_eq!(stderr(&output), "petrel: 2 events are no longer kept\n");
}

#[test]
fn events_as_json_are_one_object_a_line_missed_ones_included() {
    let output = against(&["events", "--json", "--follow"], |peer| {
        let (id, request) = peer.read();
        assert!(matches!(request, Request::Events(asked) if asked.follow));
        peer.write(id, Response::EventsMissed(2));
        peer.write(id, Response::Events(vec![exited(7)].try_into().unwrap()));
        peer.write(id, Response::EventsEnd);
    });
    let told = lines(&output);
    assert_eq!(told[0], json!({"missed": 2}));
    assert_eq!(
        (&told[1]["kind"], &told[1]["exit_code"], &told[1]["who"]),
        (&json!("exited"), &json!(3), &Value::Null)
    );
}

fn usage(name: &str, run_ms: u64) -> Usage {
    let flow = Flow { bytes: run_ms, packets: 1, dropped: 0 };
    let traffic = Traffic { received: flow, sent: flow };
    Usage {
        name: name.parse().unwrap(),
        run_ms,
        cpu_ms: run_ms / 2,
        memory_mib: 32,
        resident_kib: 2048,
        storage: Some(Storage { read_bytes: 0, written_bytes: 0 }),
        nets: vec![("service".parse().unwrap(), traffic)].try_into().unwrap(),
    }
}

fn told(peer: &mut Peer, path: Option<&str>, usages: Vec<Usage>) {
    let (id, request) = peer.read();
    assert_eq!(request, Request::Stats(path.map_or(Path::ROOT, |path| path.parse().unwrap())));
    peer.write(id, Response::Stats { page: List::new(), more: true });
    peer.write(id, Response::Stats { page: usages.try_into().unwrap(), more: false });
}

#[test]
fn statistics_of_several_paths_are_told_once_each() {
    let output = against(&["stats", "acme", "acme:web", "--json"], |peer| {
        told(peer, Some("acme"), vec![usage("acme:db", 1000), usage("acme:web", 1000)]);
        told(peer, Some("acme:web"), vec![usage("acme:web", 1001)]);
    });
    let all: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["acme:db", "acme:web"]);
    assert_eq!(all[0]["rates"], Value::Null);
    assert_eq!(all[0]["nets"][0]["received"], json!({"bytes": 1000, "packets": 1, "dropped": 0}));
}

#[test]
fn statistics_that_are_followed_have_rates_from_the_second_time_on() {
    let output = against(&["stats", "-f", "--interval", "1", "--json"], |peer| {
        told(peer, None, vec![usage("web", 1000)]);
        told(peer, None, vec![usage("web", 3000)]);
    });
    // The host is gone then: that ends it.
    assert_eq!(output.status.code(), Some(3));
    let told = lines(&output);
    assert_eq!(told[0][0]["rates"], Value::Null);
    let rates =
        json!({"cpu_percent": 50, "read": 0, "written": 0, "received": 1000, "sent": 1000, "dropped": 0});
    assert_eq!(told[1][0]["rates"], rates);
}

#[test]
fn one_that_does_not_run_has_no_statistics_and_that_is_said() {
    let site = Site::new();
    let peer = serve(&site.listener, config(&site.seal()), |peer| {
        peer.greet();
        let (id, _) = peer.read();
        peer.write(id, Response::Refused(Refusal::NotRunning));
    });
    let (code, said) = failure(&mut site.petrel(&["stats", "web"]));
    assert!(code == 1 && said.contains("the unikernel \"web\" does not run"), "{said}");
    peer.join().unwrap();
}
