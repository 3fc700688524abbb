//! Solo5's own tender in the place of ours: petrel.hvt is a unikernel like any other.

use std::path::PathBuf;

use petrel_qemu_tests::{Host, Machine, STATE_MIB, Settings, with_libraries};
use petrel_tests::out;

use crate::conformance::solo5;
use crate::guests::come_and_go;

const MONITOR: &str = r#"
[[monitors]]
name = "solo5-hvt"
path = "/petrel/solo5-hvt"
target = 1
version = 1
backend = "kvm"
"#;

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
    let tender = solo5().join("tenders/hvt/solo5-hvt");
    let mut parts = with_libraries("/petrel/solo5-hvt", tender);
    parts.push(("/petrel/petrel.hvt".to_owned(), of_abi_1(&host, "petrel.hvt")));
    let settings = Settings { overlay: Some(host.overlay(&parts)), ..Settings::of(&host) };
    let machine = Machine::boot_with(&host, &settings);
    machine.until_whole();
    let monitors = machine.json(&["host"])["monitors"].clone();
    assert_eq!((&monitors[0]["name"], monitors.as_array().map(Vec::len)), (&"solo5-hvt".into(), Some(1)));

    come_and_go(&machine, |name| of_abi_1(&host, name).display().to_string());
}
