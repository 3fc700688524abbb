//! What an operator sees of a host: events, consoles of the living and the dead, statistics, limits.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command};

use petrel_tests::{Devhost, Ended, image};
use serde_json::Value;

const WEB: &str = "10.99.0.10";

fn create_web(host: &Devhost) {
    let ipv4 = format!("--arg=--ipv4={WEB}/24");
    let _ = host.petrel(&["create", "web", &image("web.hvt"), "--net", "service=service", &ipv4]).ok();
}

fn fetch(host: &Devhost) {
    host.eventually("the page is served", || {
        let fetched = host.run(&["curl", "--silent", "--fail", "--max-time", "5", &format!("http://{WEB}/")]);
        (fetched.code == 0).then_some(())
    });
}

/// The events of a host, as `petrel events` with these arguments tells them.
fn events(host: &Devhost, arguments: &[&str]) -> Vec<Value> {
    let told = host.petrel(&[&["events", "--json"], arguments].concat()).ok();
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

#[test]
fn the_life_of_a_unikernel_is_told_with_who_did_what() {
    let host = Devhost::up();
    let _ = host.petrel(&["create", "acme:hello", &image("hello.hvt"), "--wait"]).ok();
    let _ = host.petrel(&["create", "other", &image("hello.hvt"), "--wait"]).ok();
    let _ = host.petrel(&["destroy", "acme:hello"]).ok();
    let told = events(&host, &["--name", "acme"]);
    assert_eq!(kinds(&told), ["created", "started", "exited", "destroying", "destroyed"]);
    assert_eq!(told[2]["exit_code"], 0, "{told:?}");
    let by_operator: Vec<_> = told.iter().map(|event| event["who"].is_string()).collect();
    assert_eq!(by_operator, [true, true, false, true, true], "{told:?}");
    assert!(told.iter().all(|event| event["about"] == "acme:hello"), "{told:?}");

    let all = events(&host, &[]);
    let sequences: Vec<_> = all.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.is_sorted(), "{all:?}");
    assert_eq!(kinds(&all)[0], "control-plane-started", "{all:?}");
    assert!(kinds(&all).contains(&"shim-connected"), "{all:?}");
    assert!(kinds(&all).contains(&"image-stored"), "{all:?}");
    assert_eq!(events(&host, &["--kind", "exited"]).len(), 2);
    assert_eq!(events(&host, &["--kind", "exited", "--since", "1h", "--limit", "1"])[0]["about"], "other");
    assert_eq!(events(&host, &["--since", "2000-01-01", "--limit", "0"]), Vec::<Value>::new());
    let people = host.petrel(&["events", "--name", "other"]).ok();
    assert!(people.contains("  other: ended: exit 0\n"), "{people}");
    // What the shim's log holds of the control plane is the same.
    assert!(host.shim_log().contains("other: ended: exit 0"), "{}", host.shim_log());
}

