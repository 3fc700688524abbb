//! What is kept running: restarts, start order, updates that go back by themselves, manifests.

use petrel_tests::{Devhost, image, kill_9};
use serde_json::{Value, json};

const WEB: &str = "10.99.0.10";
const PROBE: &str = "http:10.99.0.10:80/";

/// Waits until a unikernel is in a state; returns what is shown of it then.
#[track_caller]
fn until(host: &Devhost, name: &str, state: &str) -> Value {
    host.eventually(&format!("{name} is {state}"), || {
        let info = host.json(&["info", name]);
        (info["state"] == state).then_some(info)
    })
}

fn create_web(host: &Devhost, name: &str, options: &[&str]) {
    let ipv4 = format!("--arg=--ipv4={WEB}/24");
    let web = image("web.hvt");
    let create = ["create", name, &web, "--net", "service=service", &ipv4];
    let _ = host.petrel(&[&create[..], options].concat()).ok();
}

#[track_caller]
fn serves(host: &Devhost) {
    let url = format!("http://{WEB}/");
    host.eventually("the page is served", || {
        (host.run(&["curl", "--silent", "--fail", "--max-time", "5", &url]).code == 0).then_some(())
    });
}

#[test]
fn a_unikernel_that_crashes_again_and_again_is_a_crash_loop_that_can_be_destroyed() {
    let host = Devhost::up();
    let crash = image("crash.hvt");
    let _ = host.petrel(&["create", "crash", &crash, "--arg=--after=0", "--restart", "always"]).ok();
    until(&host, "crash", "backoff");
    let info = until(&host, "crash", "crash-loop");
    assert!(info["restarts"].as_u64().unwrap() >= 5, "{info}");
    assert_eq!(info["last_exit"], "exit 255", "{info}");
    assert!(info["retry_ms"].is_u64(), "{info}");
    let console = host.petrel(&["console", "crash"]).ok();
    assert!(console.matches("going to crash").count() >= 5, "all of its lives are there: {console}");
    let _ = host.petrel(&["destroy", "crash"]).ok();
    assert_eq!(host.json(&["ps"]), json!([]));
    assert!(!host.leavings().iter().any(|left| left.starts_with("run/") && left != "run/0"));
}

#[test]
fn a_policy_may_list_the_exit_codes() {
    let host = Devhost::up();
    let (crash, hello) = (image("crash.hvt"), image("hello.hvt"));
    let after = "--arg=--after=0";
    let _ = host.petrel(&["create", "listed", &crash, after, "--restart-on-fail", "--exit-code", "255"]).ok();
    let _ =
        host.petrel(&["create", "other", &crash, after, "--restart", "on-failure", "--exit-code", "7"]).ok();
    let _ = host.petrel(&["create", "done", &hello, "--restart", "on-failure"]).ok();
    host.eventually("the listed one is started again", || {
        (host.json(&["info", "listed"])["restarts"].as_u64() >= Some(2)).then_some(())
    });
    for (name, exit_code) in [("other", 255), ("done", 0)] {
        let info = until(&host, name, "ended");
        assert_eq!((&info["exit_code"], &info["restarts"]), (&json!(exit_code), &json!(0)), "{info}");
    }
}

#[test]
fn one_is_started_when_the_other_answers_over_http() {
    let host = Devhost::up();
    let _ = host.petrel(&["create", "first", &image("crash.hvt"), "--arg=--after=3600"]).ok();
    create_web(&host, "web", &["--ready", PROBE, "--after", "first"]);
    // It may be ready already; what counts is that the one behind it does not run before.
    let behind = host.json(&["create", "behind", &image("hello.hvt"), "--after", "web"]);
    if behind["state"] == "waiting" {
        assert_eq!(behind["wish"], "running", "{behind}");
    }
    let behind = until(&host, "behind", "ended");
    assert_eq!(behind["exit_code"], 0, "{behind}");
    assert_eq!(host.json(&["info", "web"])["state"], "ready");

    let cycle = host.petrel(&[
        "create",
        "web",
        &image("web.hvt"),
        "--net",
        "service=service",
        "-f",
        "--after",
        "behind",
    ]);
    assert!(cycle.refused(1).contains("would wait for itself"), "the order has no circle");
    let unknown = host.petrel(&["create", "lost", &image("hello.hvt"), "--after", "nobody"]);
    assert!(unknown.refused(1).contains("cannot be started after \"nobody\""));
}

