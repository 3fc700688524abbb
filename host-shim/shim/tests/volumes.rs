//! The real shim's volumes: sparse files that a peer makes, fills, copies and gives to monitors.

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use petrel_wire::limits::{CHUNK_BYTES_MAX, PAGE_ENTRIES_MAX};
use petrel_wire::shim::{Fault, InstanceId, Op, Reply, Spawn, SpawnBlock, VolumeFile, VolumeOp};
use petrel_wire::{Blob, VolumeName};
use support::{GUEST, Peer, Site, inside, spawn};

const MIB: u64 = 1 << 20;

fn volume(name: &str) -> VolumeName {
    name.parse().unwrap()
}

fn create(name: &str, bytes: u64) -> Op {
    Op::Volume(VolumeOp::Create { volume: volume(name), bytes })
}

fn remove(name: &str) -> Op {
    Op::Volume(VolumeOp::Remove(volume(name)))
}

fn resize(name: &str, bytes: u64) -> Op {
    Op::Volume(VolumeOp::Resize { volume: volume(name), bytes })
}

fn rename(from: &str, to: &str) -> Op {
    Op::Volume(VolumeOp::Rename { from: volume(from), to: volume(to) })
}

fn write(name: &str, offset: u64, data: &[u8]) -> Op {
    Op::Volume(VolumeOp::Write { volume: volume(name), offset, data: Blob::try_from(data).unwrap() })
}

fn read(peer: &mut Peer, name: &str, offset: u64) -> (u64, Vec<u8>) {
    match peer.ask(Op::Volume(VolumeOp::Read { volume: volume(name), offset })) {
        Ok(Reply::Extent { offset, data }) => (offset, data.into_vec()),
        other => panic!("expected a part of a volume, got {other:?}"),
    }
}

fn list(peer: &mut Peer) -> Vec<VolumeFile> {
    let mut all: Vec<VolumeFile> = Vec::new();
    loop {
        let after = all.last().map(|last| last.volume.clone());
        let Ok(Reply::Volumes { page, more }) = peer.ask(Op::Volume(VolumeOp::List { after })) else {
            panic!("expected a page")
        };
        all.extend(page.into_vec());
        if !more {
            return all;
        }
    }
}

/// A guest that lives until it is killed, and has `name`.
fn user(peer: &mut Peer, instance: u64, name: &str) -> Spawn {
    let mut user = spawn(instance, peer.store(GUEST), "exec sleep 1000");
    let block = SpawnBlock { device: "disk".parse().unwrap(), volume: volume(name) };
    user.blocks = vec![block].try_into().unwrap();
    user
}

#[test]
fn given_a_new_volume_when_it_is_listed_then_it_has_its_size_takes_no_space_and_is_roots_alone() {
    inside(
        "given_a_new_volume_when_it_is_listed_then_it_has_its_size_takes_no_space_and_is_roots_alone",
        || {
            let site = Site::up();
            let mut peer = site.connect();
            peer.done(create("acme:web:data", 1024 * MIB));
            assert_eq!(peer.ask(create("acme:web:data", MIB)), Err(Fault::Exists));
            let (volume, bytes) = (volume("acme:web:data"), 1024 * MIB);
            let expected = VolumeFile { volume, bytes, disk_bytes: 0 };
            assert_eq!(list(&mut peer), [expected]);
            let metadata = fs::metadata(site.volume("acme:web:data")).unwrap();
            assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (1024 * MIB, 0o600));
            peer.done(remove("acme:web:data"));
            assert!(!site.volume("acme:web:data").exists());
            assert_eq!(peer.ask(remove("acme:web:data")), Err(Fault::NoVolume));
        },
    );
}

#[test]
fn given_a_volume_with_holes_when_it_is_read_then_the_holes_are_left_out() {
    inside("given_a_volume_with_holes_when_it_is_read_then_the_holes_are_left_out", || {
        let site = Site::up();
        let mut peer = site.connect();
        peer.done(create("a", 100 * MIB));
        assert_eq!(read(&mut peer, "a", 0), (100 * MIB, Vec::new()));
        peer.done(write("a", 64 * MIB, b"in the middle"));
        peer.done(write("a", 100 * MIB - 4, b"last"));
        let (offset, data) = read(&mut peer, "a", 5);
        assert_eq!((offset, data.len()), (64 * MIB, CHUNK_BYTES_MAX));
        assert!(data.starts_with(b"in the middle\0"));
        let (offset, data) = read(&mut peer, "a", 65 * MIB);
        assert!(offset + data.len() as u64 == 100 * MIB && data.ends_with(b"\0last"));
        assert!(list(&mut peer)[0].disk_bytes < MIB);
        peer.done(Op::Volume(VolumeOp::Sync(volume("a"))));
        // What is written beyond the end would take space that nobody counts.
        peer.send(write("a", 100 * MIB - 4, b"beyond"));
        assert!(peer.is_cut_off());
        site.wait_for_log("violation: a write beyond the end of a volume");
        assert_eq!(fs::metadata(site.volume("a")).unwrap().len(), 100 * MIB);
    });
}

