//! What is wrong with a machine is said on its console, with what to do, and to who tries to reach it.

use std::fs::OpenOptions;
use std::process::Command;

use petrel_qemu_tests::{Host, Machine, Settings, System, appliance, sign_for_firmware};
use petrel_tests::image;

const MIB: usize = 1 << 20;

/// What a machine says when it stops, and what its operator is told meanwhile.
#[track_caller]
fn stopped(host: &Host, settings: &Settings) -> String {
    let machine = Machine::boot_with(host, settings);
    let (_, line) = machine.console.until("STOPPED: ");
    let told = machine.petrel(&["host"]).refused(3);
    assert!(told.contains("console"), "the operator is told where to look: {told}");
    line
}

#[track_caller]
fn boots(host: &Host) {
    Machine::boot(host).until_whole();
}

#[test]
fn a_seal_that_is_missing_altered_or_of_another_host_is_told() {
    let host = Host::new("alpha");
    boots(&host);
    let with_seal = |seal| Settings { seal, ..Settings::of(&host) };

    let said = stopped(&host, &with_seal(None));
    assert!(said.contains("no disk holds a sealed host") && said.contains("petrel seal"), "{said}");

    let mut altered = std::fs::read(host.path("seal.img")).unwrap();
    altered[200] ^= 1;
    std::fs::write(host.path("altered.img"), altered).unwrap();
    let said = stopped(&host, &with_seal(Some(host.path("altered.img"))));
    assert!(said.contains("it was altered since it was signed"), "{said}");

    let beta = Host::new("beta");
    let said = stopped(&host, &with_seal(Some(beta.path("seal.img"))));
    assert!(said.contains("the sealed host is beta, and this is the state of alpha"), "{said}");

    let namesake = Host::new("alpha");
    let said = stopped(&host, &with_seal(Some(namesake.path("seal.img"))));
    assert!(said.contains("signed by other operators than those of alpha"), "{said}");

    let elsewhere = ["--machine", "4c4c4544-0000-2010-8020-80c04f202020"];
    let _ = host.seal(&elsewhere, "elsewhere.img").ok();
    let said = stopped(&host, &with_seal(Some(host.path("elsewhere.img"))));
    assert!(said.contains("it is for another machine, 4c4c4544"), "{said}");

    // None of that has hurt it.
    boots(&host);
}

#[test]
fn an_image_for_other_operators_is_not_this_host() {
    let (host, others) = (Host::new("alpha"), Host::new("alpha"));
    // What `make appliance APPLIANCE="--operators CA"` puts in.
    let ca = others.path("site/ca/ca-key.pem").display().to_string();
    let openssl = Command::new("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in", &ca]).output();
    let public = openssl.expect("openssl runs").stdout;
    let key = host.path("operators.key");
    std::fs::write(&key, &public[public.len() - 32..]).unwrap();
    let overlay = Some(host.overlay(&[("petrel/operators.key", key)]));
    let said = stopped(&host, &Settings { overlay, ..Settings::of(&host) });
    assert!(said.contains("signed by others than the operators that this image was made for"), "{said}");
}

#[test]
fn firmware_that_wants_signatures_starts_what_is_signed_and_nothing_else() {
    let host = Host::new("alpha");
    let disk = host.path("disk.img");
    let (site, to) = (host.path("site").display().to_string(), disk.display().to_string());
    let system = || System::SignedDisk(disk.clone());

    std::fs::copy(appliance("petrel.img"), &disk).unwrap();
    let machine = Machine::boot_with(&host, &Settings { system: system(), ..Settings::of(&host) });
    let _ = machine.console.until("Access Denied");
    assert!(machine.console.find("petrel-init").is_none());
    machine.cut_power();

    sign_for_firmware(&host, &disk);
    OpenOptions::new().write(true).open(&disk).unwrap().set_len(512 << 20).unwrap();
    let _ = host.petrel(&["seal", &site, &to]).ok();
    let machine = Machine::boot_with(&host, &Settings { system: system(), ..Settings::of(&host) });
    machine.until_whole();
}

#[test]
fn a_state_that_is_damaged_is_told_and_left_as_it_is() {
    let host = Host::new("alpha");
    boots(&host);
    host.state.damage(0, 64 * 1024);
    let before = std::fs::read(host.state.path()).unwrap();
    let said = stopped(&host, &Settings::of(&host));
    assert!(said.contains("damaged, or nothing of ours") && said.contains("e2fsck"), "{said}");
    assert!(std::fs::read(host.state.path()).unwrap() == before, "nothing was written");
}

#[test]
fn a_machine_without_virtualisation_runs_nothing_rather_than_something_less() {
    let host = Host::new("alpha");
    let options = ["-cpu", "max,-svm"].map(str::to_owned).to_vec();
    let said = stopped(&host, &Settings { options, ..Settings::of(&host) });
    assert!(said.contains("no guest can run") && said.contains("AMD-V or VT-x"), "{said}");
}

#[test]
fn a_full_disk_is_told_to_who_fills_it_and_the_host_goes_on() {
    let host = Host::with_disk("alpha", 64);
    let machine = Machine::boot(&host);
    machine.until_whole();
    let large = host.path("large.hvt");
    let mut bytes = std::fs::read(image("hello.hvt")).unwrap();
    bytes.resize(60 * MIB, 7);
    std::fs::write(&large, bytes).unwrap();
    let refused = machine.petrel(&["create", "large", &large.display().to_string()]).refused(1);
    assert!(refused.contains("No space left") || refused.contains("disk is full"), "{refused}");
    let crash = image("crash.hvt");
    let _ = machine.petrel(&["create", "goes-on", &crash, "--arg=--after=86400", "--restart", "always"]).ok();
    machine.cut_power();
    let machine = Machine::boot(&host);
    machine.until_whole();
    machine.eventually("it runs again", || {
        (machine.json(&["info", "goes-on"])["state"] == "running").then_some(())
    });
}