#[test]
fn a_liveness_probe_ends_what_does_not_answer() {
    let host = Devhost::up();
    create_web(
        &host,
        "web",
        &[
            "--alive",
            "tcp:10.99.0.10:81",
            "--alive-every",
            "1",
            "--alive-failures",
            "2",
            "--restart",
            "always",
        ],
    );
    let info = host.eventually("it is killed and started again", || {
        let info = host.json(&["info", "web"]);
        (info["restarts"].as_u64() >= Some(1)).then_some(info)
    });
    assert_eq!(info["last_exit"], "signal 9", "{info}");
}

#[test]
fn an_update_with_an_image_that_crashes_goes_back_and_the_old_one_serves_again() {
    let host = Devhost::up();
    create_web(&host, "web", &["--ready", PROBE]);
    until(&host, "web", "ready");
    serves(&host);

    // One that gets ready is kept.
    let updated = host.json(&["update", "web", "--mem", "48"]);
    assert_eq!((&updated["state"], &updated["generation"]), (&json!("ready"), &json!(2)), "{updated}");

    // One that never gets ready is not: it has another address.
    let arg = "--arg=--ipv4=10.99.0.77/24";
    let refused = host.petrel(&["update", "web", arg, "--window", "3"]).refused(1);
    assert!(refused.contains("generation 3") && refused.contains("was not ready in time"), "{refused}");
    assert!(refused.contains("it is generation 2 again"), "{refused}");
    until(&host, "web", "ready");
    serves(&host);

    // Nor is one that ends, or cannot be this unikernel at all.
    let refused = host.petrel(&["update", "web", "--no-args"]).refused(1);
    assert!(refused.contains("generation 4") && refused.contains("ended (exit 64)"), "{refused}");
    let refused = host.petrel(&["update", "web", &image("crash.hvt")]).refused(1);
    assert!(refused.contains("declares no net device"), "{refused}");
    until(&host, "web", "ready");
    serves(&host);
    let history = host.json(&["history", "web"]);
    let faulty: Vec<_> = history.as_array().unwrap().iter().map(|generation| &generation["faulty"]).collect();
    assert_eq!(faulty, [false, false, true, true], "{history}");
    assert_eq!(history[1]["current"], true, "{history}");

    let back = host.json(&["rollback", "web"]);
    assert_eq!((&back["generation"], &back["memory_mib"]), (&json!(1), &json!(32)), "{back}");
}

#[test]
fn an_update_to_a_crashing_image_goes_back_and_one_that_lives_through_its_window_is_kept() {
    let host = Devhost::up();
    let crash = image("crash.hvt");
    let _ = host.petrel(&["create", "job", &crash, "--arg=--after=3600"]).ok();
    let refused = host.petrel(&["update", "job", "--arg=--after=0", "--window", "20"]).refused(1);
    assert!(refused.contains("ended (exit 255)"), "{refused}");
    let info = host.json(&["info", "job"]);
    assert_eq!((&info["state"], &info["args"]), (&json!("running"), &json!(["--after=3600"])), "{info}");
    let hello = host.petrel(&["update", "job", &image("hello.hvt"), "--window", "20"]).refused(1);
    assert!(hello.contains("ended (exit 0)"), "{hello}");
    let kept = host.json(&["update", "job", "--arg=--after=3000", "--window", "1"]);
    assert_eq!((&kept["state"], &kept["generation"]), (&json!("running"), &json!(4)), "{kept}");
}