#[test]
fn given_a_draft_when_it_is_renamed_then_it_is_the_volume_and_the_old_one_is_gone() {
    inside("given_a_draft_when_it_is_renamed_then_it_is_the_volume_and_the_old_one_is_gone", || {
        let site = Site::up();
        let mut peer = site.connect();
        peer.done(create("a", 512));
        peer.done(write("a", 0, b"old"));
        peer.done(create("~1", 1024));
        peer.done(write("~1", 0, b"new"));
        assert!(read(&mut peer, "a", 0).1.starts_with(b"old"));
        peer.done(rename("~1", "a"));
        assert_eq!(fs::read_dir(site.folder.join("state/volumes")).unwrap().count(), 1);
        assert!(read(&mut peer, "a", 0).1.starts_with(b"new"));
        let listed = list(&mut peer);
        assert_eq!((listed.len(), listed[0].bytes), (1, 1024));
        assert_eq!(peer.ask(rename("~1", "a")), Err(Fault::NoVolume));
    });
}

#[test]
fn given_a_volume_when_it_is_copied_piece_by_piece_then_the_copy_is_the_same_and_keeps_its_holes() {
    inside(
        "given_a_volume_when_it_is_copied_piece_by_piece_then_the_copy_is_the_same_and_keeps_its_holes",
        || {
            let site = Site::up();
            let mut peer = site.connect();
            peer.done(create("a", 200 * MIB));
            let file = fs::OpenOptions::new().write(true).open(site.volume("a")).unwrap();
            let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
            file.write_all_at(&content, 7 * MIB).unwrap();
            file.write_all_at(b"end", 200 * MIB - 3).unwrap();
            peer.done(create("b", 200 * MIB));
            let clone = peer.ask(Op::Volume(VolumeOp::Clone { from: volume("a"), to: volume("b") }));
            if clone.is_err() {
                let (mut next, mut steps) = (0, 0);
                loop {
                    let (offset, data) = read(&mut peer, "a", next);
                    assert!(offset >= next);
                    if data.is_empty() {
                        break;
                    }
                    peer.done(write("b", offset, &data));
                    (next, steps) = (offset + data.len() as u64, steps + 1);
                }
                assert!(steps < 2 + 2 * content.len() / CHUNK_BYTES_MAX, "holes are skipped: {steps}");
            }
            assert!(fs::read(site.volume("a")).unwrap() == fs::read(site.volume("b")).unwrap());
            let blocks = |name| fs::metadata(site.volume(name)).unwrap().blocks() * 512;
            assert!(blocks("b") <= blocks("a") + MIB, "{} {}", blocks("a"), blocks("b"));
        },
    );
}

#[test]
fn given_a_monitor_with_a_volume_when_it_runs_then_the_volume_can_be_read_and_grown_and_no_more() {
    inside(
        "given_a_monitor_with_a_volume_when_it_runs_then_the_volume_can_be_read_and_grown_and_no_more",
        || {
            let site = Site::up();
            let mut peer = site.connect();
            for name in ["a", "~1"] {
                peer.done(create(name, 1024));
            }
            let (first, second) = (user(&mut peer, 1, "a"), user(&mut peer, 2, "none"));
            assert_eq!(peer.ask(Op::Spawn(Box::new(second))), Err(Fault::NoVolume));
            peer.spawned(first);
            for op in
                [remove("a"), resize("a", 512), write("a", 0, b"x"), rename("~1", "a"), rename("a", "b")]
            {
                assert_eq!(peer.ask(op.clone()), Err(Fault::InUse), "{op:?}");
            }
            peer.done(create("~2", 1024));
            let clone = Op::Volume(VolumeOp::Clone { from: volume("~2"), to: volume("a") });
            assert_eq!(peer.ask(clone), Err(Fault::InUse));
            peer.done(resize("a", 2048));
            assert!(read(&mut peer, "a", 0).1.iter().all(|byte| *byte == 0));
            peer.done(Op::Kill(InstanceId(1)));
            peer.until_exit(1);
            peer.done(resize("a", 512));
            peer.done(rename("~1", "a"));
            peer.done(remove("a"));
        },
    );
}

