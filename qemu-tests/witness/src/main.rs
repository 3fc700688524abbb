//! A witness inside an appliance under test: the first process, which starts a copy of itself and then becomes
//! petrel-init. The copy tells on the console, again and again, what there is: processes, sockets, what can be written.
//!
//! Each line begins with `witness:`; a whole report ends with `witness: end`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(3);
/// What must not be writable, by root itself.
const SYSTEM: [&str; 5] =
    ["/init", "/petrel/petrel-shim", "/petrel/petrel-tender", "/petrel/petrel.hvt", "/petrel/something-new"];

fn main() {
    let own = std::env::args().next().unwrap_or_default();
    if std::env::args().nth(1).as_deref() == Some("watch") {
        watch();
    }
    Command::new(own).arg("watch").spawn().expect("a copy");
    panic!("{}", Command::new("/init").exec());
}

fn watch() -> ! {
    loop {
        sleep(INTERVAL);
        // One write, so that no other line comes between.
        let mut report = String::new();
        for line in processes().into_iter().chain(sockets()).chain(writable()).chain(memory()) {
            report += &format!("witness: {line}\n");
        }
        report += "witness: end\n";
        let _ = io::stdout().write_all(report.as_bytes());
    }
}

/// The programs that run, but for the kernel's own threads and the witness.
fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let programs = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let program = fs::read_link(entry.path().join("exe")).ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next())?;
        (pid != std::process::id()).then(|| format!("process {} uid {uid}", program.display()))
    });
    programs.collect()
}

/// The sockets that listen or are bound, on any address.
fn sockets() -> Vec<String> {
    let listening = |kind: &str, state: &str| {
        let table = fs::read_to_string(format!("/proc/net/{kind}")).unwrap_or_default();
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        let rows = rows.filter(|row| row.get(3) == Some(&state));
        rows.filter_map(|row| Some(format!("{kind} {}", row.get(1)?))).collect::<Vec<_>>()
    };
    [listening("tcp", "0A"), listening("tcp6", "0A"), listening("udp", "07"), listening("raw", "07")].concat()
}

fn writable() -> Vec<String> {
    let can_be = |path: &&str| OpenOptions::new().append(true).create(true).open(path).is_ok();
    SYSTEM.iter().filter(|path| can_be(path)).map(|path| format!("writable {path}")).collect()
}

/// What is used of the machine's memory.
fn memory() -> Vec<String> {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| -> u64 {
        let line =
            info.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(0)).unwrap_or("0");
        line.parse().unwrap_or(0)
    };
    vec![format!("memory {} KiB", kib("MemTotal:") - kib("MemAvailable:"))]
}