#[test]
fn stopped_started_and_restarted_with_other_arguments_it_keeps_its_name_and_address() {
    let host = Devhost::up();
    create_web(&host, "web", &["--restart", "always"]);
    let before = host.json(&["info", "web"]);
    let stopped = host.json(&["stop", "web"]);
    assert_eq!((&stopped["state"], &stopped["wish"]), (&json!("stopped"), &json!("stopped")));
    assert_eq!(host.monitors().len(), 1, "only the control plane's");
    assert_eq!(host.json(&["start", "web"])["state"], "running");
    serves(&host);
    let arg = "--arg=--ipv4=10.99.0.11/24";
    let restarted = host.json(&["restart", "web", arg, "--mem", "40"]);
    assert_eq!((&restarted["generation"], &restarted["memory_mib"]), (&json!(2), &json!(40)));
    let after = host.json(&["info", "web"]);
    assert_eq!(after["nets"], before["nets"], "the same MAC");
    assert_ne!(after["pid"], before["pid"]);
    assert_eq!(after["args"], json!(["--ipv4=10.99.0.11/24"]));
    let refused = host.petrel(&["restart", "web", "--mem", "4000000"]).refused(1);
    assert!(refused.contains("MiB"), "{refused}");
}

#[test]
fn memory_that_others_have_is_refused_with_the_sum() {
    let host = Devhost::up();
    let total = host.json(&["host"])["memory_mib"].as_u64().unwrap();
    let crash = image("crash.hvt");
    let mut given = 0;
    let refused = loop {
        let name = format!("u{given}");
        let created = host.petrel(&["create", &name, &crash, "--arg=--after=3600", "--mem", "4096"]);
        if created.code != 0 {
            break created.refused(1);
        }
        given += 4096;
    };
    let expected = format!("of the host's {total} MiB, {given} MiB are given to others");
    assert!(refused.contains(&expected), "{refused}");
}

fn manifest(unikernels: u32, mem: u32) -> String {
    let mut text = String::new();
    for i in 0..unikernels {
        let after = if i > 0 { format!("after = [\"u{}\"]\n", i - 1) } else { String::new() };
        text += &format!(
            "[unikernel.u{i}]\nimage = {:?}\nmem = {mem}\narg = [\"--after=3600\"]\nrestart = \"always\"\n{after}",
            image("crash.hvt")
        );
    }
    text
}

#[test]
fn a_manifest_is_applied_once_and_a_second_time_changes_nothing() {
    let host = Devhost::up();
    let file = host.folder().join("ten.toml");
    let path = file.display().to_string();
    std::fs::write(&file, manifest(10, 16)).unwrap();

    let planned = host.json(&["apply", &path, "--dry-run"]);
    assert_eq!(planned["changes"].as_array().unwrap().len(), 10, "{planned}");
    assert_eq!(host.json(&["ps"]), json!([]), "a dry run does nothing");
    let _ = host.petrel(&["apply", &path]).ok();
    let listed = host.json(&["ps"]);
    assert_eq!(listed.as_array().unwrap().len(), 10, "{listed}");
    assert!(listed.as_array().unwrap().iter().all(|entry| entry["state"] == "running"), "{listed}");

    let monitors = host.monitors();
    let again = host.json(&["apply", &path]);
    assert_eq!(again, json!({ "changes": [], "unchanged": 10 }));
    assert_eq!(host.monitors(), monitors, "the same processes");
    assert_eq!(host.petrel(&["diff", &path]).ok(), "10 unchanged\n");

    // What differs is shown, and made to be as it shall be; others are left alone unless asked for.
    let _ = host.petrel(&["create", "other", &image("crash.hvt"), "--arg=--after=3600"]).ok();
    let _ = host.petrel(&["stop", "u3"]).ok();
    let _ = host.petrel(&["destroy", "u4"]).ok();
    let _ = host.petrel(&["restart", "u5", "--mem", "24"]).ok();
    let diff = host.petrel(&["diff", &path]).ok();
    for line in ["~ u3: start", "+ u4: create", "~ u5: replace", "    mem: 24 -> 16", "7 unchanged"] {
        assert!(diff.contains(line), "{line:?} is missing in {diff}");
    }
    assert!(!diff.contains("other"), "{diff}");
    let _ = host.petrel(&["apply", &path]).ok();
    assert_eq!(host.json(&["ps"]).as_array().unwrap().len(), 11);
    let pruned = host.json(&["apply", &path, "--prune"]);
    assert_eq!(
        pruned["changes"],
        json!([{ "kind": "unikernel", "name": "other", "action": "destroy", "differences": [] }])
    );
    assert_eq!(host.json(&["diff", &path, "--prune"]), json!({ "changes": [], "unchanged": 10 }));
}

