//! What the shim tells of its monitors, and what the kernel holds them to.
#![allow(dead_code, unused_imports, reason = "the support is shared with the other tests")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use petrel_wire::shim::{Host, InstanceId, Limit, Op, Reply, SpawnNet, TapId, Usage};
use petrel_wire::{ExitStatus, Mac};
use support::{GUEST, Peer, Site, inside, spawn};

/// What the shim tells of these: the host's uptime in seconds, and of each that runs what the kernel says.
fn usage(peer: &mut Peer, instances: &[u64]) -> (f64, Vec<Usage>) {
    let instances: Vec<_> = instances.iter().map(|id| InstanceId(*id)).collect();
    match peer.ask(Op::Stats(instances.try_into().unwrap())) {
        Ok(Reply::Stats { uptime, page }) => {
            let uptime = String::from_utf8(uptime.into_vec()).unwrap();
            (uptime.split(' ').next().unwrap().parse().unwrap(), page.into_vec())
        }
        other => panic!("expected statistics, got {other:?}"),
    }
}

/// A field of proc(5)'s `stat`, by its number there.
fn field(usage: &Usage, number: usize) -> u64 {
    let stat = String::from_utf8(usage.stat.to_vec()).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(number - 3).unwrap().parse().unwrap()
}

/// The columns of the line of a tap in proc(5)'s `net/dev`.
fn columns(usage: &Usage, net: usize) -> Vec<u64> {
    let line = String::from_utf8(usage.nets[net].to_vec()).unwrap();
    line.split_once(':').unwrap().1.split_whitespace().map(|column| column.parse().unwrap()).collect()
}

fn host(peer: &mut Peer) -> Host {
    match peer.ask(Op::Host) {
        Ok(Reply::Host(host)) => *host,
        other => panic!("expected the host, got {other:?}"),
    }
}

#[test]
fn given_monitors_when_statistics_are_asked_for_then_those_that_run_are_told() {
    inside("given_monitors_when_statistics_are_asked_for_then_those_that_run_are_told", || {
        let site = Site::up();
        let mut peer = site.connect();
        let image = peer.store(GUEST);
        // Takes 4 MiB and some time on a CPU, then does little.
        let take =
            "x=$(head -c 4194304 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        peer.spawn(1, image, &format!("{take}; echo spent; while :; do sleep 0.05; done"));
        peer.spawn(2, image, "exit 0");
        peer.until_exit(2);
        peer.spawn(3, image, "exec sleep 1000");
        peer.until_console(1, "spent");
        let (uptime, told) = usage(&mut peer, &[3, 2, 1, 77, 0]);
        let instances: Vec<_> = told.iter().map(|usage| usage.instance.0).collect();
        assert_eq!(instances, [3, 1], "those that run, in the order asked");
        let (idle, busy) = (&told[0], &told[1]);
        let cpu = |usage| field(usage, 14) + field(usage, 15);
        assert!(cpu(busy) > cpu(idle), "{} {}", cpu(busy), cpu(idle));
        let started = |usage| field(usage, 22) as f64 / 100.0;
        assert!(started(busy) <= started(idle) && started(idle) <= uptime, "{} {uptime}", started(idle));
        assert!(field(busy, 24) >= 1024, "4 MiB are 1024 pages: {}", field(busy, 24));
        assert!(busy.nets.is_empty() && busy.io.starts_with(b"rchar: "), "{busy:?}");
        assert_eq!(usage(&mut peer, &[]).1, []);
    });
}

#[test]
fn given_a_guest_that_writes_and_one_with_a_tap_then_bytes_and_frames_are_counted() {
    inside("given_a_guest_that_writes_and_one_with_a_tap_then_bytes_and_frames_are_counted", || {
        let site = Site::up();
        let mut peer = site.connect();
        let image = peer.store(GUEST);
        // On /var/tmp or where the test's folder is: a file system with storage behind it, if this machine has one.
        let file = site.folder.join("written");
        fs::write(&file, b"").unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let write = format!(
            "dd if=/dev/zero of={} bs=4096 count=256 2>&1; echo done; exec sleep 1000",
            file.display()
        );
        peer.spawn(1, image, &write);
        peer.until_console(1, "done");
        // The writer is a child of the monitor that is reaped by it, so it is part of what the monitor used.
        let io = String::from_utf8(usage(&mut peer, &[1]).1[0].io.to_vec()).unwrap();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok());
        match written {
            Some(1..) => assert!(written >= Some(1 << 20), "{io}"),
            _ => println!("skipped: this file system counts no bytes to storage ({io})"),
        }
        peer.done(Op::TapCreate { tap: TapId(5), bridge: "service".parse().unwrap() });
        let net = SpawnNet { device: "net0".parse().unwrap(), tap: TapId(5), mac: Mac([2, 0, 0, 0, 0, 1]) };
        let mut with_tap = spawn(2, image, "exec sleep 1000");
        with_tap.nets = vec![net].try_into().unwrap();
        peer.spawned(with_tap);
        assert_eq!(usage(&mut peer, &[2]).1[0].nets.len(), 1);
        // What the host sends over the bridge is flooded to the tap. This guest takes nothing from it.
        for words in
            [&["link", "set", "service", "up"][..], &["address", "add", "10.9.9.1/24", "dev", "service"]]
        {
            assert!(std::process::Command::new("ip").args(words).status().unwrap().success());
        }
        let socket = std::net::UdpSocket::bind("10.9.9.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < until, "nothing is counted: {:?}", usage(&mut peer, &[2]));
            (0..100).for_each(|_| drop(socket.send_to(&[0; 100], "10.9.9.255:9")));
            let columns = columns(&usage(&mut peer, &[2]).1[0], 0);
            assert_eq!((columns[0], columns[9]), (0, 0), "it neither sends nor takes");
            if columns[11] > 0 {
                break;
            }
        }
    });
}

