//! What unikernels wrote and what happened: `petrel console`, `petrel consoles`, `petrel events`.

use std::io::{self, IsTerminal, Write};

use petrel_wire::operator::{
    ConsoleAsked, ConsoleBrief, Event, EventsAsked, Refusal, Request, Response, What, Who,
};
use petrel_wire::{ExitStatus, List, Name, Path};
use serde_json::{Value, json};

use crate::console::{Escaper, Stamper};
use crate::error::Error;
use crate::failure::Failure;
use crate::sentence::{self, About};
use crate::session::Session;
use crate::{args, cli, json, show, time, units};

/// What `petrel console` asks for.
pub fn asked(args: &args::Console, name: &Name) -> ConsoleAsked {
    let args::Console { follow, since, tail, latest, .. } = *args;
    ConsoleAsked { name: name.clone(), follow, since, tail, latest }
}

/// Prints a unikernel's console until it is over; how the unikernel ended, if that was told.
pub fn console(
    session: &mut Session,
    asked: ConsoleAsked,
    times: bool,
) -> Result<Option<ExitStatus>, Failure> {
    let name = asked.name.clone();
    let about = |error: Error| Failure::about(&error, &About { name: Some(&name), image: None });
    if asked.follow {
        session.wait_forever()?;
    }
    let id = session.send(Request::Console(asked))?;
    let mut escaper = io::stdout().is_terminal().then(Escaper::default);
    let mut stamper = times.then(Stamper::default);
    let mut status = None;
    loop {
        match session.receive(id).map_err(about)? {
            Response::Console { wall_ms, data } => {
                let mut out = data.into_vec();
                if let Some(escaper) = &mut escaper {
                    out = escaper.push(&out);
                }
                if let Some(stamper) = &mut stamper {
                    out = stamper.push(&out, &time::shown(wall_ms));
                }
                cli::write_out(&out)?;
            }
            Response::ConsoleMissed { bytes, lines } => complain(&missed(bytes, lines)),
            Response::ConsoleBegan { wall_ms } => {
                complain(&format!("{name} was started anew, heard from at {}", time::shown(wall_ms)));
            }
            Response::Ended(how) => status = Some(how),
            Response::ConsoleEnd => break,
            _ => return Err(cli::stray()),
        }
    }
    if let Some(mut escaper) = escaper {
        cli::write_out(&escaper.finish())?;
    }
    Ok(status)
}

fn missed(bytes: u64, lines: u64) -> String {
    match lines {
        0 => format!("{bytes} bytes of the console are no longer kept"),
        _ => format!("{lines} lines ({bytes} bytes) of the console are no longer kept"),
    }
}

/// Tells something beside the output. Nowhere is left to complain when stderr itself is gone.
fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "petrel: {what}");
}

/// Prints which consoles are kept.
pub fn consoles(session: &mut Session, as_json: bool) -> Result<u8, Failure> {
    let id = session.send(Request::Consoles)?;
    let mut all = Vec::new();
    loop {
        let Response::Consoles { page, more } = session.receive(id)? else { return Err(cli::stray()) };
        all.extend(page.into_vec());
        if !more {
            break;
        }
    }
    cli::print_data(as_json, || all.iter().map(console_as_json).collect(), || console_table(&all))
}

fn console_as_json(console: &ConsoleBrief) -> Value {
    json!({
        "name": &*console.name,
        "exists": console.exists,
        "bytes": console.bytes,
        "lines": console.lines,
        "first_ms": console.arrived_ms.map(|(first, _)| first),
        "last_ms": console.arrived_ms.map(|(_, last)| last),
    })
}

fn console_table(all: &[ConsoleBrief]) -> String {
    let rows = all.iter().map(|console| {
        let (first, last) = console
            .arrived_ms
            .map_or(("-".into(), "-".into()), |(first, last)| (time::shown(first), time::shown(last)));
        let exists = if console.exists { "there" } else { "gone" };
        let size = units::size(console.bytes);
        vec![console.name.to_string(), exists.into(), console.lines.to_string(), size, first, last]
    });
    show::table(&["NAME", "UNIKERNEL", "LINES", "SIZE", "FIRST", "LAST"], &rows.collect::<Vec<_>>())
}

/// Prints what happened, and, if asked so, what happens.
pub fn events(session: &mut Session, args: &args::Events) -> Result<u8, Failure> {
    let kinds = args.kind.iter().filter_map(|kind| kind.parse().ok()).collect::<Vec<_>>();
    let kinds = List::try_from(kinds).map_err(|_| {
        Failure::usage("too many --kind", "each once", "leave those out that are there twice")
    })?;
    let args::Events { follow, since, limit, .. } = *args;
    if follow {
        session.wait_forever()?;
    }
    let asked =
        EventsAsked { follow, path: args.name.as_ref().map_or(Path::ROOT, Path::from), since, kinds, limit };
    let id = session.send(Request::Events(Box::new(asked)))?;
    loop {
        match session.receive(id)? {
            Response::Events(page) => page.iter().try_for_each(|event| print_event(event, args.json.json))?,
            Response::EventsMissed(missed) if args.json.json => {
                cli::print(&format!("{}\n", json!({ "missed": missed })))?;
            }
            Response::EventsMissed(missed) => complain(&format!("{missed} events are no longer kept")),
            Response::EventsEnd => return Ok(0),
            _ => return Err(cli::stray()),
        }
    }
}

