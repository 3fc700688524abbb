//! The only privileged process of a Petrel host. It decides nothing: it takes a request from its one authenticated
//! peer, the control plane, holds it against its configuration, does it, answers. `petrel-shim --config FILE`.
//!
//! * `check`, `ledger` (the library): what the peer may ask, a pure function of the request, the host and the ledger
//! * `config`: `shim.toml`
//! * `link`: TLS to the peer
//! * `ops`: carries out what was checked, on `images` and `interface` (taps; the only unsafe code)
//! * `process`, `program`: monitors; `limits`: what the kernel holds them to; `usage`: what they use
//! * `control_plane`: the control plane's own monitor
//!
//! One thread, one loop, below. Killing the shim stops no workload: the next one takes over what runs.
#![deny(unsafe_code)]

mod config;
mod control_plane;
mod images;
#[allow(unsafe_code)]
mod interface;
mod limits;
mod link;
mod ops;
mod process;
mod program;
mod usage;

use std::collections::VecDeque;
use std::fmt::Arguments;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use petrel_shim::check::{Refusal, Violation, check};
use petrel_shim::ledger::Ledger;
use petrel_wire::limits::{BRIDGES_MAX, CPUS_MAX, LIMITS_MAX};
use petrel_wire::shim::{Fault, FromShim, Host, InstanceId, Limit, Request};
use petrel_wire::{BridgeName, List};
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid, fchown, flock};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, set_no_new_privs};
use rustls::ServerConfig;

use crate::config::Config;
use crate::control_plane::ControlPlane;
use crate::images::Images;
use crate::link::{Link, tls_config};
use crate::ops::Ops;
use crate::process::Runner;
use crate::program::Program;

