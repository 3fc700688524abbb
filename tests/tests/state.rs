//! What the control plane keeps: through a kill at any moment, with a state file that was spoiled, on another host.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use petrel_tests::{Devhost, image, is_alive, kill_9};

/// The client's exit code when the host refused.
const REFUSED: i32 = 1;

fn state_file(host: &Devhost) -> PathBuf {
    host.folder().join("site/host/state.img")
}

fn names(host: &Devhost) -> Vec<String> {
    let listed = host.json(&["ps"]);
    let names = listed.as_array().unwrap().iter();
    names.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

/// Ends the control plane and waits for the next one, which has read its journal.
fn restart_control_plane(host: &Devhost) {
    let old = host.control_plane_pid().expect("the control plane runs");
    kill_9(old);
    host.eventually("another control plane", || host.control_plane_pid().filter(|pid| *pid != old));
    host.until_whole();
}

/// The user of the shim.
fn shim_uid(host: &Devhost) -> u32 {
    fs::metadata(format!("/proc/{}", host.shim_pid())).unwrap().uid()
}

/// What `petrel host` says of the journal.
fn journal(host: &Devhost) -> serde_json::Value {
    host.json(&["host"])["journal"].clone()
}

#[test]
fn the_state_file_is_the_shims_alone_and_written_through() {
    let host = Devhost::up();
    let metadata = fs::metadata(state_file(&host)).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (16 << 20, 0o600));
    assert_eq!(metadata.uid(), shim_uid(&host), "the monitor has a descriptor, and nothing else");
    let monitor = host.control_plane_pid().unwrap();
    let flags = fs::read_dir(format!("/proc/{monitor}/fd")).unwrap().find_map(|fd| {
        let path = fd.unwrap().path();
        let ours = fs::read_link(&path).is_ok_and(|target| target.ends_with("state.img"));
        let info = fs::read_to_string(path.to_string_lossy().replace("/fd/", "/fdinfo/")).ok()?;
        ours.then(|| info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned())
    });
    let flags = u32::from_str_radix(&flags.expect("the monitor has the file open"), 8).unwrap();
    const O_DSYNC: u32 = 0o10000;
    assert_eq!(flags & O_DSYNC, O_DSYNC, "{flags:o}");
    assert_eq!(journal(&host), "kept");
    assert!(host.petrel(&["host"]).ok().contains("in a journal, epoch "));
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_at_any_moment() {
    let host = Devhost::up();
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let pid = host.control_plane_pid().expect("the control plane runs");
        let creating: Vec<_> = (0..5)
            .map(|number| {
                let name = format!("r{round}-{number}");
                let arguments = ["create", &name, &image("crash.hvt"), "--arg=--after=3600"];
                let child = host.petrel_in_background(&arguments);
                (name, child)
            })
            .collect();
        // The moment is the machine's.
        std::thread::sleep(std::time::Duration::from_millis(10 * round));
        kill_9(pid);
        host.until_whole();
        for (name, mut child) in creating {
            // One that has no answer by now would wait for it until it loses patience.
            let _ = child.kill();
            if child.wait().unwrap().success() {
                acknowledged.push(name);
            }
        }
        let names = names(&host);
        let missing: Vec<_> = acknowledged.iter().filter(|name| !names.contains(name)).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} are missing in {names:?}");
    }
    assert!(acknowledged.len() > 5, "there was a load");
    // What is destroyed stays destroyed.
    let gone = acknowledged.swap_remove(0);
    let _ = host.petrel(&["destroy", &gone]).ok();
    restart_control_plane(&host);
    let names = names(&host);
    assert!(!names.contains(&gone) && acknowledged.iter().all(|name| names.contains(name)), "{names:?}");
}

#[test]
fn how_one_ended_is_remembered_when_all_of_the_host_has_gone_down() {
    let host = Devhost::up();
    let _ = host.petrel(&["create", "done", &image("hello.hvt"), "--arg", "world", "--wait"]).ok();
    // History waits for company on its way to the disk: here it is.
    let _ = host.petrel(&["create", "next", &image("hello.hvt")]).ok();
    let before = host.json(&["info", "done"]);
    let control_plane = host.control_plane_pid().unwrap();
    kill_9(host.shim_pid());
    kill_9(control_plane);
    host.eventually("its taps are gone", || (!is_alive(control_plane)).then_some(()));
    // With the shim's own notes gone, only the journal is left.
    fs::remove_dir_all(host.state().join("run")).unwrap();
    host.restart_shim();
    host.until_whole();
    assert_eq!(host.json(&["info", "done"]), before);
}

