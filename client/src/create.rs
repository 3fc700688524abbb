//! `petrel create`.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

use petrel_wire::limits::{
    AFTER_MAX, ARGS_MAX, BLOCKS_MAX, CMDLINE_BYTES_MAX, CPUS_MAX, EXIT_CODES_MAX, NETS_MAX,
};
use petrel_wire::operator::{
    ConsoleAsked, Create, Liveness, Refusal, Request, Response, Restart, RestartWhen, Supervision,
};
use petrel_wire::{Blob, Digest, ExitStatus, List};

use crate::args;
use crate::cli;
use crate::error::{Error, Exit};
use crate::failure::Failure;
use crate::image::Image;
use crate::progress::Progress;
use crate::sentence::About;
use crate::session::Session;
use crate::{json, sentence, show, watch};

/// How a shell calls the end of a program whose output nobody reads.
const ENDED_BY_SIGPIPE: u8 = 141;

/// Where an image is.
pub(crate) enum Source {
    Here(Box<Image>),
    OnTheHost(Digest),
}

impl Source {
    pub(crate) fn of(image: &args::ImageArg) -> Result<Self, Failure> {
        Ok(match image {
            args::ImageArg::File(path) => Self::Here(Box::new(Image::read(path)?)),
            args::ImageArg::Digest(digest) => Self::OnTheHost(*digest),
        })
    }

    pub(crate) fn digest(&self) -> Digest {
        match self {
            Self::Here(image) => image.digest(),
            Self::OnTheHost(digest) => *digest,
        }
    }

    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Here(image) => image.path.display().to_string(),
            Self::OnTheHost(digest) => format!("{digest:?}"),
        }
    }
}

/// Runs the command; returns the exit code.
pub fn run(args: &args::Create, open: impl FnOnce() -> Result<Session, Failure>) -> Result<u8, Failure> {
    let image = Source::of(&args.image)?;
    if let Source::Here(image) = &image {
        image.check_devices(&args.net, &args.block)?;
        image.check_memory(args.mem)?;
    }
    let mut create = wanted(args)?;
    // The handshake is under way while the image is hashed.
    let mut session = open()?;
    create.image = image.digest();
    let shown = image.shown();
    let about = About { name: Some(&args.name), image: Some(&shown) };
    let request = Request::Create(Box::new(create));
    let answer = deploy(&mut session, request, &image).map_err(|error| Failure::about(&error, &about))?;
    let Response::Created(created) = answer else { return Err(cli::stray()) };
    if args.wait {
        return wait(&mut session, args);
    }
    cli::print_data(args.json.json, || json::unikernel(&created), || show::created(&created))
}

/// The request, but for the image.
pub(crate) fn wanted(args: &args::Create) -> Result<Create, Failure> {
    Ok(Create {
        name: args.name.clone(),
        image: Digest([0; 32]),
        memory_mib: args.mem,
        cpus: bounded(&args.cpu, "--cpu", CPUS_MAX)?,
        nets: bounded(&args.net, "--net", NETS_MAX)?,
        blocks: bounded(&args.block, "--block", BLOCKS_MAX)?,
        args: arguments(&args.arg)?,
        supervision: supervision(&args.supervision)?,
        force: args.force,
    })
}

pub(crate) fn arguments(args: &[OsString]) -> Result<List<Blob<CMDLINE_BYTES_MAX>, ARGS_MAX>, Failure> {
    let given = args.iter().map(|arg| Blob::try_from(arg.as_bytes()));
    let given: Vec<Blob<CMDLINE_BYTES_MAX>> =
        given.collect::<Result<_, _>>().map_err(|_| too_many("bytes of arguments", CMDLINE_BYTES_MAX))?;
    bounded(&given, "--arg", ARGS_MAX)
}

pub(crate) fn supervision(args: &args::Supervision) -> Result<Supervision, Failure> {
    let when = match args.restart {
        _ if args.restart_on_fail => RestartWhen::OnFailure,
        args::When::Never => RestartWhen::Never,
        args::When::OnFailure => RestartWhen::OnFailure,
        args::When::Always => RestartWhen::Always,
    };
    let (every_s, failures) = (args.alive_every, args.alive_failures);
    Ok(Supervision {
        restart: Restart { when, codes: bounded(&args.exit_code, "--exit-code", EXIT_CODES_MAX)? },
        after: bounded(&args.after, "--after", AFTER_MAX)?,
        ready: args.ready.clone(),
        alive: args.alive.clone().map(|probe| Liveness { probe, every_s, failures }),
    })
}

pub(crate) fn bounded<T: Clone, const N: usize>(
    values: &[T],
    what: &str,
    max: usize,
) -> Result<List<T, N>, Failure> {
    List::try_from(values.to_vec()).map_err(|_| too_many(what, max))
}

fn too_many(what: &str, max: usize) -> Failure {
    Failure::usage(format!("too many {what}"), format!("at most {max}"), "leave some out")
}

/// Asks for it at once, since most images are on the host already; uploads only when told that it is not.
pub(crate) fn deploy(session: &mut Session, request: Request, image: &Source) -> Result<Response, Error> {
    match (session.request(request.clone()), image) {
        (Err(Error::Refused(Refusal::NoSuchImage)), Source::Here(image)) => {
            let mut progress = Progress::new("uploading", image.bytes.len() as u64);
            session.push(&image.bytes, image.digest(), |done| progress.update(done))?;
            drop(progress);
            session.request(request)
        }
        (answer, _) => answer,
    }
}

/// Prints the console until the unikernel has ended, and ends as it did.
fn wait(session: &mut Session, args: &args::Create) -> Result<u8, Failure> {
    let name = args.name.clone();
    let asked = ConsoleAsked { name, follow: true, since: None, tail: None, latest: true };
    let status = match watch::console(session, asked, false) {
        // It runs on, and nobody knows how it will end.
        Err(Failure::Unread) => return Ok(ENDED_BY_SIGPIPE),
        seen => seen?.unwrap_or(ExitStatus::Unknown),
    };
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "petrel: {} has ended: {status}", args.name);
    }
    match status {
        ExitStatus::Code(code) => Ok(code),
        ExitStatus::Signal(signal) => Ok(signal.saturating_add(128)),
        ExitStatus::Unknown => Err(Failure::Told {
            exit: Exit::Refused,
            sentence: sentence::say(
                format!("\"{}\" has ended, but nobody saw how", args.name),
                "the host's shim to be there when a unikernel ends",
                "see its console, and the shim's log on the host",
            ),
        }),
    }
}
