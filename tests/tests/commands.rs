//! Every command of the client, on a whole host, as an operator types it.

use petrel_tests::{Devhost, PATIENCE, image};
use std::io::{BufRead, BufReader};
use std::time::Instant;

/// Where the unikernels of these tests serve; the host's bridge has 10.99.0.1.
const WEB: &str = "10.99.0.10";
const SECOND_WEB: &str = "10.99.0.11";

fn create_web(host: &Devhost, name: &str, address: &str) {
    let ipv4 = format!("--arg=--ipv4={address}/24");
    let _ = host.petrel(&["create", name, &image("web.hvt"), "--net", "service=service", &ipv4]).ok();
}

fn page(host: &Devhost, address: &str) -> String {
    let url = format!("http://{address}/");
    host.eventually("the page is served", || {
        let fetched = host.run(&["curl", "--silent", "--fail", "--max-time", "5", &url]);
        (fetched.code == 0).then_some(fetched.stdout)
    })
}

#[test]
fn host_tells_what_there_is_to_work_with() {
    let host = Devhost::up();
    let told = host.json(&["host"]);
    assert!(told["memory_mib"].as_u64().unwrap() > 0, "{told}");
    assert!(!told["cpus"].as_array().unwrap().is_empty(), "{told}");
    assert_eq!(told["bridges"], serde_json::json!(["service"]), "{told}");
    assert_eq!(told["monitors"][0]["name"], "petrel-tender", "{told}");
    assert_eq!(told["unikernels"], 0, "{told}");
    let text = host.petrel(&["host"]).ok();
    assert!(text.contains("service") && text.contains("petrel-tender"), "{text}");
}

#[test]
fn a_unikernel_is_created_seen_read_and_destroyed() {
    let host = Devhost::up();
    let _ = host.petrel(&["create", "acme:hello", &image("hello.hvt"), "--arg", "world", "--mem", "16"]).ok();

    let info = host.eventually("hello ends", || {
        let info = host.json(&["info", "acme:hello"]);
        (info["state"] == "ended").then_some(info)
    });
    assert_eq!(info["exit_code"], 0, "{info}");
    assert_eq!(info["memory_mib"], 16, "{info}");
    assert_eq!(info["backend"], host.json(&["host"])["monitors"][0]["backend"], "{info}");
    assert_eq!(info["args"], serde_json::json!(["world"]), "{info}");
    let listed = host.json(&["ps"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["name"], "acme:hello", "{listed}");
    assert!(host.petrel(&["ps"]).ok().contains("acme:hello"));

    let console = host.petrel(&["console", "acme:hello"]).ok();
    assert!(console.contains("world"), "{console}");

    let _ = host.petrel(&["destroy", "acme:hello"]).ok();
    assert_eq!(host.json(&["ps"]), serde_json::json!([]));
    let left = host.leavings();
    assert!(
        left.iter().all(|what| what.starts_with("images/") || what == "monitor 0" || what == "run/0"),
        "{left:?}"
    );
}

#[test]
fn create_wait_shows_the_console_and_ends_as_the_unikernel_did() {
    let host = Devhost::up();
    let hello = host.petrel(&["create", "hello", &image("hello.hvt"), "--arg", "you", "--wait"]).ok();
    assert!(hello.contains("you"), "{hello}");
    let crash = host.petrel(&["create", "crash", &image("crash.hvt"), "--arg=--after=0", "--wait"]);
    assert_eq!(crash.code, 255, "{crash:?}");
    assert!(crash.stdout.contains("ABORT"), "{crash:?}");
}

#[test]
fn an_image_that_the_host_has_is_named_by_its_digest() {
    let host = Devhost::up();
    let _ = host.petrel(&["create", "one", &image("hello.hvt"), "--wait"]).ok();
    let inspected = host.json(&["inspect", &image("hello.hvt")]);
    let digest = format!("sha256:{}", inspected["digest"].as_str().unwrap());
    let _ = host.petrel(&["create", "two", &digest, "--wait"]).ok();
    assert_eq!(host.json(&["info", "two"])["image"], inspected["digest"]);
}

#[test]
fn two_unikernels_on_a_bridge_serve_side_by_side() {
    let host = Devhost::up();
    create_web(&host, "web", WEB);
    create_web(&host, "second", SECOND_WEB);
    assert!(page(&host, WEB).contains("<html"));
    assert!(page(&host, SECOND_WEB).contains("<html"));

    let info = host.json(&["info", "web"]);
    assert_eq!(info["nets"][0]["device"], "service", "{info}");
    assert_eq!(info["nets"][0]["bridge"], "service", "{info}");
    assert!(info["nets"][0]["mac"].as_str().unwrap().starts_with("00:80:41:"), "{info}");

    let _ = host.petrel(&["destroy", "web"]).ok();
    assert!(page(&host, SECOND_WEB).contains("<html"), "the other one goes on");
    let _ = host.petrel(&["destroy", "second"]).ok();
    let left = host.leavings();
    assert!(!left.iter().any(|what| what.starts_with("tap")), "{left:?}");
}

#[test]
fn a_console_is_followed_until_its_unikernel_ends() {
    let host = Devhost::up();
    let _ = host.petrel(&["create", "crash", &image("crash.hvt"), "--arg=--after=2"]).ok();
    let mut follower = host.petrel_in_background(&["console", "crash", "-f"]);
    let mut second = host.petrel_in_background(&["console", "crash", "-f"]);
    for follower in [&mut follower, &mut second] {
        let lines: Vec<_> =
            BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
        assert!(lines.iter().any(|line| line.contains("ABORT")), "{lines:?}");
    }
    let start = Instant::now();
    for mut child in [follower, second] {
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "the follower does not end");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    assert_eq!(host.json(&["info", "crash"])["exit_code"], 255);
}

#[test]
fn a_running_unikernel_is_bound_to_its_cpus_and_confined() {
    let host = Devhost::up();
    let ipv4 = format!("--arg=--ipv4={WEB}/24");
    let net = ["--net", "service=service", "--cpu", "0", &ipv4];
    let _ = host.petrel(&[&["create", "web", &image("web.hvt")][..], &net].concat()).ok();
    let pid = host.json(&["info", "web"])["pid"].as_u64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len() + 1..].trim().to_owned()
    };
    assert_eq!(field("Cpus_allowed_list"), "0");
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2", "a seccomp filter is in force");
    assert_eq!(field("CapEff").trim_matches('0'), "", "no capabilities");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(environment.is_empty(), "the environment is empty");
    if field("Uid") != "0\t0\t0\t0" {
        // Where the shim is root, each monitor has a uid of its own.
        let uid: u32 = field("Uid").split('\t').next().unwrap().parse().unwrap();
        assert_ne!(uid, 0);
    }
}

#[test]
fn inspect_and_completions_need_no_host() {
    let petrel = petrel_tests::out("petrel");
    let run = |arguments: &[&str]| -> petrel_tests::Ended {
        std::process::Command::new(&petrel).args(arguments).output().unwrap().into()
    };
    let inspected: serde_json::Value =
        serde_json::from_str(&run(&["inspect", &image("petrel.hvt"), "--json"]).ok()).unwrap();
    let devices = inspected["devices"].as_array().unwrap();
    let named = |name: &str, kind: &str| devices.iter().any(|d| d["name"] == name && d["kind"] == kind);
    assert!(named("service", "net") && named("shim", "net") && named("seal", "block"), "{inspected}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).ok().contains("destroy"));
    }
}
