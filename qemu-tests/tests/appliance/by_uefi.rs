//! A machine that boots the image by UEFI, and takes new ones.

use std::fs::OpenOptions;
use std::path::Path;

use petrel_qemu_tests::{Host, Machine, Settings, System, appliance};
use petrel_tests::image;

const DISK_BYTES: u64 = 512 << 20;

/// Signs a system as the host's operators do.
fn signed(host: &Host, system: &Path, name: &str) -> String {
    let to = host.path(name);
    let (site, to) = (host.path("site").display().to_string(), to.display().to_string());
    let _ = host.petrel(&["appliance", "sign", &site, &system.display().to_string(), &to]).ok();
    to
}

#[test]
fn a_good_image_stays_and_one_whose_control_plane_does_not_start_falls_back_by_itself() {
    let host = Host::new("alpha");
    let disk = host.path("disk.img");
    std::fs::copy(appliance("petrel.img"), &disk).unwrap();
    // As written to a larger disk.
    OpenOptions::new().write(true).open(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    let (site, to) = (host.path("site").display().to_string(), disk.display().to_string());
    let _ = host.petrel(&["seal", &site, &to]).ok();
    let machine = Machine::boot_with(&host, &Settings { system: System::Disk(disk), ..Settings::of(&host) });
    machine.until_whole();
    assert!(machine.console.find("made on /dev/vda for the state").is_some());
    let status = machine.petrel(&["appliance", "status"]).ok();
    assert!(status.contains("system petrel-1.efi\nstate kept"), "{status}");
    let crash = image("crash.hvt");
    let _ = machine.petrel(&["create", "stays", &crash, "--arg=--after=86400", "--restart", "always"]).ok();
    let runs = || {
        machine.eventually("what ran runs again", || {
            let info = machine.petrel(&["info", "stays", "--json"]);
            info.stdout.contains("\"running\"").then_some(())
        });
    };

    // What somebody else has signed.
    let efi = appliance("petrel.efi");
    let stranger = Host::new("beta");
    let refused =
        machine.petrel(&["appliance", "upgrade", &signed(&stranger, &efi, "foreign.efi")]).refused(1);
    assert!(refused.contains("signed by others than this host's operators"), "{refused}");

    let kept = machine.petrel(&["appliance", "upgrade", &signed(&host, &efi, "good.efi")]).ok();
    assert_eq!(kept, "petrel-2.efi is booted, and kept\n");
    runs();

    let broken = signed(&host, &appliance("broken/petrel.efi"), "bad.efi");
    let refused = machine.petrel(&["appliance", "upgrade", &broken]).refused(1);
    assert!(refused.contains("petrel-3+1.efi did not come up"), "{refused}");
    assert!(refused.contains("gone back to petrel-2.efi"), "{refused}");
    runs();
}
