//! The commands.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use petrel_wire::Name;
use petrel_wire::operator::{Request, Response};
use serde_json::Value;

use crate::args::{Cli, Command};
use crate::error::Error;
use crate::failure::Failure;
use crate::image::Image;
use crate::profile::{self, Profile};
use crate::sentence::About;
use crate::session::Session;
use crate::{
    appliance, apply, cert, create, help, init, json, policy, seal, show, state, stats, storage, supervise,
    units, watch,
};

/// Runs the program: arguments, environment and standard streams are the process's.
pub fn main() -> ExitCode {
    let understood = help::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match understood {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(code) => code.into(),
        Err(Failure::Unread) => ExitCode::SUCCESS,
        Err(Failure::Told { exit, sentence }) => {
            // Nowhere is left to complain when stderr itself is gone.
            let _ = writeln!(io::stderr(), "petrel: {sentence}");
            (exit as u8).into()
        }
    }
}

/// Help goes to stdout as clap makes it; complaints get the form of all our messages.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let text = error.render().to_string();
        let _ = write!(io::stderr(), "petrel: {}", text.strip_prefix("error: ").unwrap_or(&text));
        ExitCode::from(crate::Exit::Usage as u8)
    } else {
        let _ = error.print();
        ExitCode::SUCCESS
    }
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let profile = cli.profile;
    match cli.command {
        Command::Init(args) => init::run(&args, profile.as_deref()).and_then(|said| print(&said)),
        Command::Appliance { verb } => print(&appliance::run(&verb, || open(profile.clone()))?),
        Command::Seal(args) => seal::run(&args).and_then(|said| print(&said)),
        Command::Host(form) => {
            let Response::Host(host) = ask(profile, Request::Host)? else { return Err(stray()) };
            print_data(form.json, || json::host(&host), || show::host(&host))
        }
        Command::Inspect { image, json: form } => {
            let image = Image::read(&image)?;
            print_data(form.json, || json::inspect(&image), || show::inspect(&image))
        }
        Command::Create(args) => create::run(&args, || open(profile)),
        Command::Ps(form) => {
            let all = open(profile)?.list()?;
            let as_json = || all.iter().map(json::unikernel).collect();
            print_data(form.json, as_json, || show::ps(&all, units::now_ms()))
        }
        Command::Info { name, json: form } => {
            let answer = ask_about(profile, &name, Request::Info(name.clone()))?;
            let Response::Info(info) = answer else { return Err(stray()) };
            print_data(form.json, || json::info(&info), || show::info(&info, units::now_ms()))
        }
        Command::Console(args) => match &args.name {
            Some(name) => {
                watch::console(&mut open(profile)?, watch::asked(&args, name), args.times).map(|_| 0)
            }
            None => watch::consoles(&mut open(profile)?, args.json.json),
        },
        Command::Consoles(form) => watch::consoles(&mut open(profile)?, form.json),
        Command::Events(args) => watch::events(&mut open(profile)?, &args),
        Command::Stats(args) => stats::run(&mut open(profile)?, &args),
        Command::Start(args) => {
            supervise::ask(open(profile)?, &args.name, Request::Start(args.name.clone()), args.json)
        }
        Command::Stop(args) => {
            supervise::ask(open(profile)?, &args.name, Request::Stop(args.name.clone()), args.json)
        }
        Command::Restart(args) => supervise::restart(&args, || open(profile)),
        Command::Update(args) => supervise::update(&args, || open(profile)),
        Command::Rollback { name, generation, json } => {
            let request = Request::Rollback { name: name.clone(), generation };
            supervise::ask(open(profile)?, &name, request, json)
        }
        Command::History(args) => supervise::history(open(profile)?, &args),
        Command::Apply { manifest, dry_run } => apply::run(&manifest, dry_run, || open(profile)),
        Command::Diff(manifest) => apply::run(&manifest, true, || open(profile)),
        Command::Destroy { name } => {
            ask_about(profile, &name, Request::Destroy(name.clone()))?;
            Ok(0)
        }
        Command::Volume { command } => storage::volume(&command, || open(profile)),
        Command::Image { command } => storage::image(&command, || open(profile)),
        Command::Get(args) => storage::get(&args, || open(profile)),
        Command::Policy { command } => policy::run(&command, || open(profile)),
        Command::Cert { command } => cert::run(&command, || load(profile)),
        Command::State { verb } => print(&state::run(&verb, || open(profile))?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "petrel", &mut script);
            write_out(&script)?;
            Ok(0)
        }
        Command::Man { folder } => help::man(&folder),
    }
}

/// Reads the profile that was asked for.
fn load(asked: Option<OsString>) -> Result<Profile, Failure> {
    let environment = || std::env::var_os("PETREL_PROFILE").filter(|name| !name.is_empty());
    let path = profile::locate(asked.or_else(environment).as_deref())?;
    Ok(Profile::load(&path)?)
}

/// Opens a session with its host.
fn open(asked: Option<OsString>) -> Result<Session, Failure> {
    Ok(Session::connect(&load(asked)?)?)
}

fn ask(profile: Option<OsString>, request: Request) -> Result<Response, Failure> {
    Ok(open(profile)?.request(request)?)
}

fn ask_about(profile: Option<OsString>, name: &Name, request: Request) -> Result<Response, Failure> {
    let about = About { name: Some(name), image: None };
    open(profile)?.request(request).map_err(|error| Failure::about(&error, &about))
}

/// An answer that does not fit its question.
pub fn stray() -> Failure {
    let address = "the host".into();
    Error::Protocol { address, what: "an answer to another question".into() }.into()
}

/// Prints as JSON or for people.
pub fn print_data(
    as_json: bool,
    json: impl FnOnce() -> Value,
    people: impl FnOnce() -> String,
) -> Result<u8, Failure> {
    if as_json { print(&format!("{:#}\n", json())) } else { print(&people()) }
}

/// Prints text; the exit code of having done so.
pub fn print(text: &str) -> Result<u8, Failure> {
    write_out(text.as_bytes()).map(|()| 0)
}

/// Prints bytes, which are seen at once.
pub fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    // Raw output may hold half a line: what came must be seen now.
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}