#[test]
fn given_a_bound_for_volumes_when_it_is_reached_then_no_more_space_is_given() {
    inside("given_a_bound_for_volumes_when_it_is_reached_then_no_more_space_is_given", || {
        let mut site = Site::up();
        site.kill_shim();
        let file = site.folder.join("shim.toml");
        let configuration = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("volumes_mib = 2\n{configuration}")).unwrap();
        site.start_shim();
        let mut peer = site.connect();
        let Ok(Reply::Host(host)) = peer.ask(Op::Host) else { panic!("expected the host's facts") };
        assert_eq!(host.volumes_mib, Some(2));
        assert_eq!(peer.ask(create("a", 2 * MIB + 1)), Err(Fault::Full));
        assert_eq!(peer.ask(create("a", u64::MAX)), Err(Fault::Full));
        peer.done(create("a", MIB));
        peer.done(create("~1", MIB));
        assert_eq!(peer.ask(create("b", 1)), Err(Fault::Full));
        assert_eq!(peer.ask(resize("a", MIB + 1)), Err(Fault::Full));
        peer.done(remove("~1"));
        peer.done(resize("a", 2 * MIB));
        // A shim that comes back counts what is there.
        drop(peer);
        site.kill_shim();
        site.start_shim();
        let mut peer = site.connect();
        assert_eq!(peer.ask(create("b", 1)), Err(Fault::Full));
        peer.done(resize("a", MIB));
        peer.done(create("b", 512));
    });
}

#[test]
fn given_files_that_are_no_volumes_when_they_are_listed_or_used_then_they_are_not_there() {
    inside("given_files_that_are_no_volumes_when_they_are_listed_or_used_then_they_are_not_there", || {
        let site = Site::up();
        let mut peer = site.connect();
        fs::write(site.volume("by-hand"), b"put there").unwrap();
        fs::create_dir(site.volume("folder")).unwrap();
        fs::write(site.volume("not a name"), b"").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", site.volume("link")).unwrap();
        let names: Vec<_> = list(&mut peer).into_iter().map(|file| file.volume.to_string()).collect();
        assert_eq!(names, ["by-hand"]);
        for (instance, name) in [(1, "folder"), (2, "link")] {
            let user = user(&mut peer, instance, name);
            assert_eq!(peer.ask(Op::Spawn(Box::new(user))), Err(Fault::NoVolume));
            assert_eq!(peer.ask(remove(name)), Err(Fault::NoVolume));
            assert!(matches!(peer.ask(create(name, 512)), Err(Fault::Os { .. })), "it does not replace it");
        }
        assert_eq!(fs::read_link(site.volume("link")).unwrap().to_str(), Some("/etc/passwd"));
        // One that was swapped for a link after it was listed is not followed either.
        fs::remove_file(site.volume("by-hand")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", site.volume("by-hand")).unwrap();
        let swapped = user(&mut peer, 3, "by-hand");
        assert_eq!(peer.ask(Op::Spawn(Box::new(swapped))), Err(Fault::NoVolume));
        assert_eq!(peer.ask(write("by-hand", 0, b"x")), Err(Fault::NoVolume));
    });
}

#[test]
fn given_many_volumes_and_images_when_they_are_listed_then_pages_hold_each_once_in_order() {
    inside("given_many_volumes_and_images_when_they_are_listed_then_pages_hold_each_once_in_order", || {
        let site = Site::up();
        let mut peer = site.connect();
        let count = 2 * PAGE_ENTRIES_MAX + 3;
        (0..count).for_each(|i| fs::write(site.volume(&format!("v{i}")), b"").unwrap());
        let names: Vec<_> = list(&mut peer).into_iter().map(|file| file.volume).collect();
        assert!(names.len() == count && names.is_sorted());
        let mut expected: Vec<_> = (0..count)
            .map(|i| (peer.store(format!("# {i:0i$}").as_bytes()), format!("# {i:0i$}").len() as u64))
            .collect();
        expected.sort_unstable();
        let mut images = Vec::new();
        loop {
            let after = images.last().map(|(digest, _)| *digest);
            let Ok(Reply::Images { page, more }) = peer.ask(Op::ImageList { after }) else {
                panic!("expected a page")
            };
            images.extend(page.into_vec());
            if !more {
                break;
            }
        }
        assert_eq!(images, expected);
    });
}