const USAGE: &str = "usage: petrel-shim --config FILE [--check-config] | --version";
/// How often the consoles of guests are looked at while nobody takes them.
const AWAY_TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--version"] => {
            log(format_args!("version {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        ["--config", file] => load(file).and_then(|(config, tls)| Shim::start(config, tls)?.run()),
        ["--config", file, "--check-config"] => load(file).map(|_| log(format_args!("{file} is good"))),
        _ => Err(USAGE.into()),
    };
    result.map_or_else(
        |error| {
            log(format_args!("{error}"));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn load(file: &str) -> Result<(Config, Arc<ServerConfig>), String> {
    let config = Config::load(Path::new(file))?;
    let tls = tls_config(&config).map_err(|error| format!("{file}: {error}"))?;
    Ok((config, tls))
}

/// Writes one line to stderr. Unlike `eprintln!` it does not panic when nobody reads there any more.
fn log(line: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "petrel-shim: {line}");
}

/// What the operating system said, as the peer is told it.
fn fault(error: &io::Error) -> Fault {
    Fault::Os { errno: error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()) }
}

/// Gives a file to the user of the monitor that will open it.
fn give(file: impl AsFd, uid: Option<u32>) -> io::Result<()> {
    Ok(fchown(file, uid.map(Uid::from_raw), uid.map(Gid::from_raw))?)
}

struct Shim {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    /// The one authenticated peer.
    link: Option<Link>,
    /// A connection in its handshake.
    pending: Option<Link>,
    control_plane: ControlPlane,
    ops: Ops,
    /// When the consoles were last taken, or looked after.
    looked: Instant,
    /// The state folder's, held for as long as this shim lives.
    _lock: OwnedFd,
}

impl Shim {
    /// Comes up: takes over what runs, and starts the control plane if that does not.
    fn start(config: Config, tls: Arc<ServerConfig>) -> Result<Self, String> {
        let os = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        set_no_new_privs(true).map_err(|errno| errno.to_string())?;
        // A core dump would hold keys, or a guest's memory.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Core, none).map_err(|errno| errno.to_string())?;
        let (state_dir, lock) = open_state(&config.state_dir).map_err(os("state_dir"))?;
        let runner = Runner::new(state_dir.join("run")).map_err(os("run"))?;
        let mut left = runner.adopt().map_err(os("run"))?;
        let own = left.iter().position(|(instance, ..)| *instance == control_plane::INSTANCE);
        let own = own.map(|index| left.swap_remove(index).2);
        let public_key =
            fs::read(&config.control_plane_public_key).map_err(os("control_plane_public_key"))?;
        if matches!(own, Some(None)) {
            runner.forget(control_plane::INSTANCE).map_err(os("run"))?;
        }
        let mut control_plane =
            ControlPlane::new(config.control_plane, config.uids, &public_key, own.flatten());
        if control_plane.process.is_none() {
            control_plane.make_taps()?;
        }
        let listener = link::listen(config.listen).map_err(os("listen"))?;
        let programs = config.monitors.iter().map(|monitor| Program::probe(monitor, config.uids));
        let programs = programs.collect::<Result<Vec<_>, _>>()?;
        if control_plane.process.is_none() {
            control_plane.start(&runner, &programs);
        }
        let images = Images(state_dir.join("images"));
        let set = || epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| errno.to_string());
        let mut ops = Ops {
            host: host(&config.cpus, config.bridges, &programs, runner.limits.told())?,
            ledger: Ledger { images: images.list().map_err(os("images"))?, ..Ledger::default() },
            programs,
            runner,
            uids: config.uids,
            images,
            volumes: state_dir.join("volumes"),
            exits: set()?,
            consoles: set()?,
            ending: VecDeque::new(),
        };
        for (instance, record, process) in left {
            ops.enter(InstanceId(instance), record, process).map_err(os("run"))?;
        }
        log(format_args!("listening on {}, {} monitors adopted", config.listen, ops.ledger.monitors.len()));
        Ok(Self {
            listener,
            tls,
            link: None,
            pending: None,
            control_plane,
            ops,
            looked: Instant::now(),
            _lock: lock,
        })
    }

    fn run(mut self) -> Result<(), String> {
        loop {
            let [listener, exits, ended, console, pending, link, consoles] = self.wait();
            if !exits.is_empty() {
                self.ops.reap();
            }
            if !console.is_empty() {
                self.control_plane.log_console();
            }
            if !ended.is_empty() && self.control_plane.has_ended(&self.ops.runner) && self.link.is_some() {
                self.end_link("its monitor ended");
            }
            if self.control_plane.due.is_some_and(|due| due <= Instant::now()) {
                self.control_plane.start(&self.ops.runner, &self.ops.programs);
            }
            if !listener.is_empty() {
                self.pending = Link::accept(&self.listener, &self.tls).ok();
            }
            self.shake_hands(pending);
            if let Err(error) = self.serve(link, !consoles.is_empty()) {
                self.end_link(&error);
            }
            self.look_after_consoles();
        }
    }

    /// Whether somebody takes what guests write.
    fn is_heard(&self) -> bool {
        self.ops.ledger.greeted && self.link.as_ref().is_some_and(Link::has_room)
    }

    /// Waits for something to do: what each descriptor has, in the order in which `run` takes them.
    fn wait(&self) -> [PollFlags; 7] {
        let idle = (self.listener.as_fd(), PollFlags::empty());
        let process = self.control_plane.process.as_ref();
        let watched = [
            input(Some(self.listener.as_fd())),
            input(Some(self.ops.exits.as_fd())),
            input(process.map(|process| process.pidfd.as_fd())),
            input(process.map(|process| process.console.as_fd())),
            self.pending.as_ref().map(Link::interest),
            self.link.as_ref().map(Link::interest),
            input(self.is_heard().then_some(self.ops.consoles.as_fd())),
        ];
        let mut descriptors = watched.map(|watched| {
            let (fd, flags) = watched.unwrap_or(idle);
            PollFd::from_borrowed_fd(fd, flags)
        });
        let timeout = self.timeout().and_then(|timeout| timeout.try_into().ok());
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) => descriptors.map(|descriptor| descriptor.revents()),
            Err(_) => [PollFlags::empty(); 7], // interrupted
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let more = (self.is_heard() && !self.ops.ending.is_empty()).then_some(now);
        let tick =
            (!self.is_heard() && !self.ops.ledger.monitors.is_empty()).then_some(self.looked + AWAY_TICK);
        let deadline = self.pending.as_ref().map(|pending| pending.deadline);
        let next = [more, tick, deadline, self.control_plane.due].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Goes on with the pending connection. Once it has shown the pinned key it is the link: the control plane was
    /// restarted, whatever became of the old one.
    fn shake_hands(&mut self, flags: PollFlags) {
        let Some(pending) = &mut self.pending else { return };
        let read = if flags.is_empty() { Ok(()) } else { pending.read() };
        if let Err(error) = read.and_then(|()| pending.flush()) {
            log(format_args!("connection refused: {error}"));
            self.pending = None;
        } else if pending.is_authenticated() {
            if self.link.is_some() {
                self.end_link("the control plane has connected anew");
            }
            self.link = self.pending.take();
            log(format_args!("control plane connected"));
        } else if pending.deadline <= Instant::now() {
            log(format_args!("connection refused: its handshake took too long"));
            self.pending = None;
        }
    }

    /// Answers what has come on the link and tells what has happened. An error ends the link.
    fn serve(&mut self, flags: PollFlags, console: bool) -> Result<(), String> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let violation = |violation: Violation| format!("violation: {violation:?}");
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            link.read().map_err(|error| error.to_string())?;
        }
        loop {
            while link.has_room()
                && let Some(request) =
                    link.next_request().map_err(|error| violation(Violation::Frame(error)))?
            {
                answer(request, &mut self.ops, link).map_err(violation)?;
            }
            if self.ops.ledger.greeted && link.has_room() && (console || !self.ops.ending.is_empty()) {
                self.ops.tell(link);
            }
            let was_full = !link.has_room();
            link.flush().map_err(|error| error.to_string())?;
            // Requests that found no room may have it now, and nothing else would wake the loop for them.
            if !(was_full && link.has_room()) {
                return Ok(());
            }
        }
    }

    fn end_link(&mut self, reason: &str) {
        log(format_args!("control plane disconnected: {reason}"));
        self.link = None;
        self.ops.ledger.link_ended();
    }

    fn look_after_consoles(&mut self) {
        if self.is_heard() {
            self.looked = Instant::now();
        } else if self.looked.elapsed() >= AWAY_TICK {
            self.looked = Instant::now();
            self.ops.shed_consoles();
        }
    }
}

