//! Bad input: each has a clear error, and leaves nothing behind.

use std::fs;
use std::path::PathBuf;

use petrel_tests::{Devhost, Ended, image};

/// The client's exit code when the host refused.
const REFUSED: i32 = 1;
/// … when the command line is wrong.
const USAGE: i32 = 2;
/// … when there is no connection that both trust.
const NOT_TRUSTED: i32 = 3;
/// … when a local file is at fault.
const LOCAL: i32 = 4;

/// A host, and what there is on it before anything was asked of it.
struct Given {
    host: Devhost,
    before: Vec<String>,
}

fn given_a_host() -> Given {
    let host = Devhost::up();
    let before = host.leavings();
    Given { host, before }
}

impl Given {
    /// `petrel` with `arguments` fails with `code`, says each of `words`, and leaves nothing.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let said = self.host.petrel(arguments).refused(code);
        for word in words {
            assert!(said.contains(word), "{arguments:?} should say {word:?}: {said}");
        }
        self.nothing_is_left();
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.host.leavings(), self.before);
        assert_eq!(self.host.json(&["ps"]), serde_json::json!([]));
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path: PathBuf = self.host.folder().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }
}

/// hello.hvt, changed at `marker` + `offset`.
fn hello_with(marker: &[u8], offset: usize, byte: u8) -> Vec<u8> {
    let mut bytes = fs::read(image("hello.hvt")).unwrap();
    let at = bytes.windows(marker.len()).position(|window| window == marker).unwrap();
    bytes[at + offset] = byte;
    bytes
}

/// An image that no host has.
fn unknown_image() -> String {
    format!("sha256:{}", "0".repeat(64))
}

#[test]
fn images_that_are_none() {
    let given = given_a_host();
    let text = given.file("text", b"#!/bin/sh\necho I am not an ELF\n");
    given.refuses(&["create", "x", &text], LOCAL, &["ELF"]);
    // The ABI note: "Solo5", padding, then the target. 2 is spt.
    let note = [b"Solo5\0\0\0".as_slice(), &1u32.to_le_bytes()].concat();
    let spt = given.file("spt", &hello_with(&note, 8, 2));
    given.refuses(&["create", "x", &spt], REFUSED, &["spt"]);
    let cut = given.file("cut", &fs::read(image("hello.hvt")).unwrap()[..3000]);
    given.refuses(&["create", "x", &cut], LOCAL, &[]);
    given.refuses(&["create", "x", "/no/such/file"], LOCAL, &["/no/such/file"]);
    given.refuses(&["create", "x", &unknown_image()], REFUSED, &["image"]);
}

#[test]
fn devices_that_do_not_match_the_manifest() {
    let given = given_a_host();
    let (web, hello) = (image("web.hvt"), image("hello.hvt"));
    given.refuses(&["create", "x", &web], LOCAL, &["service"]);
    given.refuses(&["create", "x", &hello, "--net", "service=service"], LOCAL, &["service"]);
    given.refuses(&["create", "x", &web, "--block", "service=disk"], LOCAL, &["service"]);
    given.refuses(&["create", "x", &web, "--net", "service=nowhere"], REFUSED, &["nowhere", "service"]);
    given.refuses(&["create", "x", &web, "--net", "service"], USAGE, &["DEVICE=BRIDGE"]);
}

#[test]
fn memory_and_cpus_that_the_host_cannot_give() {
    let given = given_a_host();
    let hello = image("hello.hvt");
    given.refuses(&["create", "x", &hello, "--mem", "0"], LOCAL, &["0 MiB"]);
    given.refuses(&["create", "x", &hello, "--mem", "1"], LOCAL, &["1 MiB"]);
    // The control plane does not rely on its clients for that.
    given.refuses(&["create", "x", &unknown_image(), "--mem", "0"], REFUSED, &["0 MiB"]);
    given.refuses(&["create", "x", &hello, "--mem", "4000000"], REFUSED, &["4000000 MiB"]);
    given.refuses(&["create", "x", &hello, "--mem", "much"], USAGE, &["much"]);
    given.refuses(&["create", "x", &hello, "--cpu", "999"], REFUSED, &["999"]);
}

#[test]
fn names_that_are_none_or_taken() {
    let given = given_a_host();
    let hello = image("hello.hvt");
    for bad in ["a/b", "..", "../x", "", "a b", "a:..:b", "-x"] {
        given.refuses(&["create", "--", bad, &hello], USAGE, &["NAME"]);
    }
    for verb in ["info", "console", "destroy"] {
        given.refuses(&[verb, "nobody"], REFUSED, &["nobody"]);
    }

    let _ = given.host.petrel(&["create", "taken", &hello, "--wait"]).ok();
    let said = given.host.petrel(&["create", "taken", &hello]).refused(REFUSED);
    assert!(said.contains("taken"), "{said}");
    assert_eq!(given.host.json(&["ps"]).as_array().unwrap().len(), 1, "the first one is still there");
}

