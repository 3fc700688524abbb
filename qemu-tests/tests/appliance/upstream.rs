//! Solo5's own tender in the place of ours: petrel.hvt is a unikernel like any other.

use std::path::PathBuf;
use std::process::Command;

use petrel_qemu_tests::{Host, Machine, STATE_MIB, Settings};
use petrel_tests::{checkout, out};

const MONITOR: &str = r#"
[[monitors]]
name = "solo5-hvt"
path = "/petrel/solo5-hvt"
target = 1
version = 1
backend = "kvm"
"#;

/// Upstream's tender, and the libraries that it is linked with, each where it is looked for.
fn solo5_hvt() -> Vec<(String, PathBuf)> {
    let tender = checkout().join("target/tmp/solo5/solo5-sys-0.1.0/solo5/tenders/hvt/solo5-hvt");
    let said = Command::new("ldd").arg(&tender).output().expect("ldd runs");
    assert!(said.status.success(), "`make qemu-parts` builds {}", tender.display());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let libraries = said.split_whitespace().filter(|word| word.starts_with('/'));
    let libraries = libraries.map(|path| (path.trim_start_matches('/').to_owned(), path.into()));
    libraries.chain([("petrel/solo5-hvt".to_owned(), tender.clone())]).collect()
}

/// An image as v0.7.2 takes it, which is the newest that the package registry has. It knows version 1 of the ABI only;
/// upstream raised the number for images with thread-local storage, which ours have not got, and what a guest and its
/// tender say to each other is the same.
fn of_abi_1(host: &Host, name: &str) -> PathBuf {
    /// Type and name of the note, then the first word of its content: target 1, hvt. The version follows.
    const HEADER: &[u8] = b"ABI1Solo5\0\0\0\x01\0\0\0";
    let mut bytes = std::fs::read(out(name)).expect("readable");
    let header = bytes.windows(HEADER.len()).position(|window| window == HEADER);
    bytes[header.expect("the image has an ABI1 note for hvt") + HEADER.len()] = 1;
    let path = host.path(name);
    std::fs::write(&path, bytes).expect("writable");
    path
}

#[test]
fn the_control_plane_and_guests_run_on_solo5s_own_tender() {
    let host = Host::with("alpha", STATE_MIB, |toml| {
        let before = toml.clone();
        *toml = toml.replace("monitor = \"petrel-tender\"", "monitor = \"solo5-hvt\"");
        assert_ne!(*toml, before);
        let ours = toml.find("[[monitors]]").expect("a monitor");
        toml.replace_range(ours.., MONITOR);
    });
    let mut parts = solo5_hvt();
    parts.push(("petrel/petrel.hvt".to_owned(), of_abi_1(&host, "petrel.hvt")));
    let parts: Vec<_> = parts.iter().map(|(path, file)| (path.as_str(), file.clone())).collect();
    let settings = Settings { overlay: Some(host.overlay(&parts)), ..Settings::of(&host) };
    let machine = Machine::boot_with(&host, &settings);
    machine.until_whole();
    let monitors = machine.json(&["host"])["monitors"].clone();
    assert_eq!((&monitors[0]["name"], monitors.as_array().map(Vec::len)), (&"solo5-hvt".into(), Some(1)));

    let image = |name| of_abi_1(&host, name).display().to_string();
    let said = machine.petrel(&["create", "hello", &image("hello.hvt"), "--arg", "upstream", "--wait"]).ok();
    assert!(said.contains("upstream"), "{said}");
    let web = image("web.hvt");
    let create = ["create", "web", &web, "--net", "service=service", "--arg=--ipv4=10.0.2.20/24"];
    let _ = machine.petrel(&create).ok();
    let page = machine.eventually("the page is served", || machine.fetch());
    assert!(page.contains("<html"), "{page}");
    let _ = machine.petrel(&["volume", "create", "kept", "1M"]).ok();
    let create = ["create", "disk", &image("disk.hvt"), "--block", "data=kept", "--arg=--fill=x", "--wait"];
    let _ = machine.petrel(&create).ok();
    for name in ["hello", "web", "disk"] {
        let _ = machine.petrel(&["destroy", name]).ok();
    }
}
