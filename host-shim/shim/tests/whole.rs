//! The real shim, between a peer that plays the control plane and monitors that are shell scripts.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use petrel_wire::limits::FRAME_BYTES_MAX;
use petrel_wire::shim::{
    Backend, Event, Fault, InstanceId, Listed, Op, Reply, SpawnBlock, SpawnNet, TapId, VolumeOp,
};
use petrel_wire::{Blob, ExitStatus, Mac};
use support::{GUEST, Keys, Peer, Site, inside, interface_exists, interface_index, sha256, spawn};

fn tap_create(tap: u32, bridge: &str) -> Op {
    Op::TapCreate { tap: TapId(tap), bridge: bridge.parse().unwrap() }
}

fn list(peer: &mut Peer) -> Vec<Listed> {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let Ok(Reply::Listed { page, more }) = peer.ask(Op::List { after }) else {
            panic!("expected a page")
        };
        listed.extend(page.into_vec());
        after = listed.last().map(|last: &Listed| last.instance);
        if !more {
            return listed;
        }
    }
}

#[test]
fn given_an_image_when_it_is_uploaded_then_it_is_read_back_until_it_is_removed() {
    inside("given_an_image_when_it_is_uploaded_then_it_is_read_back_until_it_is_removed", || {
        let site = Site::up();
        let mut peer = site.connect();
        let image: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let digest = sha256(&image);
        peer.done(Op::ImageBegin { digest, bytes: image.len() as u64 });
        let again = peer.ask(Op::ImageBegin { digest, bytes: image.len() as u64 });
        assert_eq!(again, Err(Fault::Exists));
        assert!(!site.image_path(digest).exists(), "nothing is there before the commit");
        for chunk in image.chunks(30_000) {
            peer.send(Op::ImageChunk { digest, data: Blob::try_from(chunk).unwrap() });
        }
        peer.done(Op::ImageCommit(digest));
        assert_eq!(fs::read(site.image_path(digest)).unwrap(), image);
        // What is said of its size then is of no account.
        let stored = Reply::Stored { bytes: image.len() as u64 };
        assert_eq!(peer.ask(Op::ImageBegin { digest, bytes: 1 }), Ok(stored));
        let end = Op::ImageRead { digest, offset: 399_990, bytes: 100 };
        assert_eq!(peer.ask(end), Ok(Reply::Bytes(Blob::try_from(&image[399_990..]).unwrap())));
        peer.done(Op::ImageRemove(digest));
        assert!(!site.image_path(digest).exists());
        assert_eq!(peer.ask(Op::ImageRemove(digest)), Err(Fault::NotFound));
    });
}

#[test]
fn given_other_bytes_than_announced_when_they_are_committed_then_the_link_ends_and_nothing_is_stored() {
    inside(
        "given_other_bytes_than_announced_when_they_are_committed_then_the_link_ends_and_nothing_is_stored",
        || {
            let site = Site::up();
            let mut peer = site.connect();
            let digest = sha256(b"announced");
            peer.done(Op::ImageBegin { digest, bytes: 9 });
            peer.send(Op::ImageChunk { digest, data: Blob::try_from(&b"different"[..]).unwrap() });
            peer.send(Op::ImageCommit(digest));
            assert!(peer.is_cut_off());
            site.wait_for_log("violation: an image of another digest than announced");
            assert_eq!(fs::read_dir(site.folder.join("state/images")).unwrap().count(), 0);
            site.connect();
        },
    );
}

#[test]
fn given_a_frame_that_is_none_when_it_comes_then_the_link_ends() {
    inside("given_a_frame_that_is_none_when_it_comes_then_the_link_ends", || {
        let site = Site::up();
        let too_long = u32::try_from(FRAME_BYTES_MAX).unwrap() + 1;
        for bytes in [&too_long.to_le_bytes()[..], &[3, 0, 0, 0, 0xff, 0xff, 0xff]] {
            let mut peer = site.connect();
            peer.send_bytes(bytes);
            assert!(peer.is_cut_off());
            site.wait_for_log("violation: a frame");
        }
    });
}

