//! Who is compared, and its guests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{run, solo5};

/// A tender, and the kind of guest that it runs here.
pub struct Contender {
    pub name: &'static str,
    pub target: &'static str,
    /// Whether blocks can be larger than 512 bytes.
    pub has_block_sizes: bool,
    program: PathBuf,
    options: Vec<String>,
}

impl Contender {
    pub fn ours(name: &'static str, target: &'static str, options: &[&str]) -> Contender {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Contender { name, target, has_block_sizes: true, program: run::program(), options }
    }

    pub fn reference(name: &'static str) -> Contender {
        let program = solo5::tree().join("tenders/spt/solo5-spt");
        Contender { name, target: "spt", has_block_sizes: false, program, options: Vec::new() }
    }

    pub fn command(&self, mib: u32, options: &[&str], image: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.options).arg(format!("--mem={mib}")).args(options).arg("--").arg(image);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Our option that says how fast this machine's time-stamp counter runs.
pub fn tsc_khz() -> String {
    let output = Command::new(run::program()).arg("--probe").output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let khz = text.split_whitespace().find_map(|word| word.strip_prefix("tsc_khz="));
    format!("--tsc-khz={}", khz.expect("a probe's answer"))
}

/// A guest that runs until this is dropped.
pub struct Guest(Child);

impl Guest {
    pub fn start(mut command: Command) -> Guest {
        Guest(command.stdout(Stdio::null()).spawn().expect("it starts"))
    }

    /// Waits until it has nothing left to do, which is when it has slept for some time.
    pub fn until_idle(&self) {
        let ticks = || self.proc("stat").split_whitespace().nth(13).map(str::to_owned);
        loop {
            let before = ticks();
            std::thread::sleep(Duration::from_millis(100));
            if ticks() == before && self.proc("status").contains("\nState:\tS") {
                return;
            }
        }
    }

    /// Its share of all memory, in KiB.
    pub fn pss_kib(&self) -> f64 {
        let rollup = self.proc("smaps_rollup");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.trim().strip_suffix("kB")).map(str::trim);
        number.and_then(|number| number.parse().ok()).expect("root may read it")
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