/// The control groups of the process `pid` that hold limits: `(file, content)` of each.
fn limits_of(site: &Site, instance: u64, pid: u32) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for group in groups_of(site, instance) {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap();
        assert!(
            members.lines().any(|member| member == pid.to_string()),
            "{} is in {members:?}",
            group.display()
        );
        for file in ["memory.max", "memory.limit_in_bytes", "pids.max", "cpu.weight", "cpu.shares"] {
            if let Ok(content) = fs::read_to_string(group.join(file)) {
                found.push((file.into(), content.trim().into()));
            }
        }
    }
    found
}

fn groups_of(site: &Site, instance: u64) -> Vec<PathBuf> {
    let groups = site.group_folders().into_iter().map(|folder| folder.join(instance.to_string()));
    groups.filter(|group| group.exists()).collect()
}

#[test]
fn given_a_host_with_control_groups_when_a_monitor_runs_then_it_is_held_in_its_own_until_it_ends() {
    inside(
        "given_a_host_with_control_groups_when_a_monitor_runs_then_it_is_held_in_its_own_until_it_ends",
        || {
            let mut site = Site::up();
            let mut peer = site.connect();
            let told = host(&mut peer).limits;
            if told.is_empty() {
                return println!("skipped: this user cannot make control groups here");
            }
            let image = peer.store(GUEST);
            let pid = peer.spawn(1, image, "echo up; exec sleep 1000");
            peer.until_console(1, "up");
            let held = limits_of(&site, 1, pid);
            let has = |file: &str, value: u64| held.contains(&(file.into(), value.to_string()));
            let memory = (16 + 32) << 20;
            assert_eq!(
                told.contains(&Limit::Memory),
                has("memory.max", memory) || has("memory.limit_in_bytes", memory)
            );
            assert_eq!(told.contains(&Limit::Processes), has("pids.max", 16), "{held:?}");
            assert_eq!(
                told.contains(&Limit::CpuShare),
                has("cpu.weight", 100) || has("cpu.shares", 1024),
                "{held:?}"
            );
            // The next shim leaves it where it is, and takes away what nobody is in.
            let orphans: Vec<_> = site.group_folders().iter().map(|folder| folder.join("4711")).collect();
            orphans.iter().for_each(|orphan| fs::create_dir(orphan).unwrap());
            site.kill_shim();
            site.start_shim();
            assert_eq!(limits_of(&site, 1, pid), held);
            assert!(orphans.iter().all(|orphan| !orphan.exists()));
            let mut peer = site.connect();
            peer.done(Op::Kill(InstanceId(1)));
            peer.until_exit(1);
            peer.done(Op::Forget(InstanceId(1)));
            assert_eq!(groups_of(&site, 1), Vec::<PathBuf>::new());
        },
    );
}

#[test]
fn given_a_memory_limit_when_a_monitor_takes_more_then_the_kernel_ends_it_and_nobody_else() {
    inside("given_a_memory_limit_when_a_monitor_takes_more_then_the_kernel_ends_it_and_nobody_else", || {
        let site = Site::up();
        let mut peer = site.connect();
        if !host(&mut peer).limits.contains(&Limit::Memory) {
            return println!("skipped: this user cannot limit memory here");
        }
        let image = peer.store(GUEST);
        let bystander = peer.spawn(1, image, "echo up; exec sleep 1000");
        // A shell variable of 64 MiB, where the guest's 16 and the monitor's own 32 are allowed.
        peer.spawn(2, image, "x=$(head -c 67108864 /dev/zero | tr '\\0' x); echo ${#x}; exec sleep 1000");
        assert_eq!(peer.until_exit(2), (String::new(), ExitStatus::Signal(9)));
        assert!(
            fs::read_to_string(format!("/proc/{bystander}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
        );
        peer.done(Op::Kill(InstanceId(1)));
    });
}
