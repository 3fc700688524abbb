//! What any host does with guests.

use petrel_qemu_tests::Machine;
use serde_json::json;

/// Runs a guest that speaks, one that serves a page and one that has a disk, of the images that `image` finds; then takes
/// all of it away, and nothing is left.
#[track_caller]
pub fn come_and_go(machine: &Machine, image: impl Fn(&str) -> String) {
    let (hello, web, disk) = (image("hello.hvt"), image("web.hvt"), image("disk.hvt"));
    // One that says something and ends.
    let said = machine.petrel(&["create", "hello", &hello, "--arg", "anybody", "--wait"]).ok();
    assert!(said.contains("anybody"), "{said}");
    assert_eq!(machine.json(&["info", "hello"])["exit_code"], 0);
    // One that serves a page.
    let create = ["create", "web", &web, "--net", "service=service", "--arg=--ipv4=10.0.2.20/24"];
    let _ = machine.petrel(&create).ok();
    let page = machine.eventually("the page is served", || machine.fetch());
    assert!(page.contains("<html"), "{page}");
    // One that fills a volume, and reads it back.
    let _ = machine.petrel(&["volume", "create", "kept", "1M"]).ok();
    let create = ["create", "disk", &disk, "--block", "data=kept", "--arg=--fill=x", "--wait"];
    let _ = machine.petrel(&create).ok();
    let stats = machine.json(&["stats", "web"]);
    assert!(stats.to_string().contains("web"), "{stats}");

    for name in ["hello", "web", "disk"] {
        let _ = machine.petrel(&["destroy", name]).ok();
    }
    let _ = machine.petrel(&["volume", "rm", "kept"]).ok();
    assert_eq!(machine.json(&["volume", "ls"]), json!([]));
    assert_eq!(machine.json(&["ps"]), json!([]));
    assert!(machine.fetch().is_none());
}