#[test]
fn a_manifest_that_cannot_be_meant_is_refused_before_anything_is_done() {
    let host = Devhost::up();
    let file = host.folder().join("bad.toml");
    let path = file.display().to_string();
    let good = format!("image = {:?}\n", image("crash.hvt"));
    for (text, expected) in [
        ("[unikernel.a\n".to_owned(), "is not well-formed"),
        (format!("[unikernel.a]\n{good}memory = 3\n"), "unknown field `memory`"),
        ("[unikernel.a]\nmem = 3\n".to_owned(), "missing field `image`"),
        (format!("[unikernel.\"a/b\"]\n{good}"), "'/' is not allowed"),
        (format!("[unikernel.a]\n{good}ready = \"ping:10.0.0.1\"\n"), "a wrong field `ready` of \"a\""),
        (format!("[unikernel.a]\n{good}net = [\"service=service\"]\n"), "declares no net device"),
        ("[unikernel.a]\nimage = \"nowhere.hvt\"\n".to_owned(), "there is no file"),
    ] {
        std::fs::write(&file, &text).unwrap();
        let refused = host.petrel(&["apply", &path]).refused(4);
        assert!(refused.contains(expected), "{expected:?} is missing in {refused}");
    }
    assert_eq!(host.json(&["ps"]), json!([]));
}

#[test]
fn after_the_control_plane_was_killed_everything_is_as_it_is_wished_to_be() {
    let host = Devhost::up();
    create_web(&host, "web", &["--ready", PROBE, "--restart", "always"]);
    let crash = image("crash.hvt");
    let _ = host.petrel(&["create", "stays", &crash, "--arg=--after=3600", "--after", "web"]).ok();
    let _ = host.petrel(&["create", "crashes", &crash, "--arg=--after=2", "--restart", "on-failure"]).ok();
    let _ = host.petrel(&["create", "stopped", &crash, "--arg=--after=3600", "--restart", "always"]).ok();
    let _ = host.petrel(&["stop", "stopped"]).ok();
    let _ = host.petrel(&["restart", "stays", "--mem", "24"]).ok();
    until(&host, "web", "ready");
    until(&host, "stays", "running");
    let pid = |name: &str| host.json(&["info", name])["pid"].clone();
    let before = [pid("web"), pid("stays")];

    let first = host.control_plane_pid().unwrap();
    kill_9(first);
    host.eventually("the control plane is back and knows all", || {
        let listed = host.petrel(&["ps", "--json"]);
        let listed: Value = serde_json::from_str(&listed.stdout).ok()?;
        (listed.as_array()?.len() == 4).then_some(())
    });
    assert_ne!(host.control_plane_pid(), Some(first));
    until(&host, "web", "ready");
    assert_eq!([pid("web"), pid("stays")], before, "those that ran go on");
    serves(&host);
    assert_eq!(host.json(&["info", "stopped"])["state"], "stopped");
    let history = host.json(&["history", "stays"]);
    assert_eq!((&history[0]["memory_mib"], &history[1]["current"]), (&json!(32), &json!(true)), "{history}");
    let restarts = || host.json(&["info", "crashes"])["restarts"].as_u64().unwrap();
    host.eventually("the one that crashes is started again", || (restarts() > 0).then_some(()));
}
