//! What a crash of the trusted parts costs: nothing that runs.

use petrel_tests::{Devhost, image, kill_9};

fn running(host: &Devhost) -> Vec<(String, u64)> {
    let listed = host.json(&["ps"]);
    let names = listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned());
    names.map(|name| (name.clone(), host.json(&["info", &name])["pid"].as_u64().unwrap())).collect()
}

fn given_two_webs() -> (Devhost, Vec<(String, u64)>) {
    let host = Devhost::up();
    for (name, address) in [("one", "10.99.0.10/24"), ("two", "10.99.0.11/24")] {
        let ipv4 = format!("--arg=--ipv4={address}");
        let _ = host.petrel(&["create", name, &image("web.hvt"), "--net", "service=service", &ipv4]).ok();
    }
    let before = running(&host);
    assert_eq!(before.len(), 2);
    (host, before)
}

fn both_serve(host: &Devhost) {
    for address in ["10.99.0.10", "10.99.0.11"] {
        let url = format!("http://{address}/");
        host.eventually("the page is served", || {
            (host.run(&["curl", "--silent", "--fail", "--max-time", "5", &url]).code == 0).then_some(())
        });
    }
}

/// Asks until the control plane answers with both unikernels: while it comes back it may know none yet.
fn both_are_listed_again(host: &Devhost, before: &[(String, u64)]) {
    host.eventually("`petrel ps` shows both again", || {
        let listed = host.petrel(&["ps", "--json"]);
        let there = listed.code == 0 && before.iter().all(|(name, _)| listed.stdout.contains(name.as_str()));
        there.then_some(())
    });
    assert_eq!(running(host), before, "the same processes, and no others");
}

#[test]
fn the_control_plane_killed_comes_back_and_knows_what_runs() {
    let (host, before) = given_two_webs();
    let first = host.control_plane_pid().unwrap();
    kill_9(first);
    host.eventually("the shim brings the control plane back", || {
        host.control_plane_pid().filter(|pid| *pid != first)
    });
    both_are_listed_again(&host, &before);
    both_serve(&host);
    let _ = host.petrel(&["destroy", "one"]).ok();
    assert_eq!(running(&host), before[1..], "an adopted unikernel is destroyed like any other");
}

#[test]
fn the_shim_killed_comes_back_and_adopts_what_runs() {
    let (host, before) = given_two_webs();
    let control_plane = host.control_plane_pid();
    kill_9(host.shim_pid());
    both_serve(&host);
    host.restart_shim();
    both_are_listed_again(&host, &before);
    host.eventually("the link to the shim is back", || (host.petrel(&["host"]).code == 0).then_some(()));
    assert_eq!(host.control_plane_pid(), control_plane, "the control plane is adopted as well");
    both_serve(&host);
    let _ = host.petrel(&["destroy", "one"]).ok();
    let _ = host.petrel(&["create", "one", &image("hello.hvt"), "--wait"]).ok();
}

#[test]
fn both_killed_come_back() {
    let (host, before) = given_two_webs();
    kill_9(host.shim_pid());
    kill_9(host.control_plane_pid().unwrap());
    host.restart_shim();
    both_are_listed_again(&host, &before);
    both_serve(&host);
}
