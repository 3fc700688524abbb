//! The only privileged process of a Petrel host. It decides nothing: it takes a request from its one authenticated
//! peer, the control plane, holds it against its configuration, does it, answers. `petrel-shim --config FILE`.
//!
//! * `check`, `ledger` (the library): what the peer may ask, a pure function of the request, the host and the ledger
//! * `config`: `shim.toml`
//! * `link`: TLS to the peer
//! * `ops`: carries out what was checked, on `images` and `interface` (taps; the only unsafe code)
//! * `monitor`: the programs that run guests, and their processes
//! * `control_plane`: the control plane's own monitor
//!
//! One thread, one loop, below. Killing the shim stops no workload: the next one takes over what runs.
#![deny(unsafe_code)]

mod config;
mod control_plane;
mod images;
#[allow(unsafe_code)]
mod interface;
mod link;
mod monitor;
mod ops;

use std::fmt::{Arguments, Display};
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;

use crate::config::Config;
use crate::control_plane::ControlPlane;
use crate::link::Link;
use crate::ops::Ops;

const USAGE: &str =
    concat!("release ", env!("CARGO_PKG_VERSION"), "; usage: petrel-shim --config FILE [--check-config]");
/// How long nobody takes what guests write before they are kept from waiting for that.
const AWAY: Duration = Duration::from_millis(100);
/// How often the loop looks round while something is missing, the peer or its monitor.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--config", file] => Config::load(file).and_then(|config| Shim::start(config)?.run()),
        ["--config", file, "--check-config"] => Config::load(file).and_then(|config| tls(&config)).map(drop),
        _ => Err(USAGE.into()),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    log(format_args!("{error}"));
    ExitCode::FAILURE
}

/// Writes one line to stderr. Unlike `eprintln!` it does not panic when nobody reads there any more.
fn log(line: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "petrel-shim: {line}");
}

/// Says what an error is about.
fn about<E: Display>(what: impl Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

fn tls(config: &Config) -> Result<Arc<ServerConfig>, String> {
    let tls = petrel_link::server(default_provider(), &config.key, &config.control_plane_public_key);
    tls.map(Arc::new).map_err(about("key: expected PKCS #8 DER"))
}

struct Shim {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    /// The one authenticated peer.
    link: Option<Link>,
    /// A connection in its handshake. It may take as long as nobody else comes.
    pending: Option<Link>,
    control_plane: ControlPlane,
    ops: Ops,
    /// When somebody last took what guests write.
    heard: Instant,
    /// The state folder's, held for as long as this shim lives.
    _lock: OwnedFd,
}

impl Shim {
    /// Comes up: takes over what runs, and starts the control plane if that does not.
    fn start(mut config: Config) -> Result<Self, String> {
        let (tls, listen) = (tls(&config)?, config.listen);
        confine().map_err(about("rights and limits"))?;
        let lock = open_state(&mut config.state_dir).map_err(about("state_dir"))?;
        let mut ops = Ops::new(config)?;
        let mut control_plane = ControlPlane::new(ops.adopt()?).map_err(about("control plane"))?;
        control_plane.keep_running(&ops);
        let listener = TcpListener::bind(listen).map_err(about("listen"))?;
        listener.set_nonblocking(true).map_err(about("listen"))?;
        log(format_args!("listening on {listen}, {} monitors adopted", ops.ledger.monitors.len()));
        let heard = Instant::now();
        Ok(Self { listener, tls, link: None, pending: None, control_plane, ops, heard, _lock: lock })
    }

    /// Whatever has woken it, it looks after all that there is.
    fn run(mut self) -> Result<(), String> {
        loop {
            self.wait();
            if let Ok(connection) = Link::accept(&self.listener, &self.tls) {
                self.pending = Some(connection);
            }
            self.shake_hands();
            if self.control_plane.has_ended() {
                self.end_link("its monitor ended");
            }
            self.control_plane.keep_running(&self.ops);
            if let Err(error) = self.serve() {
                self.end_link(&error);
            }
            if self.is_heard() {
                self.heard = Instant::now();
            } else if self.heard.elapsed() >= AWAY {
                self.ops.shed_consoles();
            }
        }
    }

    /// Whether somebody takes what guests write.
    fn is_heard(&self) -> bool {
        self.ops.ledger.greeted && self.link.as_ref().is_some_and(Link::has_room)
    }

    /// Waits for something to do.
    fn wait(&self) {
        let input = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
        let mut descriptors = vec![input(self.listener.as_fd()), input(self.control_plane.news.as_fd())];
        descriptors.extend(self.pending.iter().chain(&self.link).map(Link::interest));
        descriptors.extend(self.is_heard().then(|| input(self.ops.news.as_fd())));
        let is_settled = self.is_heard() && self.control_plane.process.is_some();
        let _ = poll(&mut descriptors, (!is_settled).then_some(&TICK)); // interrupted is as good as woken
    }

    /// Goes on with the pending connection. Once it has shown the pinned key it is the link: the control plane was
    /// restarted, whatever became of the old one.
    fn shake_hands(&mut self) {
        let Some(mut pending) = self.pending.take() else { return };
        match pending.read() {
            Err(error) => log(format_args!("connection refused: {error}")),
            Ok(()) if pending.is_authenticated() => {
                self.end_link("the control plane has connected anew");
                self.link = Some(pending);
                log(format_args!("control plane connected"));
            }
            Ok(()) => self.pending = Some(pending),
        }
    }

    /// Answers what has come on the link and tells what has happened. An error ends the link.
    fn serve(&mut self) -> Result<(), String> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if link.has_room() {
            link.read().map_err(about("lost"))?;
        }
        loop {
            while link.has_room()
                && let Some(request) = link.next_request().map_err(about("violation"))?
            {
                self.ops.answer(request, link).map_err(about("violation"))?;
            }
            if self.ops.ledger.greeted && link.has_room() {
                self.ops.tell(link);
            }
            let was_full = !link.has_room();
            link.flush().map_err(about("lost"))?;
            // Requests that found no room may have it now, and nothing else would wake the loop for them.
            if !(was_full && link.has_room()) {
                return Ok(());
            }
        }
    }

    fn end_link(&mut self, reason: &str) {
        if self.link.take().is_some() {
            log(format_args!("control plane disconnected: {reason}"));
            self.ops.ledger.link_ended();
        }
    }
}

/// No new privileges; no core dump, which would hold keys or a guest's memory; all the descriptors that the host allows.
fn confine() -> io::Result<()> {
    set_no_new_privs(true)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let files = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?)
}

/// Makes the state folder, and locks it: there must not be two shims on it. Its path becomes the real one.
fn open_state(folder: &mut PathBuf) -> io::Result<OwnedFd> {
    // Monitors, which are other users, pass through and list nothing. Set explicitly, whatever the umask is.
    for (part, mode) in [("", 0o711), ("images", 0o711), ("volumes", 0o711), ("run", 0o700)] {
        fs::create_dir_all(folder.join(part))?;
        fs::set_permissions(folder.join(part), Permissions::from_mode(mode))?;
    }
    *folder = folder.canonicalize()?;
    let lock = rustix::fs::open(&*folder, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    locked.map_err(|_| io::Error::other("another petrel-shim uses it"))?;
    Ok(lock)
}