#[test]
fn given_two_bridges_when_taps_are_created_then_only_the_configured_one_is_allowed() {
    inside("given_two_bridges_when_taps_are_created_then_only_the_configured_one_is_allowed", || {
        let site = Site::up();
        let mut peer = site.connect();
        peer.done(tap_create(7, "service"));
        assert_eq!(peer.ask(tap_create(7, "service")), Err(Fault::Exists));
        assert!(interface_exists("pt7"));
        peer.done(Op::TapDestroy(TapId(7)));
        assert!(!interface_exists("pt7"));
        peer.done(tap_create(8, "service"));
        peer.send(tap_create(9, "private"));
        assert!(peer.is_cut_off());
        site.wait_for_log("violation: a bridge that is not configured");
        site.connect();
        assert!(!interface_exists("pt8"), "a tap that nobody took ends with the link");
        assert!(!interface_exists("pt9"));
    });
}

#[test]
fn given_a_monitor_with_a_tap_and_a_volume_when_it_ends_then_both_are_free_again() {
    inside("given_a_monitor_with_a_tap_and_a_volume_when_it_ends_then_both_are_free_again", || {
        let site = Site::up();
        let mut peer = site.connect();
        let image = peer.store(GUEST);
        fs::write(site.volume("data"), b"on disk").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", site.volume("link")).unwrap();
        let listed = peer.ask(Op::Volume(VolumeOp::List { after: None }));
        assert!(
            matches!(listed, Ok(Reply::Volumes { .. })),
            "what was put there by hand is known when it is listed"
        );
        peer.done(tap_create(5, "service"));
        // Reads its volume where its options say it is, tells its options, and waits for a word on its tap.
        let script = "for o in $OPTIONS; do case $o in --block:*) cat ${o#*=};; esac; done; echo \"$OPTIONS\"; exec sleep 1000";
        let mut with_devices = spawn(1, image, script);
        let (device, volume) = ("disk".parse().unwrap(), "data".parse().unwrap());
        with_devices.blocks = vec![SpawnBlock { device, volume }].try_into().unwrap();
        let net = SpawnNet { device: "net0".parse().unwrap(), tap: TapId(5), mac: Mac([2, 0, 0, 0, 0, 1]) };
        with_devices.nets = vec![net].try_into().unwrap();
        let pid = peer.spawned(with_devices.clone());
        peer.until_console(1, "on disk --mem=16 --net:net0=@");
        assert_eq!(peer.ask(Op::TapDestroy(TapId(5))), Err(Fault::InUse));
        // Its shell may be closing some of its own just now.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let descriptors = descriptors.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        let descriptors: Vec<_> = descriptors.map(|target| target.display().to_string()).collect();
        assert!(descriptors.iter().any(|target| target == "/dev/net/tun"), "{descriptors:?}");
        assert!(!descriptors.iter().any(|target| target.contains("socket")), "{descriptors:?}");
        let other = petrel_wire::shim::Spawn {
            instance: InstanceId(2),
            nets: Default::default(),
            ..with_devices.clone()
        };
        assert_eq!(peer.ask(Op::Spawn(Box::new(other.clone()))), Err(Fault::InUse));
        peer.done(Op::Kill(InstanceId(1)));
        assert_eq!(peer.until_exit(1).1, ExitStatus::Signal(9));
        assert!(!interface_exists("pt5"), "its tap is gone when its end is told");
        peer.spawned(other.clone());
        peer.done(Op::Kill(InstanceId(2)));
        peer.until_exit(2);
        for (instance, volume) in [(3, "link"), (4, "none")] {
            let mut with = petrel_wire::shim::Spawn { instance: InstanceId(instance), ..other.clone() };
            with.blocks =
                vec![SpawnBlock { device: "disk".parse().unwrap(), volume: volume.parse().unwrap() }]
                    .try_into()
                    .unwrap();
            assert_eq!(peer.ask(Op::Spawn(Box::new(with))), Err(Fault::NoVolume));
        }
    });
}

#[test]
fn given_a_guest_when_it_ends_then_its_console_comes_before_its_status_and_it_stays_listed_until_forgotten() {
    inside(
        "given_a_guest_when_it_ends_then_its_console_comes_before_its_status_and_it_stays_listed_until_forgotten",
        || {
            let site = Site::up();
            let mut peer = site.connect();
            let image = peer.store(GUEST);
            let pid = peer.spawn(1 << 63, image, "seq 1 50000; exit 3");
            assert_eq!(peer.ask(Op::Forget(InstanceId(1 << 63))), Err(Fault::InUse));
            let (console, status) = peer.until_exit(1 << 63);
            let expected: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
            assert!(console == expected, "{} bytes of {}", console.len(), expected.len());
            assert_eq!(status, ExitStatus::Code(3));
            let listed = list(&mut peer);
            assert_eq!((listed.len(), listed[0].pid, listed[0].exited), (1, pid, Some(status)));
            peer.done(Op::Kill(InstanceId(1 << 63)));
            peer.done(Op::Forget(InstanceId(1 << 63)));
            assert_eq!(peer.ask(Op::Forget(InstanceId(1 << 63))), Err(Fault::NotFound));
            assert_eq!(list(&mut peer), []);
            assert!(!site.run_folder().join((1u64 << 63).to_string()).exists());
        },
    );
}

