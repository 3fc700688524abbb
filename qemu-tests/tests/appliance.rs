//! What the appliance is and does, each story on a machine of its own.

use petrel_qemu_tests::{Host, Machine};
use petrel_tests::image;
use serde_json::json;

#[test]
fn a_fresh_machine_runs_unikernels_on_kvm_and_nothing_of_them_is_left() {
    let host = Host::new("alpha");
    let machine = Machine::boot(&host);
    machine.until_whole();
    assert!(
        machine.console.find("petrel-tender --probe: backend=kvm").is_some(),
        "{}",
        machine.console.text()
    );
    let monitors = machine.json(&["host"])["monitors"].clone();
    assert_eq!(monitors[0]["backend"], "kvm", "{monitors}");
    assert!(!machine.console.text().contains("ring 3"), "nothing falls back");

    // One that says something and ends.
    let said = machine.petrel(&["create", "hello", &image("hello.hvt"), "--arg", "kvm", "--wait"]).ok();
    assert!(said.contains("kvm"), "{said}");
    assert_eq!(machine.json(&["info", "hello"])["exit_code"], 0);
    // One that serves a page.
    let web = image("web.hvt");
    let create = ["create", "web", &web, "--net", "service=service", "--arg=--ipv4=10.0.2.20/24"];
    let _ = machine.petrel(&create).ok();
    let page = machine.eventually("the page is served", || machine.fetch());
    assert!(page.contains("<html"), "{page}");
    let stats = machine.json(&["stats", "web"]);
    assert!(stats.to_string().contains("web"), "{stats}");

    for name in ["hello", "web"] {
        let _ = machine.petrel(&["destroy", name]).ok();
    }
    assert_eq!(machine.json(&["ps"]), json!([]));
    assert!(machine.fetch().is_none());
}