fn print_event(event: &Event, as_json: bool) -> Result<(), Failure> {
    let line = if as_json { event_as_json(event).to_string() } else { event_line(event) };
    cli::print(&format!("{line}\n")).map(|_| ())
}

fn event_line(event: &Event) -> String {
    let about = if event.about.is_root() { String::new() } else { format!("{}: ", event.about) };
    let who = match &event.who {
        Who::ControlPlane => String::new(),
        who @ Who::Operator { .. } => format!(", by {who}"),
    };
    format!("{}  {about}{}{who}", time::shown(event.wall_ms), text(&event.what))
}

/// What happened in words. Where it did not go well, those for the reason are the ones that a refusal has.
fn text(what: &What) -> String {
    let why = |refusal: &Refusal| sentence::refusal(refusal, &About::default()).wrong;
    match what {
        What::SessionRefused(refusal) => format!("session refused: {}", why(refusal)),
        What::CreateFailed(refusal) => format!("not created: {}", why(refusal)),
        What::StartFailed(refusal) => format!("not started: {}", why(refusal)),
        What::EndFailed(fault) => format!("could not be ended: {}", sentence::shim(*fault).wrong),
        What::RolledBack(failed, generation, why) => {
            format!("generation {failed} {}: back to {generation}", sentence::setback(*why))
        }
        What::ImageRefused(digest, refusal) => format!("image {digest:?} not kept: {}", why(refusal)),
        What::VolumeFailed(refusal) => format!("volume not changed: {}", why(refusal)),
        What::JournalFailed(reason) => {
            format!("changes are refused from here on: {}", sentence::journal_fault(*reason))
        }
        other => other.to_string(),
    }
}

/// A path as its labels, unless it is the root.
fn below_root(path: &Path) -> Option<&str> {
    (!path.is_root()).then_some(path.labels())
}

fn event_as_json(event: &Event) -> Value {
    let (who, scope) = match &event.who {
        Who::ControlPlane => (None, None),
        Who::Operator { name, scope } => (Some(&**name), below_root(scope)),
    };
    let mut value = json!({
        "sequence": event.sequence,
        "wall_ms": event.wall_ms,
        "kind": event.what.kind(),
        "who": who,
        "scope": scope,
        "about": below_root(&event.about),
        "text": text(&event.what),
    });
    match &event.what {
        What::ControlPlaneStarted(release) | What::ShimConnected(release) => {
            value["release"] = json!(json::release(*release));
        }
        What::Created(image)
        | What::ImageStored(image)
        | What::ImageRefused(image, _)
        | What::ImageRemoved(image) => value["image"] = json!(image),
        What::Started(pid) => value["pid"] = json!(pid),
        What::Exited(status) => {
            let (exit_code, signal) = json::ended(*status);
            (value["exit_code"], value["signal"]) = (json!(exit_code), json!(signal));
        }
        What::BackOff(delay_ms) => value["delay_ms"] = json!(delay_ms),
        What::Updating(number) | What::Updated(number) => value["generation"] = json!(number),
        What::RolledBack(failed, generation, _) => {
            (value["failed_generation"], value["generation"]) = (json!(failed), json!(generation));
        }
        What::VolumeCreated(bytes) | What::VolumePushed(bytes) | What::VolumeResized(bytes) => {
            value["bytes"] = json!(bytes);
        }
        What::VolumeCopied(from) => value["from"] = json!(from),
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use petrel_wire::CommonName;

    use super::*;

    fn event(what: What) -> Event {
        let who = Who::Operator { name: CommonName::lossy("ada"), scope: Path::ROOT };
        Event { sequence: 7, wall_ms: 1000, who, what, about: "web".parse().unwrap() }
    }

    #[test]
    fn an_event_is_a_line_with_its_reason_in_words() {
        let line = event_line(&event(What::CreateFailed(Box::new(Refusal::ShimAway))));
        assert!(
            line.ends_with(
                "web: not created: the control plane has lost its connection to the host's shim, by ada"
            ),
            "{line}"
        );
    }

    #[test]
    fn an_event_as_json_has_what_its_kind_has() {
        let exited = event_as_json(&event(What::Exited(ExitStatus::Code(3))));
        let expected = json!({
            "sequence": 7, "wall_ms": 1000, "kind": "exited", "who": "ada", "scope": null, "about": "web",
            "text": "ended: exit 3", "exit_code": 3, "signal": null,
        });
        assert_eq!(exited, expected);
    }

    #[test]
    fn lines_are_told_as_missed_where_they_are_known() {
        assert_eq!(missed(5, 0), "5 bytes of the console are no longer kept");
        assert_eq!(missed(50, 2), "2 lines (50 bytes) of the console are no longer kept");
    }
}
