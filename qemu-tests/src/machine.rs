//! A machine in QEMU.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use petrel_tests::{Ended, out};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::console::OFF;
use crate::host::appliance;
use crate::{Console, Host, PATIENCE};

/// Where guests' pages are reached from outside.
pub const WEB: &str = "10.0.2.20";
const FIRMWARE: &str = "/usr/share/OVMF/OVMF";
const NEIGHBOUR: &str = "10.0.2.2";
const CABLE: &str = "cable";
const QEMU: &str = "qemu-system-x86_64";
/// One thread for all CPUs. With one for each, QEMU now and then resets the machine or lets a CPU stand still when the first
/// guest starts: the kernel then patches its own code, and the other CPU's thread goes on with its translation of what was
/// there. It is no slower, as one CPU sleeps most of the time, and leaves this machine's other cores to other tests.
const ACCELERATOR: &str = "tcg,thread=single";

/// How a machine is connected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// By QEMU's user network: single ports of loopback lead to it.
    User,
    /// By a cable to a network namespace of its own: all of it can be reached from there.
    Namespace,
}

/// What a machine boots.
pub enum System {
    /// Kernel and initramfs, given to it by QEMU.
    Kernel,
    /// The bootable image on this disk, by UEFI firmware. It reboots when it wants to.
    Disk(PathBuf),
    /// The same, by firmware that starts only what is signed with the key that Debian's firmware package has for tests.
    SignedDisk(PathBuf),
}

/// What is particular about a machine.
pub struct Settings {
    /// What it boots.
    pub system: System,
    /// How it is connected.
    pub network: Network,
    /// The file that is the sealed host's disk, if there is one.
    pub seal: Option<PathBuf>,
    /// What is put into the root file system, over what the appliance has: a cpio archive.
    pub overlay: Option<PathBuf>,
    /// What the kernel's command line says more.
    pub append: String,
    /// What QEMU's command line says more.
    pub options: Vec<String>,
}

/// A machine that was turned on. It is turned off when it is dropped, as if by pulling its plug.
pub struct Machine {
    qemu: Child,
    network: Network,
    /// When it was turned on.
    pub start: Instant,
    /// Its serial console.
    pub console: Console,
    profile: PathBuf,
    /// The loopback port that leads to the control plane.
    port: u16,
    /// The loopback port that leads to port 80 of [`WEB`].
    web_port: u16,
}

impl Settings {
    /// Those of an ordinary boot.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let seal = Some(host.path("seal.img"));
        Self {
            system: System::Kernel,
            network: Network::User,
            seal,
            overlay: None,
            append: String::new(),
            options: Vec::new(),
        }
    }
}

impl Machine {
    /// Turns a host's machine on.
    #[track_caller]
    #[must_use]
    pub fn boot(host: &Host) -> Self {
        Self::boot_with(host, &Settings::of(host))
    }

    /// Turns on one that differs.
    #[track_caller]
    #[must_use]
    pub fn boot_with(host: &Host, settings: &Settings) -> Self {
        let [port, web_port] = [free_port(), free_port()];
        let mut command = match settings.network {
            Network::User => Command::new(QEMU),
            Network::Namespace => in_a_namespace(),
        };
        command.args(["-accel", ACCELERATOR, "-cpu", "max,+svm", "-smp", "2"]);
        command.args(["-machine", "q35", "-m", "1024"]);
        command.args(["-display", "none", "-nodefaults", "-no-user-config", "-serial", "stdio"]);
        command.args(["-device", "i6300esb", "-device", "virtio-rng-pci"]);
        boot(&mut command, host, settings);
        let netdev = match settings.network {
            Network::User => {
                let forward = |port, to, inner| format!(",hostfwd=tcp:127.0.0.1:{port}-{to}:{inner}");
                format!("user,id=n0{}{}", forward(port, host.address, 1025), forward(web_port, WEB, 80))
            }
            Network::Namespace => format!("tap,id=n0,ifname={CABLE},script=no,downscript=no"),
        };
        command.args(["-netdev", &netdev, "-device", "virtio-net-pci,netdev=n0"]);
        command.args(&settings.options);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut qemu = spawned.expect("qemu-system-x86_64 runs: `make setup-appliance` installs it");
        let console = Console::of(qemu.stdout.take().expect("it is piped"));
        let profile = match settings.network {
            Network::User => host.profile("127.0.0.1", port),
            Network::Namespace => host.profile(host.address, 1025),
        };
        Self { qemu, network: settings.network, start: Instant::now(), console, profile, port, web_port }
    }

