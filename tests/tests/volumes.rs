//! Volumes and images on a whole host, with a guest that writes to its disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use petrel_tests::{Devhost, Ended, image, kill_9};
use serde_json::{Value, json};

/// The client's exit code when the host refused.
const REFUSED: i32 = 1;
/// The client's when a file of the operator's is the problem.
const LOCAL: i32 = 4;
/// The guest's when its disk has something else than was expected.
const DIFFERENT: i32 = 2;

const MIB: u64 = 1 << 20;
const MIB_BYTES: usize = 1 << 20;

fn path(host: &Devhost, name: &str) -> PathBuf {
    host.folder().join(name)
}

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// A file of the operator's with these bytes.
fn file(host: &Devhost, name: &str, bytes: &[u8]) -> String {
    fs::write(path(host, name), bytes).unwrap();
    text(&path(host, name))
}

/// What the guest `disk` writes with `--fill SEED`.
fn pattern(seed: &str, bytes: u64) -> Vec<u8> {
    (0..bytes)
        .step_by(512)
        .flat_map(|offset| {
            format!("{seed} {offset}\n").into_bytes().into_iter().cycle().take(512).collect::<Vec<_>>()
        })
        .collect()
}

/// Runs the guest `disk` to its end on `volume`.
fn disk(host: &Devhost, volume: &str, arguments: &[&str]) -> Ended {
    let block = format!("data={volume}");
    let arguments: Vec<_> = arguments.iter().map(|argument| format!("--arg={argument}")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = host.petrel(
        &[&["create", "disk", &image("disk.hvt"), "--block", &block, "--wait"], &arguments[..]].concat(),
    );
    let _ = host.petrel(&["destroy", "disk"]).ok();
    ended
}

/// Starts the guest `disk` as `name` on `volume`; it fills it and stays.
fn disk_that_stays(host: &Devhost, name: &str, volume: &str, seed: &str) {
    let (block, fill) = (format!("data={volume}"), format!("--arg=--fill={seed}"));
    let _ = host
        .petrel(&["create", name, &image("disk.hvt"), "--block", &block, &fill, "--arg=--stay=3600"])
        .ok();
    host.eventually("the disk is filled", || {
        host.petrel(&["console", name]).stdout.contains("was given").then_some(())
    });
}

fn volumes(host: &Devhost) -> Vec<Value> {
    host.json(&["volume", "ls"]).as_array().unwrap().clone()
}

/// The files of the host's volume folder.
fn volume_files(host: &Devhost) -> Vec<String> {
    let entries = fs::read_dir(host.state().join("volumes")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Whether the file system of the host's volumes can share blocks.
fn shares_blocks(host: &Devhost) -> bool {
    let (from, to) = (host.state().join("volumes/.probe"), host.state().join("volumes/.clone"));
    fs::write(&from, [1; 4096]).unwrap();
    let copied = Command::new("cp").arg("--reflink=always").args([&from, &to]).output().unwrap();
    fs::remove_file(from).unwrap();
    let _ = fs::remove_file(to);
    copied.status.success()
}

#[test]
fn a_guest_writes_to_a_volume_and_what_it_wrote_is_pulled() {
    let host = Devhost::up();
    let made = host.json(&["volume", "create", "acme:data", "1M"]);
    assert_eq!(
        (&made["name"], &made["bytes"], &made["state"]),
        (&json!("acme:data"), &json!(MIB), &json!("ready"))
    );
    let filled = disk(&host, "acme:data", &["--fill=one"]).ok();
    assert!(filled.contains("disk: 1048576 bytes in blocks of 512"), "{filled}");
    assert!(disk(&host, "acme:data", &["--check=one"]).ok().contains("every block has the pattern of one"));
    assert_eq!(disk(&host, "acme:data", &["--check=two"]).code, DIFFERENT);

    let pulled = path(&host, "pulled");
    let told = host.json(&["volume", "pull", "acme:data", &text(&pulled)]);
    assert_eq!((&told["bytes"], &told["consistent"]), (&json!(MIB), &json!(true)));
    assert!(fs::read(&pulled).unwrap() == pattern("one", MIB));

    let listed = volumes(&host);
    assert_eq!((listed.len(), &listed[0]["user"]), (1, &Value::Null), "{listed:?}");
    assert!(listed[0]["disk_bytes"].as_u64().unwrap() >= MIB, "{listed:?}");
    let _ = host.petrel(&["volume", "rm", "acme:data"]).ok();
    assert_eq!((volumes(&host), volume_files(&host)), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_pushed_is_what_the_guest_reads() {
    let host = Devhost::up();
    let _ = host.petrel(&["volume", "create", "data", "4M"]).ok();
    let content = file(&host, "content", &pattern("pushed", 4 * MIB));
    let _ = host.petrel(&["volume", "push", "data", &content]).ok();
    let _ = disk(&host, "data", &["--check=pushed"]).ok();
    // A shorter file leaves zeros behind its end, not what was there before.
    let short = file(&host, "short", b"short");
    let _ = host.petrel(&["volume", "push", "data", &short]).ok();
    let pulled = path(&host, "pulled");
    let _ = host.petrel(&["volume", "pull", "data", &text(&pulled)]).ok();
    let pulled = fs::read(pulled).unwrap();
    assert!(pulled.len() as u64 == 4 * MIB && pulled.starts_with(b"short\0"));
    assert!(pulled[5..].iter().all(|byte| *byte == 0));
}

/// A large volume that is almost empty is moved in no time, and takes no room on either side.
#[test]
fn holes_stay_holes_on_the_way_there_and_back() {
    let host = Devhost::up();
    let _ = host.petrel(&["volume", "create", "large", "1T"]).ok();
    let _ = host.petrel(&["volume", "create", "data", "64M"]).ok();
    let sparse = path(&host, "sparse");
    let mut open = fs::File::create(&sparse).unwrap();
    open.set_len(64 * MIB).unwrap();
    open.write_all(b"first").unwrap();
    let _ = host.petrel(&["volume", "push", "data", &text(&sparse)]).ok();
    let _ = host.petrel(&["volume", "snapshot", "data", "copy"]).ok();
    for listed in volumes(&host) {
        assert!(listed["disk_bytes"].as_u64().unwrap() <= MIB, "{listed}");
    }
    for (volume, bytes) in [("copy", 64 * MIB), ("large", MIB * MIB)] {
        let pulled = path(&host, volume);
        let _ = host.petrel(&["volume", "pull", volume, &text(&pulled)]).ok();
        let metadata = fs::metadata(&pulled).unwrap();
        assert!(metadata.len() == bytes && metadata.blocks() * 512 <= MIB, "{metadata:?}");
    }
    assert!(fs::read(path(&host, "copy")).unwrap() == fs::read(sparse).unwrap());
}

#[test]
fn a_volume_in_use_is_read_and_grown_and_no_more() {
    let host = Devhost::up();
    let _ = host.petrel(&["volume", "create", "data", "1M"]).ok();
    disk_that_stays(&host, "acme:db", "data", "live");
    assert_eq!(volumes(&host)[0]["user"], "acme:db");
    let some = file(&host, "some", b"some");
    let second = ["create", "second", &image("disk.hvt"), "--block", "data=data"];
    for arguments in [
        &["volume", "rm", "data"][..],
        &["volume", "push", "data", &some],
        &["volume", "resize", "data", "512K"],
        &second,
    ] {
        let said = host.petrel(arguments).refused(REFUSED);
        assert!(said.contains("the volume \"data\" belongs to the unikernel \"acme:db\""), "{said}");
    }
    let shares_blocks = shares_blocks(&host);
    let pulled = path(&host, "pulled");
    let told = host.petrel(&["volume", "pull", "data", &text(&pulled)]);
    assert_eq!(told.stderr.contains("is not consistent"), !shares_blocks, "{told:?}");
    let _ = told.ok();
    assert!(fs::read(&pulled).unwrap() == pattern("live", MIB));
    let copy = host.json(&["volume", "snapshot", "data", "acme:copy"]);
    assert_eq!(copy["consistent"], shares_blocks, "{copy}");
    let grown = host.json(&["volume", "resize", "data", "2M"]);
    assert_eq!(grown["bytes"], 2 * MIB);
    assert_eq!(volume_files(&host), ["acme:copy", "data"], "no draft is left");

    let _ = host.petrel(&["destroy", "acme:db"]).ok();
    let _ = disk(&host, "acme:copy", &["--check=live"]).ok();
    assert!(disk(&host, "data", &["--fill=grown"]).ok().contains("disk: 2097152 bytes"));
    let _ = host.petrel(&["volume", "resize", "data", "1M"]).ok();
    assert!(disk(&host, "data", &["--check=grown"]).ok().contains("disk: 1048576 bytes"));
}

#[test]
fn a_snapshot_outlives_what_becomes_of_the_volume() {
    let host = Devhost::up();
    let _ = host.petrel(&["volume", "create", "data", "1M"]).ok();
    let _ = disk(&host, "data", &["--fill=before"]).ok();
    let copy = host.json(&["volume", "snapshot", "data", "backup"]);
    assert_eq!(copy["consistent"], true, "{copy}");
    let _ = disk(&host, "data", &["--check=before", "--fill=after"]).ok();
    let _ = disk(&host, "backup", &["--check=before"]).ok();
    let _ = host.petrel(&["volume", "rm", "data"]).ok();
    let _ = disk(&host, "backup", &["--check=before"]).ok();
}

#[test]
fn volumes_that_cannot_be_are_refused_with_the_reason() {
    let host = Devhost::up();
    let _ = host.petrel(&["volume", "create", "data", "1M"]).ok();
    let large = file(&host, "large", &vec![1; 2 * MIB_BYTES]);
    let out = text(&path(&host, "out"));
    let cases: [(&[&str], &str); 8] = [
        (&["volume", "create", "data", "1M"], "there is a volume \"data\" already"),
        (&["volume", "create", "b", "1000"], "a multiple of 512 bytes"),
        (&["volume", "create", "b", "1000T"], "cannot have"),
        (&["volume", "push", "data", &large], "2097152 bytes do not fit into the volume, which has 1048576"),
        (&["volume", "pull", "none", &out], "there is no volume \"none\""),
        (&["volume", "snapshot", "data", "data"], "there is a volume \"data\" already"),
        (&["volume", "rm", "none"], "there is no volume \"none\""),
        (&["create", "x", &image("disk.hvt"), "--block", "data=none"], "there is no volume \"none\""),
    ];
    for (arguments, words) in cases {
        let said = host.petrel(arguments).refused(REFUSED);
        assert!(said.contains(words), "{arguments:?} should say {words:?}: {said}");
    }
    assert_eq!(volume_files(&host), ["data"]);
    assert!(!path(&host, "out").exists());
}

/// The client is killed in the middle of a push: what was there is there, whole, and nothing else.
#[test]
fn a_push_that_is_cut_leaves_nothing() {
    let host = Devhost::up();
    let _ = host.petrel(&["volume", "create", "data", "256M"]).ok();
    let old = file(&host, "old", &pattern("old", MIB));
    let _ = host.petrel(&["volume", "push", "data", &old]).ok();
    let new = file(&host, "new", &vec![7; 256 * MIB_BYTES]);
    let mut client = host.petrel_in_background(&["volume", "push", "data", &new]);
    host.eventually("bytes arrive", || {
        let draft = volume_files(&host).into_iter().find(|name| name.starts_with('~'))?;
        let metadata = fs::metadata(host.state().join("volumes").join(draft)).ok()?;
        (metadata.blocks() > 0).then_some(())
    });
    let busy = host.petrel(&["volume", "rm", "data"]).refused(REFUSED);
    assert!(busy.contains("is being made, pushed, resized or removed"), "{busy}");
    client.kill().unwrap();
    client.wait().unwrap();
    host.eventually("the draft is gone", || (volume_files(&host) == ["data"]).then_some(()));
    let pulled = path(&host, "pulled");
    let _ = host.petrel(&["volume", "pull", "data", &text(&pulled)]).ok();
    let pulled = fs::read(pulled).unwrap();
    assert!(pulled[..MIB_BYTES] == pattern("old", MIB) && pulled[MIB_BYTES..].iter().all(|byte| *byte == 0));
}

#[test]
fn volumes_are_known_again_after_the_control_plane_and_the_shim_were_killed() {
    let host = Devhost::up();
    let _ = host.petrel(&["volume", "create", "acme:data", "1M"]).ok();
    disk_that_stays(&host, "db", "acme:data", "kept");
    let before = volumes(&host);
    kill_9(host.shim_pid());
    kill_9(host.control_plane_pid().unwrap());
    host.restart_shim();
    let after = host.eventually("the volumes are listed again", || {
        let listed = host.petrel(&["volume", "ls", "--json"]);
        (listed.code == 0).then(|| serde_json::from_str::<Vec<Value>>(&listed.stdout).unwrap())
    });
    assert_eq!(after, before);
    let said = host.petrel(&["volume", "rm", "acme:data"]).refused(REFUSED);
    assert!(said.contains("belongs to the unikernel \"db\""), "{said}");
    let _ = host.petrel(&["destroy", "db"]).ok();
    let _ = disk(&host, "acme:data", &["--check=kept"]).ok();
}

/// Writes a manifest of a unikernel that keeps a pattern on the volume `data`, which has this size.
fn manifest(host: &Devhost, size: &str, block: &str) -> String {
    let text = format!(
        "[volume.data]\nsize = {size:?}\n\n[unikernel.db]\nimage = {:?}\nblock = [\"data={block}\"]\n\
         arg = [\"--fill=kept\", \"--stay=3600\"]\n",
        image("disk.hvt")
    );
    file(host, "site.toml", text.as_bytes())
}

#[test]
fn a_manifest_makes_volumes_and_grows_them_and_never_loses_what_they_store() {
    let host = Devhost::up();
    let _ = host.petrel(&["volume", "create", "other", "1M"]).ok();
    let site = manifest(&host, "1M", "nowhere");
    let said = host.petrel(&["apply", &site]).refused(LOCAL);
    assert!(said.contains("\"nowhere\", which is neither in the manifest nor on the host"), "{said}");
    assert_eq!((volumes(&host).len(), host.json(&["ps"])), (1, json!([])), "nothing was done");

    let site = manifest(&host, "1M", "data");
    let new = "+ volume data: create\n+ db: create\n0 unchanged\n";
    assert_eq!(host.petrel(&["apply", &site, "--dry-run"]).ok(), new);
    assert_eq!(volumes(&host).len(), 1, "a dry run does nothing");
    assert_eq!(host.petrel(&["apply", &site]).ok(), new);
    host.eventually("the disk is filled", || {
        host.petrel(&["console", "db"]).stdout.contains("was given").then_some(())
    });
    let monitors = host.monitors();
    let unchanged = json!({ "changes": [], "unchanged": 2 });
    assert_eq!(host.json(&["apply", &site, "--prune"]), unchanged, "other volumes are left alone");

    // It grows under the unikernel that has it.
    let site = manifest(&host, "2M", "data");
    let size = json!({ "field": "size", "is": "1M", "shall_be": "2M" });
    let grow = json!({ "kind": "volume", "name": "data", "action": "grow", "differences": [size] });
    let grown = json!({ "changes": [grow], "unchanged": 1 });
    assert_eq!(host.json(&["diff", &site]), grown);
    assert_eq!(host.json(&["apply", &site]), grown);
    assert_eq!(host.json(&["apply", &site]), unchanged);
    assert_eq!((&volumes(&host)[0]["bytes"], host.monitors()), (&json!(2 * MIB), monitors));

    // It never shrinks, unless by hand and as the refusal says.
    let site = manifest(&host, "1M", "data");
    let diff = host.petrel(&["diff", &site]).ok();
    assert_eq!(diff, "! volume data: shrink, which apply refuses\n    size: 2M -> 1M\n1 unchanged\n");
    let _ = host.petrel(&["stop", "db"]).ok();
    let said = host.petrel(&["apply", &site, "--prune"]).refused(REFUSED);
    assert!(said.contains("`petrel volume resize data 1M`"), "{said}");
    assert_eq!(volumes(&host)[0]["bytes"], 2 * MIB);
    assert_eq!(host.json(&["info", "db"])["state"], "stopped", "nothing was done");
    let _ = host.petrel(&["volume", "resize", "data", "1M"]).ok();
    assert_eq!(host.petrel(&["apply", &site]).ok(), "~ db: start\n1 unchanged\n");
    let _ = host.petrel(&["destroy", "db"]).ok();
    let _ = disk(&host, "data", &["--check=kept"]).ok();
    let names: Vec<_> = volumes(&host).iter().map(|volume| volume["name"].clone()).collect();
    assert_eq!(names, ["data", "other"]);
}

// Images.

#[test]
fn an_image_is_pushed_listed_fetched_and_removed() {
    let host = Devhost::up();
    let pushed = host.json(&["image", "push", &image("hello.hvt")]);
    let digest = pushed["digest"].as_str().unwrap().to_owned();
    assert_eq!(pushed, host.json(&["image", "push", &image("hello.hvt")]), "again it is no upload");
    let _ = host.petrel(&["create", "acme:hello", &format!("sha256:{digest}")]).ok();
    let listed = host.json(&["image", "ls"]);
    assert_eq!(listed[0]["digest"], digest, "{listed}");
    assert_eq!(listed[0]["names"], json!(["acme:hello"]), "{listed}");
    assert_eq!(listed[0]["bytes"], fs::metadata(image("hello.hvt")).unwrap().len(), "{listed}");

    let original = fs::read(image("hello.hvt")).unwrap();
    for source in ["acme:hello".to_owned(), format!("sha256:{digest}")] {
        let fetched = path(&host, "fetched");
        let _ = host.petrel(&["get", &source, "-o", &text(&fetched)]).ok();
        assert!(fs::read(&fetched).unwrap() == original);
    }
    let said = host.petrel(&["get", "none"]).refused(REFUSED);
    assert!(said.contains("there is no unikernel \"none\""), "{said}");
    let said = host.petrel(&["image", "rm", &digest]).refused(REFUSED);
    assert!(said.contains("\"acme:hello\""), "{said}");
    let _ = host.petrel(&["destroy", "acme:hello"]).ok();
    let _ = host.petrel(&["image", "rm", &digest]).ok();
    assert_eq!(host.json(&["image", "ls"]), json!([]));
    assert_eq!(fs::read_dir(host.state().join("images")).unwrap().count(), 0);
    let said = host.petrel(&["image", "rm", &digest]).refused(REFUSED);
    assert!(said.contains("has not got"), "{said}");
}

#[test]
fn images_that_nobody_uses_are_collected() {
    let host = Devhost::up();
    for guest in ["hello.hvt", "crash.hvt", "disk.hvt"] {
        let _ = host.petrel(&["image", "push", &image(guest)]).ok();
    }
    let _ = host.petrel(&["create", "hello", &image("hello.hvt"), "--wait"]).ok();
    let collected = host.json(&["image", "gc"]);
    let bytes: u64 =
        ["crash.hvt", "disk.hvt"].map(|guest| fs::metadata(image(guest)).unwrap().len()).iter().sum();
    assert_eq!(collected, json!({ "images": 2, "bytes": bytes }));
    let left = host.json(&["image", "ls"]);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["names"]), (1, &json!(["hello"])));
    assert_eq!(fs::read_dir(host.state().join("images")).unwrap().count(), 1);
}
