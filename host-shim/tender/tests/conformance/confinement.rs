//! What a tender looks like from outside while its guest runs: the kernel's own word for it, below /proc.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::process::geteuid;

use crate::guests::zeros;
use crate::hostile::code::guest;
use crate::support::image::Image;
use crate::support::run::{Running, backend, tender_on};
use crate::support::{Scratch, netns};
use hvt_abi::manifest::DeviceKind;
use hvt_abi::note::Target;

/// The one who is looked at, and the same as an spt guest.
const TARGETS: [Target; 2] = [Target::Hvt, Target::Spt];

/// A guest that sleeps, with a disk and a net, from an environment with a secret and a descriptor too many.
fn asleep(target: Target) -> (Running, Scratch) {
    let scratch = Scratch::new(&format!("asleep-{}", target.name()));
    let disk = zeros(&scratch, "disk.img", 1);
    let code = if target == Target::Spt { guest!(loops) } else { guest!(sleeps) };
    let image =
        Image::new(target, code).device("storage", DeviceKind::Block).device("service", DeviceKind::Net);
    let image = scratch.file("guest", &image.bytes());
    let backend = if target == Target::Spt { "auto".to_owned() } else { backend() };
    let mut command = tender_on(&backend, &["--mem=2", "--net:service=tap100"]);
    command.arg(format!("--block:storage={disk}")).arg("--").arg(image);
    command.env("SECRET", "a-password").stdin(fs::File::open(&disk).expect("readable"));
    (Running::start(command).until_confined(), scratch)
}

fn each(test: &str, look: impl Fn(Target, &Running)) {
    let _ = netns::inside(&format!("confinement::{test}"), || {
        netns::tap("tap100", "10.0.0.1/24");
        for target in TARGETS {
            let (running, _scratch) = asleep(target);
            look(target, &running);
            running.kill();
            running.outcome();
        }
    });
}

fn read(running: &Running, file: &str) -> String {
    fs::read_to_string(running.proc(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A field of /proc/PID/status.
fn status(running: &Running, field: &str) -> String {
    let text = read(running, "status");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{field} is not in {text}")).trim().to_owned()
}

#[test]
fn it_has_no_capabilities_and_can_get_none() {
    each("it_has_no_capabilities_and_can_get_none", |_, running| {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(running, set), "0000000000000000", "{set}");
        }
        assert_eq!(status(running, "NoNewPrivs"), "1");
        assert_eq!(status(running, "Seccomp"), "2");
    });
}

#[test]
fn it_is_not_root_and_nobody_else_either() {
    each("it_is_not_root_and_nobody_else_either", |_, running| {
        // The root of a user namespace with a single user stays who it is: outside it is an ordinary user.
        let single = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.trim().ends_with(" 1"));
        if geteuid().is_root() && !single {
            let pid: u32 = status(running, "Pid").parse().expect("a number");
            let own = (0x7f00_0000 + pid).to_string();
            for ids in ["Uid", "Gid"] {
                assert!(status(running, ids).split_whitespace().all(|id| id == own), "{ids}");
            }
            assert_eq!(status(running, "Groups"), "");
        }
    });
}

#[test]
fn it_has_only_the_descriptors_that_its_guest_needs() {
    each("it_has_only_the_descriptors_that_its_guest_needs", |target, running| {
        let links = fs::read_dir(running.proc("fd")).expect("root may look").map(|entry| {
            let entry = entry.expect("readable");
            let number = entry.file_name().to_string_lossy().into_owned();
            let to: PathBuf = fs::read_link(entry.path()).expect("a link");
            (number, to.to_string_lossy().into_owned())
        });
        let mut kinds = BTreeSet::new();
        for (number, to) in links {
            let kind = match to.as_str() {
                _ if number == "1" || number == "2" => "output",
                to if to.ends_with("/disk.img") => "disk",
                "/dev/net/tun" => "tap",
                "anon_inode:[eventpoll]" => "waiting",
                "anon_inode:[timerfd]" => "timer",
                "anon_inode:kvm-vcpu:0" => "cpu",
                other => panic!("descriptor {number} is {other}"),
            };
            assert!(kinds.insert(kind) || kind == "output", "{kind} twice");
        }
        let expected: &[_] = match (target, backend().as_str()) {
            (Target::Spt, _) => &["disk", "output", "tap", "timer", "waiting"],
            (_, "kvm") => &["cpu", "disk", "output", "tap"],
            _ => &["disk", "output", "tap"],
        };
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);
    });
}

#[test]
fn it_has_no_environment_and_leaves_no_core() {
    each("it_has_no_environment_and_leaves_no_core", |_, running| {
        assert!(read(running, "environ").bytes().all(|byte| byte == 0));
        let limits = read(running, "limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("Linux tells");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
        // Who is not dumpable belongs to root below /proc, whoever it is.
        let owner =
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(running.proc("status")).expect("it runs"));
        assert_eq!(owner, 0);
    });
}