    /// A command that has the operator's profile.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.outside(&out("petrel"));
        command.env("PETREL_PROFILE", &self.profile).args(arguments);
        command
    }

    /// A program that reaches the machine's network.
    #[must_use]
    pub fn outside(&self, program: &Path) -> Command {
        let mut command = match self.network {
            Network::User => Command::new(program),
            Network::Namespace => {
                let mut enter = Command::new("nsenter");
                enter.args(["--target", &self.qemu.id().to_string(), "--net"]);
                if !is_root() {
                    enter.args(["--user", "--preserve-credentials"]);
                }
                enter.arg(program);
                enter
            }
        };
        command.stdin(Stdio::null());
        command
    }

    /// Runs `petrel` with these arguments.
    #[must_use]
    pub fn petrel(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().expect("petrel runs").into()
    }

    /// Runs `petrel … --json` and reads what it prints.
    #[track_caller]
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.petrel(&[arguments, &["--json"]].concat()).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Repeats `attempt` until it gives something.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = attempt() {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "never happened: {what}\n{}", self.console.text());
            sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the control plane is there and has the shim behind it; fails at once if the appliance has stopped.
    #[track_caller]
    pub fn until_whole(&self) {
        self.eventually("the host is whole", || {
            let is_over = ["STOPPED", "Kernel panic", OFF].iter().any(|end| self.console.find(end).is_some());
            assert!(!is_over, "it has come to an early end");
            // Not before it can answer: QEMU takes a connection at once, and the client waits long for a greeting.
            self.console.find("the shim is connected")?;
            (self.answers(self.port) && self.petrel(&["host"]).code == 0).then_some(())
        });
    }

    /// Whether somebody answers anything at all on a port that leads into the machine. For up to a second after a guest was
    /// started, Linux's bridge passes nothing on to it, and QEMU's network says it again after six: better try anew.
    fn answers(&self, port: u16) -> bool {
        if self.network == Network::Namespace {
            return true;
        }
        let ask = || {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            socket.read(&mut [0])
        };
        // Who does not speak HTTP may say so by closing.
        ask().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true)
    }

    /// What is fetched from the guest at [`WEB`], if that answers.
    #[must_use]
    pub fn fetch(&self) -> Option<String> {
        if !self.answers(self.web_port) {
            return None;
        }
        let url = format!("http://127.0.0.1:{}/", self.web_port);
        let fetched = Command::new("curl").args(["--silent", "--fail", "--max-time", "10", &url]).output();
        let fetched = fetched.expect("curl runs");
        fetched.status.success().then(|| String::from_utf8_lossy(&fetched.stdout).into_owned())
    }

    /// Waits until it turns itself off.
    #[track_caller]
    #[must_use]
    pub fn until_off(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.qemu.try_wait().expect("QEMU is ours") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not turn itself off:\n{}", self.console.text());
            sleep(Duration::from_millis(50));
        }
    }

    /// Pulls its plug.
    pub fn cut_power(self) {}

    /// Its plug, to be pulled while something else is done to it.
    #[must_use]
    pub fn plug(&self) -> Plug {
        Plug(pidfd(&self.qemu))
    }
}

/// What can be pulled.
pub struct Plug(OwnedFd);

impl Plug {
    /// Ends QEMU at once.
    pub fn pull(self) {
        pidfd_send_signal(self.0, Signal::KILL).expect("QEMU runs");
    }
}

fn pidfd(child: &Child) -> OwnedFd {
    pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("QEMU is ours")
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            eprintln!("--- the serial console:\n{}", self.console.text());
        }
    }
}

/// Gives it what it boots, and its disks.
fn boot(command: &mut Command, host: &Host, settings: &Settings) {
    match &settings.system {
        System::Kernel => {
            let (kernel, initrd) = (appliance("vmlinuz"), initrd(host, settings));
            command.arg("-no-reboot").arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
            let append = format!("console=ttyS0 panic=-1 quiet {}", settings.append);
            command.args(["-append", append.trim_end()]);
            disk(command, "state", &host.state.path().display().to_string(), ",serial=petrel-state");
            if let Some(seal) = &settings.seal {
                disk(command, "seal", &format!("{},readonly=on", seal.display()), "");
            }
        }
        System::Disk(image) | System::SignedDisk(image) => {
            let (code, known) = match &settings.system {
                System::SignedDisk(_) => ("4M.secboot", "4M.snakeoil"),
                _ => ("4M", "4M"),
            };
            if code != "4M" {
                // Such firmware keeps its variables from the system by a mode of the CPU that the system has not.
                let own = "driver=cfi.pflash01,property=secure,value=on";
                command.args(["-machine", "smm=on", "-global", own]);
            }
            let variables = host.path("variables.fd");
            std::fs::copy(format!("{FIRMWARE}_VARS_{known}.fd"), &variables)
                .expect("`make setup-appliance` installs the firmware");
            let flash = |unit, file: String| format!("if=pflash,format=raw,unit={unit},{file}");
            command.args(["-drive", &flash(0, format!("readonly=on,file={FIRMWARE}_CODE_{code}.fd"))]);
            command.args(["-drive", &flash(1, format!("file={}", variables.display()))]);
            disk(command, "system", &image.display().to_string(), "");
        }
    }
}

/// QEMU in a network namespace of its own, which has the other end of the machine's cable. An ordinary user needs a user
/// namespace around it.
fn in_a_namespace() -> Command {
    let script = format!(
        "ip link set lo up && ip tuntap add dev {CABLE} mode tap && ip address add {NEIGHBOUR}/24 dev {CABLE} && \
         ip link set {CABLE} up && exec {QEMU} \"$@\""
    );
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "sh", "-c", &script, "sh"]);
    command
}

fn is_root() -> bool {
    let own = std::fs::metadata("/proc/self").expect("this process");
    std::os::unix::fs::MetadataExt::uid(&own) == 0
}

/// The kernel takes several archives, one after the other.
fn initrd(host: &Host, settings: &Settings) -> PathBuf {
    let plain = appliance("initrd.img");
    let Some(overlay) = &settings.overlay else { return plain };
    let read = |path| std::fs::read(path).expect("readable");
    let both = host.path("initrd.img");
    std::fs::write(&both, [read(&plain), read(overlay)].concat()).expect("room for an initramfs");
    both
}

fn disk(command: &mut Command, id: &str, file: &str, property: &str) {
    let drive = format!("file={file},format=raw,if=none,id={id}");
    command.args(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={id}{property}")]);
}

/// A port of loopback that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}