#[test]
fn an_upload_cut_in_the_middle() {
    let given = given_a_host();
    // Large enough that the client is still at it when it is killed: hello with a long tail.
    let mut bytes = fs::read(image("hello.hvt")).unwrap();
    bytes.resize(256 * 1024 * 1024, 0x5a);
    let large = given.file("large.hvt", &bytes);
    let mut client = given.host.petrel_in_background(&["create", "x", &large]);
    given.host.eventually("the upload is under way", || {
        let shim = given.host.shim_pid();
        // An upload is a nameless file among the shim's descriptors until it is whole.
        fs::read_dir(format!("/proc/{shim}/fd")).unwrap().find_map(|fd| {
            let target = fs::read_link(fd.ok()?.path()).ok()?;
            (target.to_string_lossy().contains("images") && target.to_string_lossy().contains("deleted"))
                .then_some(())
        })
    });
    client.kill().unwrap();
    client.wait().unwrap();
    given.host.eventually("the shim lets the upload go", || {
        let shim = given.host.shim_pid();
        let mut open = fs::read_dir(format!("/proc/{shim}/fd"))
            .unwrap()
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        (!open.any(|target| target.to_string_lossy().contains("deleted"))).then_some(())
    });
    given.nothing_is_left();
    let _ = given.host.petrel(&["create", "x", &image("hello.hvt"), "--wait"]).ok();
}

#[test]
fn clients_that_are_not_trusted() {
    let given = given_a_host();
    let other = given.host.folder().join("other");
    let made: Ended = std::process::Command::new(petrel_tests::out("petrel"))
        .args(["init", &other.display().to_string(), "--host", "x", "--ipv4", "10.99.0.2/24", "--no-profile"])
        .output()
        .unwrap()
        .into();
    let _ = made.ok();

    // The stranger's client does not trust the host.
    let profile = other.join("profile").display().to_string();
    given.refuses(&["--profile", &profile, "ps"], NOT_TRUSTED, &["certificate"]);
    // A stranger who has learnt the host's CA is not trusted by the host.
    let stranger = given.host.folder().join("stranger");
    let ours = given.host.folder().join("site/profile");
    fs::create_dir(&stranger).unwrap();
    for (from, file) in [(&ours, "profile.toml"), (&ours, "ca.pem")] {
        fs::copy(from.join(file), stranger.join(file)).unwrap();
    }
    for file in ["operator.pem", "operator-key.pem"] {
        fs::copy(other.join("profile").join(file), stranger.join(file)).unwrap();
    }
    let stranger = stranger.display().to_string();
    given.refuses(&["--profile", &stranger, "ps"], NOT_TRUSTED, &["certificate"]);
}

#[test]
fn garbage_costs_only_its_own_connection() {
    let given = given_a_host();
    let send = |bytes: &str| {
        // What the control plane answers goes to standard output; it must close the connection by itself.
        let script =
            format!("exec 3<>/dev/tcp/10.99.0.2/1025; printf '{bytes}' >&3; timeout 30 cat <&3 | wc -c");
        given.host.run(&["bash", "-c", &script]).ok()
    };
    let _ = send("GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n");
    let _ = send("\\x16\\x03\\x01\\xff\\xff garbage");
    // The shim's listener is reached from the host itself: it wants the one key that it knows.
    let script =
        "exec 3<>/dev/tcp/169.254.25.1/1026; printf 'garbage garbage' >&3; timeout 30 cat <&3 | wc -c";
    let _ = given.host.run(&["bash", "-c", script]).ok();
    given.nothing_is_left();
    let _ = given.host.petrel(&["create", "x", &image("hello.hvt"), "--wait"]).ok();
}

#[test]
fn a_client_that_stalls_costs_only_itself() {
    let given = given_a_host();
    let mut stalled: Vec<_> = (0..20)
        .map(|_| {
            let script = "exec 3<>/dev/tcp/10.99.0.2/1025; exec sleep 60";
            given.host.command(&["bash", "-c", script]).spawn().unwrap()
        })
        .collect();
    for round in 0..3 {
        let name = format!("x{round}");
        let _ = given.host.petrel(&["create", &name, &image("hello.hvt"), "--wait"]).ok();
    }
    for client in &mut stalled {
        client.kill().unwrap();
        client.wait().unwrap();
    }
}