#[test]
fn events_are_followed_as_they_happen() {
    let host = Devhost::up();
    let mut follower =
        host.petrel_in_background(&["events", "-f", "--json", "--name", "web", "--limit", "0"]);
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    // It follows when its session has been heard of.
    host.eventually("the follower's session is open", || {
        (events(&host, &["--kind", "session-opened"]).len() >= 3).then_some(())
    });
    create_web(&host);
    for expected in ["created", "started"] {
        let event: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert_eq!(event["kind"], expected, "{event}");
    }
    let _ = host.petrel(&["destroy", "web"]).ok();
    for expected in ["destroying", "exited", "destroyed"] {
        let event: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert_eq!(event["kind"], expected, "{event}");
    }
    end(follower);
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_console_outlives_its_unikernel_and_goes_on_with_the_next_of_its_name() {
    let host = Devhost::up();
    for words in ["first", "second"] {
        let waited = host.petrel(&["create", "hello", &image("hello.hvt"), "--arg", words, "--wait"]).ok();
        assert!(waited.contains(words), "{waited}");
        assert!(words == "first" || !waited.contains("first"), "only its own start is shown: {waited}");
        let _ = host.petrel(&["destroy", "hello"]).ok();
    }
    let read = host.petrel(&["console", "hello"]);
    assert!(read.stderr.contains("hello was started anew"), "{read:?}");
    let console = read.ok();
    let (first, second) = (console.find("argument: first"), console.find("argument: second"));
    assert!(first.is_some() && first < second, "{console}");
    assert_eq!(host.petrel(&["console", "hello", "--tail", "1"]).ok().lines().count(), 1);
    assert_eq!(host.petrel(&["console", "hello", "--since", "1h"]).ok(), console);
    assert_eq!(host.petrel(&["console", "hello", "--since", "2100-01-01"]).ok(), "");
    let latest = host.petrel(&["console", "hello", "--latest"]).ok();
    assert!(latest.contains("second") && !latest.contains("first"), "{latest}");
    let listed = host.json(&["consoles"]);
    assert_eq!((&listed[0]["name"], &listed[0]["exists"]), (&"hello".into(), &false.into()), "{listed}");
    let never = host.petrel(&["console", "never"]).refused(1);
    assert!(never.contains("there is no unikernel \"never\""), "{never}");
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_follower_that_is_too_slow_is_told_how_many_lines_it_missed_and_costs_nobody_else() {
    const LINES: u64 = 400_000;
    let host = Devhost::up();
    let lines = format!("--arg=--lines={LINES}");
    let _ = host.petrel(&["create", "flood", &image("crash.hvt"), &lines, "--arg=--after=3"]).ok();
    let slow = host.petrel_in_background(&["console", "flood", "-f"]);
    signal(&slow, "-STOP");
    let quick = host.petrel(&["console", "flood", "-f"]);
    signal(&slow, "-CONT");
    let slow = slow.wait_with_output().unwrap().into();
    // Both know of all lines that there were, if not all of them.
    let [quick, slow] = [quick, slow].map(|follower: Ended| {
        assert!(follower.stdout.contains("ABORT"), "the end is there");
        let missed =
            follower.stderr.lines().filter_map(|line| line.strip_prefix("petrel: ")?.split_once(" lines ("));
        let missed: u64 = missed.map(|(lines, _)| lines.parse::<u64>().unwrap()).sum();
        (follower.stdout.matches('\n').count() as u64 + missed, missed)
    });
    assert_eq!(quick.0, slow.0);
    assert!(slow.0 >= LINES && slow.1 > 0, "{slow:?}");
}

#[test]
fn while_one_floods_its_console_those_of_others_are_live() {
    const ENDLESS: &str = "--arg=--lines=4000000000";
    let host = Devhost::up();
    let _ = host.petrel(&["create", "flood", &image("crash.hvt"), ENDLESS]).ok();
    // One follows the flood, as fast as it can.
    let mut follower = host.petrel_in_background(&["console", "flood", "-f"]);
    let mut flood = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = |flood: &mut dyn Iterator<Item = String>| flood.next().expect("the flood goes on");
    // The oldest line that is kept has lost its beginning.
    assert!(line(&mut flood).ends_with("4000000000)"));
    for number in 0..5 {
        let words = format!("number-{number}");
        let hello = ["create", "hello", &image("hello.hvt"), "--arg", &words, "--wait"];
        let said = host.petrel(&hello).ok();
        assert!(said.contains(&words), "all that it wrote is there: {said}");
        let kept = host.petrel(&["console", "hello", "--latest"]).ok();
        assert_eq!(kept, said, "{words}");
        let _ = host.petrel(&["destroy", "hello"]).ok();
        line(&mut flood);
    }
    end(follower);
    // It can be seen and ended like any other.
    assert_eq!(host.petrel(&["console", "flood", "--tail", "1"]).ok().lines().count(), 1);
    let _ = host.petrel(&["destroy", "flood"]).ok();
}

#[test]
fn statistics_rise_with_what_is_done() {
    let host = Devhost::up();
    create_web(&host);
    fetch(&host);
    let _ = host.petrel(&["create", "done", &image("hello.hvt"), "--wait"]).ok();
    let sample = || {
        let told = host.json(&["stats", "web"]);
        let net = &told[0]["nets"][0];
        assert_eq!(net["device"], "service", "{told}");
        let number = |value: &Value| value.as_u64().unwrap();
        (
            number(&told[0]["run_ms"]),
            number(&told[0]["cpu_ms"]),
            number(&net["received"]["bytes"]),
            number(&net["sent"]["packets"]),
            number(&told[0]["resident_kib"]),
        )
    };
    let before = sample();
    for _ in 0..50 {
        fetch(&host);
    }
    let after = sample();
    assert!(after.0 > before.0 && after.1 >= before.1, "{before:?} {after:?}");
    assert!(
        after.2 >= before.2 + 50 * 100,
        "each request has a hundred bytes and more: {before:?} {after:?}"
    );
    assert!(after.3 >= before.3 + 50 * 2, "{before:?} {after:?}");
    assert!(after.4 > 0 && after.4 < (32 + 32) * 1024, "{after:?}");
    let all = host.json(&["stats"]);
    assert_eq!(all.as_array().unwrap().len(), 1, "what has ended uses nothing: {all}");
    let refused = host.petrel(&["stats", "done"]).refused(1);
    assert!(refused.contains("does not run"), "{refused}");
    let table = host.petrel(&["stats"]).ok();
    assert!(table.starts_with("NAME") && table.contains("web"), "{table}");
}

#[test]
fn statistics_are_followed_with_rates() {
    let host = Devhost::up();
    create_web(&host);
    fetch(&host);
    let mut follower = host.petrel_in_background(&["stats", "-f", "--interval", "1", "--json"]);
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    let samples: Vec<Value> = lines.take(2).map(|line| serde_json::from_str(&line).unwrap()).collect();
    end(follower);
    assert!(samples[0][0]["rates"].is_null(), "{samples:?}");
    assert!(samples[1][0]["rates"]["cpu_percent"].as_u64().unwrap() <= 110, "{samples:?}");
}

/// The control groups of a process that are Petrel's own.
fn groups(pid: u64) -> Vec<PathBuf> {
    let told = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let ours = told.lines().filter(|line| line.contains("/petrel-"));
    let folders = ours.flat_map(|line| {
        let (controllers, path) = line.split_once(':').unwrap().1.split_once(":/").unwrap();
        let mounts = if controllers.is_empty() { vec!["unified", ""] } else { vec![controllers] };
        mounts.into_iter().map(move |mount| PathBuf::from("/sys/fs/cgroup").join(mount).join(path))
    });
    folders.filter(|folder| folder.exists()).collect()
}

#[test]
fn a_unikernel_is_held_to_its_memory_by_the_kernel() {
    let host = Devhost::up();
    let limits = host.json(&["host"])["limits"].clone();
    if !limits.as_array().unwrap().iter().any(|limit| limit == "memory") {
        assert!(host.petrel(&["host"]).ok().contains("limits"));
        return println!("skipped: this user cannot make control groups for memory here ({limits})");
    }
    create_web(&host);
    let pid = host.json(&["info", "web"])["pid"].as_u64().unwrap();
    let groups = groups(pid);
    let read = |file: &str| groups.iter().find_map(|group| std::fs::read_to_string(group.join(file)).ok());
    let most = read("memory.max").or_else(|| read("memory.limit_in_bytes")).unwrap();
    assert_eq!(most.trim(), ((32 + 32) << 20).to_string());
    fetch(&host);
    let _ = host.petrel(&["destroy", "web"]).ok();
    assert!(!groups.is_empty() && groups.iter().all(|group| !group.exists()), "{groups:?}");
}