#[test]
fn given_monitors_when_they_are_listed_then_pages_hold_each_once_in_order() {
    inside("given_monitors_when_they_are_listed_then_pages_hold_each_once_in_order", || {
        let site = Site::up();
        let mut peer = site.connect();
        let image = peer.store(GUEST);
        for instance in [9, 2, u64::MAX, 5, 1, 7] {
            peer.spawn(instance, image, "true");
        }
        let listed: Vec<_> = list(&mut peer).into_iter().map(|listed| listed.instance.0).collect();
        assert_eq!(listed, [1, 2, 5, 7, 9, u64::MAX]);
    });
}

#[test]
fn given_monitors_when_the_shim_is_root_then_each_has_a_user_of_its_own_and_no_environment() {
    inside("given_monitors_when_the_shim_is_root_then_each_has_a_user_of_its_own_and_no_environment", || {
        let site = Site::up();
        let mut peer = site.connect();
        let image = peer.store(GUEST);
        let pids = [1, 2001, 4000].map(|instance| {
            let pid = peer.spawn(instance, image, "echo up; exec sleep 1000");
            peer.until_console(instance, "up");
            pid
        });
        let field =
            |status: &str, name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let mut users = Vec::new();
        for pid in pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            assert_eq!(field(&status, "NoNewPrivs").split_whitespace().nth(1), Some("1"));
            assert_eq!(field(&status, "Groups").split_whitespace().count(), 1, "no supplementary groups");
            users.push(field(&status, "Uid"));
        }
        if field(&site.shim_status(), "Uid").contains("\t0\t")
            && fs::read_to_string(site.folder.join("shim.toml")).unwrap().contains("uids")
        {
            assert!(users.iter().all(|user| !user.contains("\t0")), "{users:?}");
            users.dedup();
            assert_eq!(users.len(), 3, "{users:?}");
        }
    });
}

#[test]
fn given_a_stranger_when_it_connects_then_it_is_refused_and_the_peer_notices_nothing() {
    inside("given_a_stranger_when_it_connects_then_it_is_refused_and_the_peer_notices_nothing", || {
        let site = Site::up();
        let mut peer = site.connect();
        let stranger = Keys { shim_public: site.keys.shim_public.clone(), ..Keys::new() };
        assert!(Peer::connect(&stranger).map_or(true, |mut stranger| stranger.is_cut_off()));
        site.wait_for_log("connection refused");
        assert_eq!(list(&mut peer), []);
    });
}

#[test]
fn given_a_link_when_the_peer_connects_anew_then_the_new_one_replaces_it() {
    inside("given_a_link_when_the_peer_connects_anew_then_the_new_one_replaces_it", || {
        let site = Site::up();
        let mut old = site.connect();
        let mut new = site.connect();
        assert!(old.is_cut_off());
        assert_eq!(list(&mut new), []);
        new.send(Op::Hello { version: 1 });
        assert!(new.is_cut_off());
        site.wait_for_log("violation: a request before hello, or a second hello");
    });
}

#[test]
fn given_running_monitors_when_the_shim_is_killed_then_the_next_one_takes_them_over() {
    inside("given_running_monitors_when_the_shim_is_killed_then_the_next_one_takes_them_over", || {
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
    });
}