fn input(fd: Option<BorrowedFd<'_>>) -> Option<(BorrowedFd<'_>, PollFlags)> {
    fd.map(|fd| (fd, PollFlags::IN))
}

fn answer(request: Request, ops: &mut Ops, link: &mut Link) -> Result<(), Violation> {
    let checked = check(request.op, &ops.host, &ops.ledger);
    let result = match checked.and_then(|op| ops.carry_out(op)) {
        Ok(None) => return Ok(()),
        Ok(Some(reply)) => Ok(reply),
        Err(Refusal::Fault(fault)) => Err(fault),
        Err(Refusal::Violation(violation)) => return Err(violation),
    };
    link.send(&FromShim::Reply { id: request.id, result });
    Ok(())
}

/// What the peer is told of the host, and held to.
fn host(
    cpus: &Option<List<u16, CPUS_MAX>>,
    bridges: List<BridgeName, BRIDGES_MAX>,
    programs: &[Program],
    limits: List<Limit, LIMITS_MAX>,
) -> Result<Host, String> {
    let usable = sched_getaffinity(None).map_err(|errno| errno.to_string())?;
    let is_usable = |cpu: &u16| usize::from(*cpu) < CpuSet::MAX_CPU && usable.is_set(usize::from(*cpu));
    if let Some(cpu) = cpus.iter().flatten().find(|cpu| !is_usable(cpu)) {
        return Err(format!("cpus: CPU {cpu} is not online, or not the shim's"));
    }
    let all = || (0..u16::MAX).filter(is_usable).take(CPUS_MAX).collect::<Vec<_>>();
    let memory = rustix::system::sysinfo();
    let told: Vec<_> = programs.iter().map(|program| program.told.clone()).collect();
    Ok(Host {
        cpus: cpus.clone().unwrap_or_else(|| all().try_into().unwrap_or_default()),
        memory_mib: memory.totalram.saturating_mul(u64::from(memory.mem_unit)) >> 20,
        bridges,
        monitors: told.try_into().unwrap_or_default(), // as many as are configured
        limits,
    })
}

/// Makes the state folder, and locks it: there must not be two shims on it.
fn open_state(folder: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    // Monitors, which are other users, pass through and list nothing. Set explicitly, whatever the umask is.
    for (part, mode) in [("", 0o711), ("images", 0o711), ("volumes", 0o711), ("run", 0o700)] {
        fs::create_dir_all(folder.join(part))?;
        fs::set_permissions(folder.join(part), Permissions::from_mode(mode))?;
    }
    let lock = rustix::fs::open(folder, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    locked.map_err(|_| io::Error::other("another petrel-shim uses it"))?;
    Ok((folder.canonicalize()?, lock))
}
