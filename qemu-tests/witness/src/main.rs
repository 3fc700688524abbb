//! A witness inside an appliance under test: the first process, which starts a copy of itself and then becomes
//! petrel-init.
//!
//! * `witness`: the copy tells on the console, again and again, what there is: processes, sockets, what can be written; a
//!   whole report ends with `end`
//! * `witness run FOLDER PROGRAM…`: the copy runs a program once the appliance is up, and tells what that writes, and how it
//!   `ended`; the folder, which the system's files are in, is one that it can write to
//! * `witness floor`: nothing but a kernel that has come so far
//!
//! Each line begins with `witness:`.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use rustix::mount::{MountFlags, mount, mount_bind};

const INTERVAL: Duration = Duration::from_secs(3);
/// It is 1 when petrel-init has made the machine what it stays.
const IS_UP: &str = "/proc/sys/kernel/modules_disabled";
/// Where what can be written is.
const SCRATCH: &str = "/run/scratch";
/// What must not be writable, by root itself.
const SYSTEM: [&str; 5] =
    ["/init", "/petrel/petrel-shim", "/petrel/petrel-tender", "/petrel/petrel.hvt", "/petrel/something-new"];

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let words: Vec<_> = arguments.iter().skip(1).map(String::as_str).collect();
    if words == ["floor"] {
        println!("witness: floor");
        loop {
            sleep(INTERVAL);
        }
    }
    if std::process::id() == 1 {
        // It outlives what this program is from here on.
        std::mem::forget(Command::new(&arguments[0]).args(words).spawn().expect("a copy"));
        panic!("{}", Command::new("/init").exec());
    }
    match words[..] {
        ["run", folder, program, ref arguments @ ..] => {
            let ended = run(Path::new(folder), program, arguments);
            println!("witness: ended: {}", ended.unwrap_or_else(|error| error.to_string()));
        }
        _ => watch(),
    }
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> io::Result<String> {
    while !fs::read_to_string(IS_UP).is_ok_and(|value| value.trim() == "1") {
        sleep(INTERVAL);
    }
    fs::create_dir(SCRATCH)?;
    mount("tmpfs", SCRATCH, "tmpfs", MountFlags::empty(), None)?;
    copy(folder, Path::new(SCRATCH))?;
    mount_bind(SCRATCH, folder)?;
    let (output, both) = io::pipe()?;
    let mut command = Command::new(program);
    let mut child = command.args(arguments).stdout(both.try_clone()?).stderr(both).spawn()?;
    // It holds the pipe's end as well.
    drop(command);
    for line in BufReader::new(output).split(b'\n') {
        // One write, so that no other line comes between.
        io::stdout().write_all(format!("witness: {}\n", String::from_utf8_lossy(&line?)).as_bytes())?;
    }
    Ok(child.wait()?.to_string())
}

/// Copies what is in a folder.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            fs::create_dir(&to)?;
            copy(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
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
            info.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()).unwrap_or("0");
        line.parse().unwrap_or(0)
    };
    vec![format!("memory {} KiB", kib("MemTotal:") - kib("MemAvailable:"))]
}
