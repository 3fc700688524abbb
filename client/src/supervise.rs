//! `petrel start`, `stop`, `restart`, `update`, `rollback` and `history`.

use petrel_wire::Name;
use petrel_wire::limits::{CPUS_MAX, GENERATIONS_MAX};
use petrel_wire::operator::{Change, GenerationInfo, Request, Response, Unikernel};

use crate::args;
use crate::cli;
use crate::create::{Source, arguments, bounded, deploy};
use crate::error::Error;
use crate::failure::Failure;
use crate::sentence::About;
use crate::session::Session;
use crate::{json, show, units};

/// Asks for something that is answered with the unikernel as it is then, and prints that.
pub fn ask(mut session: Session, name: &Name, request: Request, form: args::Json) -> Result<u8, Failure> {
    let about = About { name: Some(name), image: None };
    let answer = session.request(request).map_err(|error| Failure::about(&error, &about))?;
    print(answer, form)
}

/// `petrel restart`.
pub fn restart(args: &args::Restart, open: impl FnOnce() -> Result<Session, Failure>) -> Result<u8, Failure> {
    let request = |change| Request::Restart { name: args.name.clone(), change };
    change(&args.name, args.image.as_ref(), &args.change, request, args.json, open)
}

/// `petrel update`.
pub fn update(args: &args::Update, open: impl FnOnce() -> Result<Session, Failure>) -> Result<u8, Failure> {
    let request = |change| Request::Update { name: args.name.clone(), change, window_s: args.window };
    change(&args.name, args.image.as_ref(), &args.change, request, args.json, open)
}

fn change(
    name: &Name,
    image: Option<&args::ImageArg>,
    new: &args::Change,
    request: impl FnOnce(Box<Change>) -> Request,
    form: args::Json,
    open: impl FnOnce() -> Result<Session, Failure>,
) -> Result<u8, Failure> {
    let image = image.map(Source::of).transpose()?;
    let change = Change {
        image: image.as_ref().map(Source::digest),
        memory_mib: new.mem,
        cpus: (new.any_cpu || !new.cpu.is_empty())
            .then(|| bounded(&new.cpu, "--cpu", CPUS_MAX))
            .transpose()?,
        args: (new.no_args || !new.arg.is_empty()).then(|| arguments(&new.arg)).transpose()?,
    };
    let request = request(Box::new(change));
    let shown = image.as_ref().map(Source::shown);
    let about = About { name: Some(name), image: shown.as_deref() };
    let mut session = open()?;
    // The answer to an update comes when its window is over.
    session.wait_forever()?;
    let answer = match &image {
        Some(image) => deploy(&mut session, request, image),
        None => session.request(request),
    };
    print(answer.map_err(|error| Failure::about(&error, &about))?, form)
}

fn print(answer: Response, form: args::Json) -> Result<u8, Failure> {
    let (Response::Started(unikernel) | Response::Stopped(unikernel) | Response::Updated(unikernel)) = answer
    else {
        return Err(cli::stray());
    };
    let unikernel: &Unikernel = &unikernel;
    cli::print_data(form.json, || json::unikernel(unikernel), || show::created(unikernel))
}

/// `petrel history`.
pub fn history(mut session: Session, args: &args::Named) -> Result<u8, Failure> {
    let about = About { name: Some(&args.name), image: None };
    let all = generations(&mut session, &args.name).map_err(|error| Failure::about(&error, &about))?;
    let as_json = || all.iter().map(json::generation).collect();
    cli::print_data(args.json.json, as_json, || show::history(&all, units::now_ms()))
}

fn generations(session: &mut Session, name: &Name) -> Result<Vec<GenerationInfo>, Error> {
    let id = session.send(Request::History(name.clone()))?;
    let mut all = Vec::new();
    loop {
        let Response::Generation { generation, more } = session.receive(id)? else {
            return Err(session.unexpected());
        };
        all.push(*generation);
        if !more {
            return Ok(all);
        }
        if all.len() > GENERATIONS_MAX {
            return Err(session.unexpected());
        }
    }
}
