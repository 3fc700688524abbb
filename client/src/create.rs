//! `petrel create`.

use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

use petrel_wire::limits::{ARGS_MAX, BLOCKS_MAX, CMDLINE_BYTES_MAX, CPUS_MAX, NETS_MAX};
use petrel_wire::operator::{ConsoleAsked, Create, Refusal, Request, Response, Unikernel};
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

/// Where the image is.
enum Source {
    Here(Box<Image>),
    OnTheHost(Digest),
}

impl Source {
    fn digest(&self) -> Digest {
        match self {
            Self::Here(image) => image.digest(),
            Self::OnTheHost(digest) => *digest,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Here(image) => image.path.display().to_string(),
            Self::OnTheHost(digest) => format!("{digest:?}"),
        }
    }
}

/// Runs the command; returns the exit code.
pub fn run(args: &args::Create, open: impl FnOnce() -> Result<Session, Failure>) -> Result<u8, Failure> {
    let image = match &args.image {
        args::ImageArg::File(path) => Source::Here(Box::new(Image::read(path)?)),
        args::ImageArg::Digest(digest) => Source::OnTheHost(*digest),
    };
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
    let created = deploy(&mut session, create, &image).map_err(|error| Failure::about(&error, &about))?;
    if args.wait {
        return wait(&mut session, args);
    }
    cli::print_data(args.json.json, || json::unikernel(&created), || show::created(&created))
}

/// The request, but for the image.
fn wanted(args: &args::Create) -> Result<Create, Failure> {
    let given = args.arg.iter().map(|arg| Blob::try_from(arg.as_bytes()));
    let given: Vec<Blob<CMDLINE_BYTES_MAX>> =
        given.collect::<Result<_, _>>().map_err(|_| too_many("bytes of arguments", CMDLINE_BYTES_MAX))?;
    Ok(Create {
        name: args.name.clone(),
        image: Digest([0; 32]),
        memory_mib: args.mem,
        cpus: bounded(&args.cpu, "--cpu", CPUS_MAX)?,
        nets: bounded(&args.net, "--net", NETS_MAX)?,
        blocks: bounded(&args.block, "--block", BLOCKS_MAX)?,
        args: bounded(&given, "--arg", ARGS_MAX)?,
    })
}

fn bounded<T: Clone, const N: usize>(values: &[T], what: &str, max: usize) -> Result<List<T, N>, Failure> {
    List::try_from(values.to_vec()).map_err(|_| too_many(what, max))
}

fn too_many(what: &str, max: usize) -> Failure {
    Failure::usage(format!("too many {what}"), format!("at most {max}"), "leave some out")
}

/// Asks for it at once, since most images are on the host already; uploads only when told that it is not.
fn deploy(session: &mut Session, create: Create, image: &Source) -> Result<Unikernel, Error> {
    let digest = create.image;
    let request = Request::Create(Box::new(create));
    let answer = match (session.request(request.clone()), image) {
        (Err(Error::Refused(Refusal::NoSuchImage)), Source::Here(image)) => {
            let mut progress = Progress::new(image.bytes.len());
            session.push(&image.bytes, digest, |done| progress.update(done))?;
            drop(progress);
            session.request(request)?
        }
        (answer, _) => answer?,
    };
    match answer {
        Response::Created(unikernel) => Ok(*unikernel),
        _ => Err(session.unexpected()),
    }
}

/// Prints the console until the unikernel has ended, and ends as it did.
fn wait(session: &mut Session, args: &args::Create) -> Result<u8, Failure> {
    let name = args.name.clone();
    let asked = ConsoleAsked { name, follow: true, since: None, tail: None, latest: true };
    let status = watch::console(session, asked, false)?.unwrap_or(ExitStatus::Unknown);
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
