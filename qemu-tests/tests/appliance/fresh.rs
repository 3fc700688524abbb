//! A machine that is turned on for the first time.

use std::collections::BTreeSet;
use std::path::Path;

use petrel_qemu_tests::{Host, Machine, Network, Settings};
use petrel_tests::{Ended, image, out};
use serde_json::json;

use crate::guests::come_and_go;

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

    come_and_go(&machine, image);
}

#[test]
fn drivers_are_loaded_for_what_appears_late_as_well() {
    let host = Host::new("alpha");
    let stick = format!("file={},format=raw,readonly=on,if=none,id=stick", host.path("seal.img").display());
    let options = ["-device", "qemu-xhci", "-drive", &stick, "-device", "usb-storage,drive=stick"];
    let options = options.map(str::to_owned).to_vec();
    let machine = Machine::boot_with(&host, &Settings { seal: None, options, ..Settings::of(&host) });
    machine.until_whole();
    assert!(machine.console.find("this is alpha, sealed on /dev/sda").is_some());
    let loaded = machine.console.after("petrel-init: modules loaded: ").join(" ");
    let is_loaded = |module: &&str| loaded.split(' ').any(|name| name == *module);
    assert!(["xhci_pci", "usb_storage", "sd_mod", "virtio_net"].iter().all(is_loaded), "{loaded}");
    assert!(!["kvm_intel", "nvme", "igb", "nf_tables", "vfat"].iter().any(is_loaded), "{loaded}");
}

#[test]
fn a_machine_that_asks_for_its_address_is_reached_where_its_network_puts_it() {
    let host = Host::with_dhcp("alpha");
    let machine = Machine::boot(&host);
    machine.until_whole();
    let leased = json!({ "ipv4": "10.0.2.15/24", "gateway": "10.0.2.2", "leased": true });
    assert_eq!(machine.json(&["host"])["address"], leased);
    let said = "net: DHCP has leased 10.0.2.15/24, gateway 10.0.2.2";
    assert!(machine.console.find(said).is_some(), "{}", machine.console.text());

    // What the console says is told to operators as well, from the first line on.
    let log = machine.petrel(&["appliance", "log"]).ok();
    let begin = format!("petrel-init: petrel-init {}", env!("CARGO_PKG_VERSION"));
    for line in [begin.as_str(), "petrel-init: this is alpha", "petrel-shim: listening on", said] {
        assert!(log.lines().any(|told| told.starts_with('[') && told.contains(line)), "{line}\n{log}");
    }
}

/// What the witness tells in its next whole report, without its memory.
fn report(machine: &Machine) -> BTreeSet<String> {
    let reports = || machine.console.after("witness: ").iter().filter(|line| *line == "end").count();
    let before = reports();
    machine.eventually("the witness tells", || (reports() >= before + 2).then_some(()));
    let lines = machine.console.after("witness: ");
    let whole = lines.split(|line| line == "end").rev().nth(1).unwrap_or_default();
    whole.iter().filter(|line| !line.starts_with("memory")).cloned().collect()
}

#[test]
fn one_port_is_open_nobody_but_us_runs_and_no_file_of_the_system_can_be_written() {
    let host = Host::new("alpha");
    let overlay = host.overlay(&[("witness", out("appliance/petrel-witness"))]);
    let settings = Settings {
        network: Network::Namespace,
        overlay: Some(overlay),
        append: "rdinit=/witness".into(),
        ..Settings::of(&host)
    };
    let machine = Machine::boot_with(&host, &settings);
    machine.until_whole();
    // The link's own socket listens on 169.254.25.1, which is on no wire.
    let expected = [
        "process /init uid 0",
        "process /petrel/petrel-shim uid 0",
        "process /petrel/petrel-tender uid 200001",
        "tcp 0119FEA9:0402",
    ];
    assert_eq!(report(&machine), expected.map(str::to_owned).into());
    let scan: Ended =
        machine.outside(Path::new(env!("CARGO_BIN_EXE_scan"))).arg("10.0.2.16").output().unwrap().into();
    assert_eq!(scan.ok(), "1025\n");
}