#[test]
fn given_no_link_when_guests_write_and_end_then_that_is_told_when_the_peer_is_back() {
    inside("given_no_link_when_guests_write_and_end_then_that_is_told_when_the_peer_is_back", || {
        let site = Site::up();
        let mut peer = site.connect();
        let image = peer.store(GUEST);
        let marker = site.folder.join("go");
        fs::create_dir(&marker).unwrap();
        let wait = format!("while [ -d {} ]; do sleep 0.01; done;", marker.display());
        peer.spawn(1, image, &format!("{wait} echo last words; exit 5"));
        // More than a console's pipe holds: if nobody took it, it would not come to its end.
        let flood = peer.spawn(2, image, &format!("{wait} yes 123456789 | head -c 2000000; exit 6"));
        drop(peer);
        site.wait_for_log("control plane disconnected");
        fs::remove_dir(marker).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !fs::read_to_string(format!("/proc/{flood}/stat")).is_ok_and(|stat| stat.contains(") Z")) {
            if !std::path::Path::new(&format!("/proc/{flood}")).exists() {
                break;
            }
            assert!(Instant::now() < until, "the flooding guest is held up");
            std::thread::yield_now();
        }
        let mut peer = site.connect();
        let (mut words, mut got, mut lost, mut ends) = (Vec::new(), 0, (0, 0), Vec::new());
        while ends.len() < 2 {
            match peer.event() {
                Event::Console { instance: InstanceId(1), data } => words.extend_from_slice(&data),
                Event::Console { data, .. } => got += data.len() as u64,
                Event::ConsoleLost { instance, bytes, lines } => {
                    assert_eq!(instance, InstanceId(2));
                    lost = (lost.0 + bytes, lost.1 + lines);
                }
                Event::Exited { status, .. } => ends.push(status),
            }
        }
        assert_eq!(words, b"last words\n");
        assert_eq!(got + lost.0, 2_000_000);
        assert!(lost.0 > 0 && lost.0.abs_diff(10 * lost.1) < 10, "each line has ten bytes: {lost:?}");
        assert!(ends.contains(&ExitStatus::Code(5)) && ends.contains(&ExitStatus::Code(6)), "{ends:?}");
    });
}

#[test]
fn given_a_peer_that_does_not_listen_when_a_guest_floods_then_it_is_not_held_up_and_all_is_counted() {
    const FLOOD: u64 = 5_000_000;
    inside(
        "given_a_peer_that_does_not_listen_when_a_guest_floods_then_it_is_not_held_up_and_all_is_counted",
        || {
            let site = Site::up();
            // Whatever its own monitor has to say meanwhile.
            let chatty = "echo control plane; while :; do printf x; sleep 0.02; done";
            fs::write(site.folder.join("control-plane.sh"), chatty).unwrap();
            site.kill_control_plane();
            site.wait_for_log("petrel.hvt: x");
            let mut peer = site.connect();
            let image = peer.store(GUEST);
            let pid = peer.spawn(1, image, &format!("exec head -c {FLOOD} /dev/zero"));
            // What has ended has no program any more, reaped or not.
            while fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
            let (mut got, mut lost) = (0, 0);
            loop {
                match peer.event() {
                    Event::Console { data, .. } => got += data.len() as u64,
                    Event::ConsoleLost { bytes, .. } => lost += bytes,
                    Event::Exited { status, .. } => break assert_eq!(status, ExitStatus::Code(0)),
                }
            }
            assert_eq!(got + lost, FLOOD);
        },
    );
}

#[test]
fn given_a_guest_that_floods_when_another_writes_then_it_is_heard_and_requests_are_answered() {
    inside(
        "given_a_guest_that_floods_when_another_writes_then_it_is_heard_and_requests_are_answered",
        || {
            let site = Site::up();
            let mut peer = site.connect();
            let image = peer.store(GUEST);
            peer.spawn(1, image, "exec cat /dev/zero");
            for round in 2..20 {
                peer.spawn(round, image, "echo here");
                assert_eq!(peer.until_exit(round), ("here\n".to_owned(), ExitStatus::Code(0)));
            }
        },
    );
}