#[test]
fn a_state_file_of_garbage_gives_a_control_plane_that_serves_reads_and_refuses_changes() {
    let host = Devhost::up();
    let _ = host.petrel(&["create", "runs", &image("crash.hvt"), "--arg=--after=3600"]).ok();
    let garbage: Vec<u8> =
        (0..16_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    fs::write(state_file(&host), garbage).unwrap();
    restart_control_plane(&host);
    assert_eq!(names(&host), ["runs"], "the shim knows what runs");
    assert_eq!(host.json(&["info", "runs"])["state"], "running");
    let told = host.json(&["host"]);
    assert_eq!((&told["journal"], told["journal_fault"].is_string()), (&"read-only".into(), true));
    let said = host.petrel(&["destroy", "runs"]).refused(REFUSED);
    assert!(said.contains("what is on its state device is no journal"), "{said}");
    let said = host.petrel(&["create", "new", &image("hello.hvt")]).refused(REFUSED);
    assert!(said.contains("docs/state.md"), "{said}");
    assert!(host.shim_log().contains("state: changes are refused: NotAJournal"));

    // As docs/state.md says: begin anew. What runs is taken over.
    kill_9(host.shim_pid());
    kill_9(host.control_plane_pid().unwrap());
    fs::remove_file(state_file(&host)).unwrap();
    host.restart_shim();
    host.until_whole();
    assert_eq!((names(&host), journal(&host)), (vec!["runs".into()], "kept".into()));
    let _ = host.petrel(&["destroy", "runs"]).ok();
}

#[test]
fn damage_in_the_middle_is_found_and_what_can_be_read_is_still_given_away() {
    let host = Devhost::up();
    for name in ["one", "two", "three"] {
        let _ = host.petrel(&["create", name, &image("hello.hvt"), "--wait"]).ok();
    }
    // One bit, of the first record of the first batch.
    let file = File::options().read(true).write(true).open(state_file(&host)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 512 + 28).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 512 + 28).unwrap();
    restart_control_plane(&host);
    let told = host.json(&["host"]);
    assert_eq!(told["journal_fault"], "its journal is damaged");
    assert_eq!(names(&host), ["one", "three", "two"], "the shim still has them");
    let backup = host.folder().join("backup");
    let _ = host.petrel(&["state", "export", &backup.display().to_string()]).ok();
    assert!(backup.exists());
}

#[test]
fn what_one_host_exports_another_imports() {
    let (here, there) = (Devhost::up(), Devhost::up());
    for name in ["a", "b:c", "d"] {
        let _ = here.petrel(&["create", name, &image("hello.hvt"), "--arg", name, "--wait"]).ok();
    }
    let backup = here.folder().join("backup").display().to_string();
    let said = here.petrel(&["state", "export", &backup]).ok();
    assert!(said.contains(" records saved in "), "{said}");

    let said = there.petrel(&["state", "import", &backup]).ok();
    assert!(said.contains(" records are kept now"), "{said}");
    there.until_whole();
    assert_eq!(there.json(&["ps"]), here.json(&["ps"]));
    restart_control_plane(&there);
    assert_eq!(there.json(&["info", "b:c"])["args"], serde_json::json!(["b:c"]));

    // Never over what there is, unless that is wanted; and never over what runs.
    let said = there.petrel(&["state", "import", &backup]).refused(REFUSED);
    assert!(said.contains("keeps 3 unikernels") && said.contains("--force"), "{said}");
    let _ = there.petrel(&["create", "runs", &image("crash.hvt"), "--arg=--after=3600"]).ok();
    let said = there.petrel(&["state", "import", &backup, "--force"]).refused(REFUSED);
    assert!(said.contains("1 unikernels of this host have not ended"), "{said}");
    let _ = there.petrel(&["destroy", "runs"]).ok();
    let _ = there.petrel(&["destroy", "a"]).ok();
    let _ = there.petrel(&["state", "import", &backup, "--force"]).ok();
    there.until_whole();
    assert_eq!(names(&there), ["a", "b:c", "d"]);

    // A spoiled file changes nothing.
    let mut spoiled = fs::read(&backup).unwrap();
    let middle = spoiled.len() / 2;
    spoiled[middle] ^= 1;
    fs::write(&backup, spoiled).unwrap();
    let said = there.petrel(&["state", "import", &backup, "--force"]).refused(REFUSED);
    assert!(said.contains("cut short or damaged"), "{said}");
    assert_eq!(names(&there), ["a", "b:c", "d"]);
}
