//! What lives on when the shim or the control plane does not.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use petrel_shim::ledger::Record;
use petrel_wire::frame::{self, HEADER_BYTES};
use petrel_wire::shim::{InstanceId, Op};
use petrel_wire::{Blob, ExitStatus};

use crate::list;
use crate::support::{GUEST, Site, inside, interface_exists, interface_index, is_alive, kill_9, run, spawn};

#[test]
fn given_running_monitors_when_the_shim_is_killed_then_the_next_one_takes_them_over() {
    inside(
        "restart::given_running_monitors_when_the_shim_is_killed_then_the_next_one_takes_them_over",
        || {
            let mut site = Site::up();
            let mut peer = site.connect();
            let image = peer.store(GUEST);
            let mut living = spawn(1, image, "while :; do echo tick; sleep 0.05; done");
            living.tag = Blob::try_from(&b"remember me"[..]).unwrap();
            let pid = peer.spawned(living);
            peer.spawn(2, image, "exit 4");
            peer.until_exit(2);
            site.kill_shim();
            drop(peer);
            site.start_shim();
            let mut peer = site.connect();
            let listed = list(&mut peer);
            assert_eq!((listed[0].pid, listed[0].exited, &*listed[0].tag), (pid, None, &b"remember me"[..]));
            assert_eq!(listed[1].exited, Some(ExitStatus::Unknown));
            peer.until_console(1, "tick");
            peer.done(Op::Kill(InstanceId(1)));
            assert_eq!(peer.until_exit(1).1, ExitStatus::Unknown, "it was another shim's child");
        },
    );
}

#[test]
fn given_a_monitor_that_was_never_acknowledged_when_the_shim_starts_then_it_is_ended() {
    inside(
        "restart::given_a_monitor_that_was_never_acknowledged_when_the_shim_starts_then_it_is_ended",
        || {
            let mut site = Site::up();
            let mut peer = site.connect();
            let image = peer.store(GUEST);
            let pid = peer.spawn(1, image, "echo up; exec sleep 1000");
            peer.until_console(1, "up");
            site.kill_shim();
            fs::remove_file(site.run_folder().join("1/record")).unwrap();
            site.start_shim();
            let mut peer = site.connect();
            assert_eq!(list(&mut peer), []);
            assert!(!is_alive(pid));
        },
    );
}

#[test]
fn given_a_control_plane_when_it_ends_then_it_is_brought_back_with_the_same_taps() {
    inside("restart::given_a_control_plane_when_it_ends_then_it_is_brought_back_with_the_same_taps", || {
        let mut site = Site::up();
        let taps = || ["petrel-service", "petrel-link"].map(interface_index);
        site.wait_for_log("petrel.hvt: control plane --mem=32 --net:service=@");
        let first = taps();
        for _ in 0..3 {
            kill_9(site.monitor_pid(0));
            site.wait_for_log("control plane ended: signal 9");
            site.wait_for_log("petrel.hvt: control plane --mem=32 --net:service=@");
            assert_eq!(taps(), first);
        }
        let pid = site.monitor_pid(0);
        site.kill_shim();
        site.start_shim();
        assert_eq!(site.monitor_pid(0), pid, "a living one is taken over");
        site.connect();
    });
}

#[test]
fn given_a_control_plane_that_another_shim_started_when_it_ends_then_it_gets_new_taps() {
    inside(
        "restart::given_a_control_plane_that_another_shim_started_when_it_ends_then_it_gets_new_taps",
        || {
            let mut site = Site::up();
            site.kill_shim();
            site.start_shim();
            kill_9(site.monitor_pid(0));
            site.wait_for_log("petrel.hvt: control plane --mem=32 --net:service=@");
            assert!(interface_exists("petrel-service") && interface_exists("petrel-link"));
            site.connect();
        },
    );
}

#[test]
fn given_a_control_plane_whose_link_is_gone_when_the_shim_starts_then_it_listens_all_the_same() {
    inside(
        "restart::given_a_control_plane_whose_link_is_gone_when_the_shim_starts_then_it_listens_all_the_same",
        || {
            let mut site = Site::up();
            site.kill_shim();
            // As when the control plane is just ending: its monitor is there, its tap is not.
            run("ip", &["link", "delete", "petrel-link"]);
            site.start_shim();
            kill_9(site.monitor_pid(0));
            site.wait_for_log("control plane started");
            site.connect();
        },
    );
}