#[test]
fn given_a_monitor_that_was_never_acknowledged_when_the_shim_starts_then_it_is_ended() {
    inside("given_a_monitor_that_was_never_acknowledged_when_the_shim_starts_then_it_is_ended", || {
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
        assert!(!fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z")));
    });
}

#[test]
fn given_that_kvm_is_required_when_a_monitor_has_ring_3_only_then_it_runs_no_unikernel() {
    inside("given_that_kvm_is_required_when_a_monitor_has_ring_3_only_then_it_runs_no_unikernel", || {
        let mut site = Site::up();
        let told = |peer: &mut Peer| match peer.ask(Op::Host) {
            Ok(Reply::Host(host)) => host.monitors.iter().map(|monitor| monitor.backend).collect::<Vec<_>>(),
            other => panic!("expected the host, got {other:?}"),
        };
        // Without a backend in the configuration the monitor is asked, and its answer is in the log.
        let log = site.reconfigure("backend = \"kvm\"", "").join("\n");
        assert!(log.contains("--probe: backend=ring3 tsc_khz=1000000 reason=a script needs none"), "{log}");
        assert_eq!(told(&mut site.connect()), [Backend::Ring3]);

        site.reconfigure("[control_plane]", "require_kvm = true\n[control_plane]");
        let mut peer = site.connect();
        assert_eq!(told(&mut peer), []);
        assert!(list(&mut peer).is_empty());
        let image = peer.store(GUEST);
        peer.send(Op::Spawn(Box::new(spawn(1, image, "echo runs"))));
        assert!(peer.is_cut_off());
        site.wait_for_log("violation: a monitor that is not configured");

        site.reconfigure("version = 2", "version = 2\nbackend = \"kvm\"");
        let mut peer = site.connect();
        assert_eq!(told(&mut peer), [Backend::Kvm]);
        peer.spawn(1, image, "echo runs");
        peer.until_console(1, "runs");
    });
}

#[test]
fn given_a_control_plane_when_it_ends_then_it_is_brought_back_with_the_same_taps() {
    inside("given_a_control_plane_when_it_ends_then_it_is_brought_back_with_the_same_taps", || {
        let mut site = Site::up();
        let taps = || ["petrel-service", "petrel-link"].map(interface_index);
        site.wait_for_log("petrel.hvt: control plane --mem=32 --net:service=@");
        let first = taps();
        for _ in 0..3 {
            site.kill_control_plane();
            site.wait_for_log("control plane ended: signal 9");
            site.wait_for_log("petrel.hvt: control plane --mem=32 --net:service=@");
            assert_eq!(taps(), first);
        }
        let pid = fs::read_to_string(site.run_folder().join("0/pid")).unwrap();
        site.kill_shim();
        site.start_shim();
        assert_eq!(
            fs::read_to_string(site.run_folder().join("0/pid")).unwrap(),
            pid,
            "a living one is taken over"
        );
        site.connect();
    });
}

#[test]
fn given_no_state_file_when_the_control_plane_starts_then_it_has_one_that_stays() {
    inside("given_no_state_file_when_the_control_plane_starts_then_it_has_one_that_stays", || {
        let mut site = Site::up();
        let path = site.folder.join("state.img");
        let file = fs::File::open(&path).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (1 << 20, 0o600));
        assert!(metadata.blocks() < 16, "it takes no room yet");
        // The monitors of these tests open it themselves, so it is their user's, and synchronous for whoever opens it.
        let own = rustix::process::geteuid().as_raw();
        assert!(metadata.uid() == own || (300_000..).contains(&metadata.uid()), "{}", metadata.uid());
        let flags = rustix::fs::ioctl_getflags(&file);
        assert!(flags.is_err() || flags.is_ok_and(|flags| flags.contains(rustix::fs::IFlags::SYNC)));
        let line = site.wait_for_log("petrel.hvt: control plane");
        assert!(line.contains("--block:state=/proc/self/fd/"), "{line}");

        fs::write(&path, [7; 1 << 20]).unwrap();
        site.kill_shim();
        let pid = fs::read_to_string(site.run_folder().join("0/pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        site.start_shim();
        site.wait_for_log("petrel.hvt: control plane");
        assert_eq!(fs::read(&path).unwrap(), [7; 1 << 20]);
    });
}

/// Not a promise but a measurement: `cargo test --release -p petrel-shim -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    inside("measure", || {
        const ROUNDS: u64 = 2000;
        let site = Site::up();
        let mut peer = site.connect();
        fs::copy("/bin/true", site.folder.join("true")).unwrap();
        let image = peer.store(GUEST);
        let start = Instant::now();
        for instance in 1..=ROUNDS {
            peer.spawn(instance, image, "");
            peer.done(Op::Kill(InstanceId(instance)));
            peer.until_exit(instance);
            peer.done(Op::Forget(InstanceId(instance)));
        }
        println!("spawn, kill, exit, forget: {:.0} a second", ROUNDS as f64 / start.elapsed().as_secs_f64());
        let big = vec![7; 4_200_000];
        let start = Instant::now();
        peer.store(&big);
        println!("image of 4.2 MB: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        for tap in 0..100 {
            peer.done(tap_create(tap, "service"));
        }
        println!("tap: {:.2} ms", start.elapsed().as_secs_f64() * 10.0);
        println!(
            "{}",
            site.shim_status()
                .lines()
                .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"))
                .collect::<String>()
        );
    });
}
