//! The only privileged process of a Petrel host. It decides nothing: it takes a request from its one authenticated
//! peer, the control plane, holds it against its configuration, does it, answers. `petrel-shim --config FILE`; before that,
//! `petrel-shim check-config FILE` tells what is wrong with it.
//!
//! * `check`, `ledger` (the library): what the peer may ask, a pure function of the request, the host and the ledger
//! * `config`: `shim.toml`
//! * `link`: TLS to the peer
//! * `ops`: carries out what was checked, on `images`, `volumes` and `interface` (taps; the only unsafe code)
//! * `monitor`: the programs that run guests, and their processes; `limits`: what the kernel holds those to; `usage`: what
//!   they use
//! * `appliance`: orders for the machine itself, only where the shim was built for one
//! * `control_plane`: the control plane's own monitor
//!
//! One thread, one loop, below. Killing the shim stops no workload: the next one takes over what runs.
#![deny(unsafe_code)]

#[cfg(feature = "appliance")]
mod appliance;
mod config;
mod control_plane;
mod images;
#[allow(unsafe_code)]
mod interface;
mod limits;
mod link;
mod monitor;
mod ops;
mod usage;
mod volumes;

use std::fmt::{Arguments, Display};
use std::fs::{self, File, Permissions};
use std::os::{fd::AsFd, unix::fs::PermissionsExt};
use std::time::{Duration, Instant};
use std::{io, io::Write, net::TcpListener, path::PathBuf, process::ExitCode, sync::Arc};

use petrel_wire::shim::InstanceId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::crypto::ring::default_provider;

use crate::control_plane::{ControlPlane, has_ended};
use crate::{config::Config, interface::listen_on, link::Link, monitor::Process, ops::Ops};

/// How often the loop looks round while something is missing, the peer or its monitor.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let outcome = match &args[..] {
        [option, file] if option == "--config" => Config::load(file).and_then(run),
        [verb, file] if verb == "check-config" => Config::load(file).and_then(Config::check),
        _ => {
            Err(concat!(env!("CARGO_PKG_VERSION"), "; usage: petrel-shim --config|check-config FILE").into())
        }
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
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

/// Takes over what runs. Then, whatever has woken it, it looks after all that there is.
fn run(mut config: Config) -> Result<(), String> {
    let tls = petrel_link::server(default_provider(), &config.key, &config.control_plane_public_key);
    let tls = Arc::new(tls.map_err(about("key: expected PKCS #8 DER"))?);
    confine().map_err(about("rights and limits"))?;
    let _lock = open_state(&mut config.state_dir).map_err(about("state_dir"))?;
    let listener = listen_on(config.listen).map_err(about("listen"))?;
    let mut ops = Ops::new(config)?;
    ops.adopt()?;
    let mut control_plane = ControlPlane::default();
    control_plane.keep_running(&mut ops);
    log(format_args!("listening on {}, {} monitors run", ops.config.listen, ops.processes.len()));
    // The one authenticated peer, and a connection in its handshake, which may take as long as nobody else comes; and
    // when the peer was last there and listened.
    let (mut link, mut pending, mut heard) = (None, None, Instant::now());
    loop {
        heard = if wait(&listener, &ops, &link, &pending) { Instant::now() } else { heard };
        pending = Link::accept(&listener, &tls).ok().or(pending);
        shake_hands(&mut pending, &mut link, &mut ops);
        if has_ended(&mut ops) {
            end(&mut link, &mut ops, "its monitor ended");
        }
        control_plane.keep_running(&mut ops);
        if let Err(error) = serve(&mut link, &mut ops) {
            end(&mut link, &mut ops, &error);
        }
        if heard.elapsed() >= TICK || !ops.ledger.greeted {
            ops.processes.values_mut().for_each(Process::shed_console);
        }
    }
}

/// Waits for something to do. Whether the peer listens.
fn wait(listener: &TcpListener, ops: &Ops, link: &Option<Link>, pending: &Option<Link>) -> bool {
    let control_plane = ops.processes.get(&InstanceId::CONTROL_PLANE);
    let is_heard = ops.ledger.greeted && link.as_ref().is_some_and(Link::has_room);
    let mut inputs = vec![listener.as_fd()];
    inputs.extend(control_plane.into_iter().flat_map(Process::descriptors));
    inputs.extend(is_heard.then_some(ops.watched.as_fd()));
    let inputs = inputs.into_iter().map(|input| PollFd::from_borrowed_fd(input, PollFlags::IN));
    let mut all: Vec<_> = inputs.chain(link.iter().chain(pending).map(Link::interest)).collect();
    let is_settled = is_heard && control_plane.is_some();
    let _ = poll(&mut all, Timespec::try_from(TICK).ok().filter(|_| !is_settled).as_ref());
    is_heard
}

/// Goes on with the pending connection. Once it has shown the pinned key it is the link: the control plane was
/// restarted, whatever became of the old one.
fn shake_hands(pending: &mut Option<Link>, link: &mut Option<Link>, ops: &mut Ops) {
    let Some(mut next) = pending.take() else { return };
    match next.read() {
        Err(error) => log(format_args!("connection refused: {error}")),
        Ok(()) if next.is_authenticated() => {
            end(link, ops, "the control plane has connected anew");
            *link = Some(next);
            log(format_args!("control plane connected"));
        }
        Ok(()) => *pending = Some(next),
    }
}

/// Answers what has come on the link and tells what has happened. An error ends the link.
fn serve(link: &mut Option<Link>, ops: &mut Ops) -> Result<(), String> {
    let Some(link) = link else { return Ok(()) };
    link.read().map_err(about("lost"))?;
    loop {
        while let Some(request) = link.next_request().map_err(about("violation"))? {
            ops.answer(request, link).map_err(about("violation"))?;
        }
        if ops.ledger.greeted && link.has_room() {
            ops.tell(link);
        }
        let was_full = !link.has_room();
        link.flush().map_err(about("lost"))?;
        // Requests that found no room may have it now, and nothing else would wake the loop for them.
        if !(was_full && link.has_room()) {
            return Ok(());
        }
    }
}

fn end(link: &mut Option<Link>, ops: &mut Ops, reason: &str) {
    if link.take().is_some() {
        log(format_args!("control plane disconnected: {reason}"));
        // What only served the peer on it goes with it.
        ops.ledger.link_ended();
        ops.uploads.clear();
        ops.taps.clear();
    }
}

/// No new privileges; no core dump, which would hold keys or a guest's memory; all the descriptors that the host allows.
fn confine() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let files = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?)
}

/// Makes the state folder, and locks it: there must not be two shims on it. Its path becomes the real one.
fn open_state(folder: &mut PathBuf) -> io::Result<File> {
    // Monitors, which are other users, pass through and list nothing. Set explicitly, whatever the umask is.
    for (part, mode) in [("", 0o711), ("images", 0o711), ("volumes", 0o711), ("run", 0o700)] {
        fs::create_dir_all(folder.join(part))?;
        fs::set_permissions(folder.join(part), Permissions::from_mode(mode))?;
    }
    *folder = folder.canonicalize()?;
    let lock = File::open(&folder)?;
    if lock.try_lock().is_err() {
        log(format_args!("another petrel-shim uses {}: waiting for its end", folder.display()));
        lock.lock()?;
    }
    Ok(lock)
}