#[test]
fn given_no_bridge_for_the_control_plane_when_it_comes_then_the_control_plane_does_too() {
    inside(
        "restart::given_no_bridge_for_the_control_plane_when_it_comes_then_the_control_plane_does_too",
        || {
            let mut site = Site::up();
            site.kill_shim();
            kill_9(site.monitor_pid(0));
            run("ip", &["link", "delete", "service"]);
            site.begin_shim();
            site.wait_for_log("control plane not started: its taps take /dev/net/tun, CAP_NET_ADMIN and");
            run("ip", &["link", "add", "service", "type", "bridge"]);
            site.wait_for_log("control plane started");
            site.connect();
        },
    );
}

#[test]
fn given_a_shim_when_another_is_started_then_it_waits_until_the_first_has_ended() {
    inside("restart::given_a_shim_when_another_is_started_then_it_waits_until_the_first_has_ended", || {
        let mut site = Site::up();
        let mut second = site.command().stderr(Stdio::piped()).spawn().unwrap();
        let mut log = second.stderr.take().unwrap();
        let mut said = String::new();
        let mut until = |word: &str| {
            while !said.contains(word) {
                let mut byte = [0];
                log.read_exact(&mut byte).unwrap();
                said.push(char::from(byte[0]));
            }
        };
        until("another petrel-shim uses");
        site.connect();
        site.kill_shim();
        until("listening on");
        site.connect();
        second.kill().unwrap();
        second.wait().unwrap();
    });
}

#[test]
fn given_a_record_that_this_release_cannot_read_when_the_shim_starts_then_it_ends_but_no_monitor_does() {
    inside(
        "restart::given_a_record_that_this_release_cannot_read_when_the_shim_starts_then_it_ends_but_no_monitor_does",
        || {
            let mut site = Site::up();
            let mut peer = site.connect();
            let image = peer.store(GUEST);
            let pid = peer.spawn(1, image, "echo up; exec sleep 1000");
            peer.until_console(1, "up");
            site.kill_shim();
            let record = site.run_folder().join("1/record");
            let good = fs::read(&record).unwrap();
            fs::write(&record, [3, 0, 0, 0, 0xff, 0xff, 0xff]).unwrap();
            let said = site.refusal("", "");
            assert!(said.contains("run/1: a frame that is not one well-formed message"), "{said}");
            assert!(is_alive(pid));
            fs::write(&record, good).unwrap();
            site.start_shim();
            let mut peer = site.connect();
            assert_eq!(list(&mut peer)[0].pid, pid);
        },
    );
}

#[test]
fn given_a_pid_that_another_process_has_now_when_the_shim_starts_then_the_monitor_has_ended() {
    inside(
        "restart::given_a_pid_that_another_process_has_now_when_the_shim_starts_then_the_monitor_has_ended",
        || {
            let mut site = Site::up();
            let mut peer = site.connect();
            let image = peer.store(GUEST);
            let pids = [1, 2].map(|instance| {
                let pid = peer.spawn(instance, image, "echo up; exec sleep 1000");
                peer.until_console(instance, "up");
                pid
            });
            site.kill_shim();
            // What is recorded of the second is true of no process: its pid is the first one's.
            let file = |instance| site.run_folder().join(format!("{instance}/record"));
            let mut record: Record = frame::decode(&fs::read(file(2)).unwrap()[HEADER_BYTES..]).unwrap();
            record.listed.pid = pids[0];
            record.started.push('0');
            let mut bytes = Vec::new();
            frame::encode(&record, &mut bytes).unwrap();
            fs::write(file(2), bytes).unwrap();
            site.start_shim();
            let mut peer = site.connect();
            let exited: Vec<_> = list(&mut peer).iter().map(|listed| listed.exited).collect();
            assert_eq!(exited, [None, Some(ExitStatus::Unknown)]);
            peer.done(Op::Kill(InstanceId(2)));
            assert!(is_alive(pids[0]));
            kill_9(pids[1]);
        },
    );
}
