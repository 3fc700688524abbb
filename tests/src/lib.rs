//! Drives a whole Petrel host from outside, as its operator would.
//!
//! [`Devhost`] is a real host in a network namespace of its own: the real shim, tender and control plane, a real
//! bridge and real taps. Nothing here knows the protocol; the programs in `out/` are all there is.

#![allow(
    clippy::missing_panics_doc,
    reason = "this is a test harness: what goes wrong is to be seen at once"
)]

pub mod openssl;
mod random;

pub use random::Random;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything on a busy machine may take before a test gives up on it. Never the measure of success.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the checkout.
#[must_use]
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout").to_path_buf()
}

/// A program or image that `make build` leaves in `out/`.
#[must_use]
pub fn out(file: &str) -> PathBuf {
    let path = checkout().join("out").join(file);
    assert!(path.exists(), "{} is missing: run `make build` first", path.display());
    path
}

/// `out(file)` as an argument.
#[must_use]
pub fn image(file: &str) -> String {
    out(file).display().to_string()
}

/// How a program ended, as text.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Its standard output, if it succeeded.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "it failed: {self:#?}");
        self.stdout
    }

    /// Its standard error, if it failed with `code`.
    #[track_caller]
    #[must_use]
    pub fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "it should have failed with {code}: {self:#?}");
        self.stderr
    }
}

/// A whole host, taken down when dropped.
pub struct Devhost {
    name: String,
    folder: PathBuf,
}

impl Devhost {
    /// Brings up a host of its own for the calling test.
    #[track_caller]
    #[must_use]
    pub fn up() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let _ = devhost("up", &name).ok();
        let folder = PathBuf::from(devhost("path", &name).ok().trim());
        Self { name, folder }
    }

    /// The folder that holds its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command inside the host's network, with the operator's profile set.
    #[must_use]
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(checkout().join("tools/devhost"));
        command.args(["run", "--name", &self.name, "--"]).args(words).stdin(Stdio::null());
        command
    }

    /// Runs a program inside the host's network to its end.
    #[must_use]
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Ended {
        self.command(words).output().expect("tools/devhost runs").into()
    }

    /// Runs `petrel` with these arguments.
    #[must_use]
    pub fn petrel(&self, arguments: &[&str]) -> Ended {
        self.run(&[&["petrel"], arguments].concat())
    }

    /// Runs `petrel … --json` and reads what it prints.
    #[track_caller]
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.petrel(&[arguments, &["--json"]].concat()).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Starts `petrel` and leaves it running, its output piped.
    #[must_use]
    pub fn petrel_in_background(&self, arguments: &[&str]) -> Child {
        self.command(&[&["petrel"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tools/devhost runs")
    }

    /// Repeats `attempt` until it gives something.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = attempt() {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "never happened: {what}\n{}", self.shim_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the control plane is there and has the shim behind it.
    #[track_caller]
    pub fn until_whole(&self) {
        self.eventually("the host is whole", || (self.petrel(&["host"]).code == 0).then_some(()));
    }

    /// What the shim has logged, the control plane's console in it.
    #[must_use]
    pub fn shim_log(&self) -> String {
        std::fs::read_to_string(self.folder.join("shim.log")).unwrap_or_default()
    }

    /// The pid of the shim.
    #[track_caller]
    #[must_use]
    pub fn shim_pid(&self) -> u32 {
        read_pid(&self.folder.join("shim.pid")).expect("the shim's pid")
    }

    /// Starts the shim again, as an init system would: once the old one has ended.
    #[track_caller]
    pub fn restart_shim(&self) {
        let old = self.shim_pid();
        self.eventually("the old shim has ended", || (!is_alive(old)).then_some(()));
        let _ = devhost("shim", &self.name).ok();
    }

    /// The monitors that run, by instance; the control plane is instance 0.
    #[must_use]
    pub fn monitors(&self) -> Vec<(u64, u32)> {
        let run = self.state().join("run");
        let mut monitors: Vec<_> = std::fs::read_dir(run)
            .expect("the shim's run folder")
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let instance = path.file_name()?.to_str()?.parse().ok()?;
                Some((instance, read_pid(&path.join("pid"))?))
            })
            .filter(|(_, pid)| is_alive(*pid))
            .collect();
        monitors.sort_unstable();
        monitors
    }

    /// The pid of the control plane's monitor.
    #[must_use]
    pub fn control_plane_pid(&self) -> Option<u32> {
        self.monitors().into_iter().find(|(instance, _)| *instance == 0).map(|(_, pid)| pid)
    }

    /// The shim's folder of images, volumes and run records.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("site/host/state")
    }

    /// All that a refused or destroyed unikernel could leave behind: its taps, processes and files.
    #[must_use]
    pub fn leavings(&self) -> Vec<String> {
        let links = self.run(&["ip", "-oneline", "link", "show"]).ok();
        let taps = links.lines().filter_map(|line| {
            let name = line.split(": ").nth(1)?.split('@').next()?;
            name.starts_with("pt").then(|| format!("tap {name}"))
        });
        let files = ["images", "run"].into_iter().flat_map(|folder| {
            std::fs::read_dir(self.state().join(folder))
                .expect("the shim's state")
                .filter_map(move |entry| Some(format!("{folder}/{}", entry.ok()?.file_name().display())))
        });
        let processes = self.monitors().into_iter().map(|(instance, _)| format!("monitor {instance}"));
        let mut all: Vec<_> = taps.chain(files).chain(processes).collect();
        all.sort();
        all
    }
}

impl Drop for Devhost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the shim's log of {}:\n{}", self.name, self.shim_log());
        }
        let down = devhost("down", &self.name);
        if down.code != 0 && !std::thread::panicking() {
            panic!("the devhost did not go down: {down:#?}");
        }
    }
}

fn devhost(verb: &str, name: &str) -> Ended {
    Command::new(checkout().join("tools/devhost"))
        .args([verb, "--name", name])
        .stdin(Stdio::null())
        .output()
        .expect("tools/devhost runs")
        .into()
}

fn read_pid(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a process runs (a zombie has ended).
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// Ends a process as a power cut would.
#[track_caller]
pub fn kill_9(pid: u32) {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "process {pid} was not there to be killed");
}
