//! What the shim makes of what an earlier one has left.
#![allow(dead_code, unused_imports, reason = "the support is shared with the other tests")]

mod support;

use std::fs;

use petrel_shim::ledger::Record;
use petrel_wire::frame::{self, Inbox};
use petrel_wire::shim::{Fault, InstanceId, Op, Reply, Spawn, SpawnBlock, VolumeOp};
use petrel_wire::{Digest, ExitStatus};
use support::{GUEST, Peer, Site, inside, spawn};

fn with_volume(instance: u64, image: Digest, command: &str) -> Spawn {
    let block = SpawnBlock { device: "disk".parse().unwrap(), volume: "data".parse().unwrap() };
    Spawn { blocks: vec![block].try_into().unwrap(), ..spawn(instance, image, command) }
}

#[test]
fn given_monitors_that_had_a_volume_when_the_shim_is_killed_then_it_stays_with_the_one_that_runs() {
    inside(
        "given_monitors_that_had_a_volume_when_the_shim_is_killed_then_it_stays_with_the_one_that_runs",
        || {
            let mut site = Site::up();
            let mut peer = site.connect();
            let image = peer.store(GUEST);
            fs::write(site.volume("data"), [0; 512]).unwrap();
            let listed = peer.ask(Op::Volume(VolumeOp::List { after: None }));
            assert!(matches!(listed, Ok(Reply::Volumes { .. })), "{listed:?}");
            let before_and_after: Vec<u64> = (1..=8).chain(10..=17).collect();
            for &ended in &before_and_after {
                peer.spawned(with_volume(ended, image, "exit 0"));
                peer.until_exit(ended);
            }
            peer.spawned(with_volume(9, image, "exec sleep 1000"));
            site.kill_shim();
            drop(peer);
            site.start_shim();
            let mut peer = site.connect();
            let again = peer.ask(Op::Spawn(Box::new(with_volume(20, image, "exit 0"))));
            assert_eq!(again, Err(Fault::InUse));
            let removed = peer.ask(Op::Volume(VolumeOp::Remove("data".parse().unwrap())));
            assert_eq!(removed, Err(Fault::InUse));
        },
    );
}

#[test]
fn given_a_number_that_is_a_threads_now_when_the_shim_starts_then_its_monitor_has_ended() {
    inside("given_a_number_that_is_a_threads_now_when_the_shim_starts_then_its_monitor_has_ended", || {
        let mut site = Site::up();
        let mut peer = site.connect();
        let image = peer.store(GUEST);
        peer.spawn(1, image, "exit 0");
        peer.until_exit(1);
        site.kill_shim();
        let file = site.run_folder().join("1/record");
        let mut inbox = Inbox::default();
        inbox.back().extend(fs::read(&file).unwrap());
        let mut record = inbox.next_message::<Record>().unwrap().unwrap();
        let ourselves = std::process::id();
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let mut threads =
            threads.map(|entry| entry.unwrap().file_name().into_string().unwrap().parse::<u32>().unwrap());
        record.listed.pid = threads.find(|thread| *thread != ourselves).unwrap();
        let mut bytes = Vec::new();
        frame::encode(&record, &mut bytes).unwrap();
        fs::write(&file, bytes).unwrap();
        drop(peer);
        site.start_shim();
        let mut peer = site.connect();
        let Ok(Reply::Listed { page, .. }) = peer.ask(Op::List { after: None }) else { panic!() };
        assert_eq!(page[0].exited, Some(ExitStatus::Unknown));
    });
}

/// What the service's unit lets it have, as setpriv(1) takes it; the rest it would miss without anybody seeing why.
fn rights_of_the_service() -> String {
    let unit = include_str!("../../systemd/petrel-shim.service");
    let all = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let names = all.split(' ').map(|name| name.strip_prefix("CAP_").unwrap().to_lowercase());
    names.fold("-all".to_owned(), |rights, name| format!("{rights},+{name}"))
}

#[test]
fn given_the_rights_of_the_service_then_monitors_start_are_told_of_and_are_found_again() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root has rights to give up");
    }
    inside("given_the_rights_of_the_service_then_monitors_start_are_told_of_and_are_found_again", || {
        let mut site = Site::up();
        site.kill_shim();
        site.rights = Some(rights_of_the_service());
        site.start_shim();
        let mut peer = site.connect();
        let image = peer.store(GUEST);
        for instance in 1..=3 {
            peer.spawn(instance, image, "echo up; exec sleep 1000");
            peer.until_console(instance, "up");
        }
        let asked = vec![InstanceId(1), InstanceId(2), InstanceId(3)];
        let Ok(Reply::Stats { page, .. }) = peer.ask(Op::Stats(asked.try_into().unwrap())) else { panic!() };
        assert!(page.iter().all(|usage| !usage.io.is_empty()) && page.len() == 3, "{page:?}");
        peer.done(Op::Kill(InstanceId(3)));
        peer.until_exit(3);
        site.kill_shim();
        drop(peer);
        fs::remove_file(site.run_folder().join("2/record")).unwrap();
        let logged = site.start_shim();
        assert!(logged.iter().any(|line| line.contains("never acknowledged: ended")), "{logged:#?}");
        let mut peer = site.connect();
        peer.done(Op::Kill(InstanceId(1)));
        peer.until_exit(1);
    });
}
