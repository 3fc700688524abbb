//! The command line of what keeps unikernels running.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use petrel_wire::limits::WINDOW_S_MAX;
use petrel_wire::{Name, Probe};

use super::{ImageArg, Json, image, name};

/// How often a liveness probe is tried for which nothing else is given, in seconds.
pub const ALIVE_EVERY_S: u16 = 10;
/// How many failures in a row are too many where nothing else is given.
pub const ALIVE_FAILURES: u8 = 3;

/// What a manifest is, for people.
pub const MANIFEST: &str = "\
A manifest is TOML, a table for each unikernel, its fields those of `petrel create`, and one for each volume:
  [unikernel.web]
  image = \"web.hvt\"                  # a path, from the manifest's folder, or \"sha256:HEX\"
  mem = 32
  net = [\"service=service\"]
  arg = [\"--ipv4=10.0.0.10/24\"]
  restart = \"on-failure\"
  ready = \"http:10.0.0.10:80/\"
  block = [\"storage=data\"]
  [volume.data]
  size = \"1G\"                        # as `petrel volume create` takes it
Further fields of a unikernel: cpu [N], exit-code [N], after [NAME], alive, alive-every, alive-failures. One without cpu
keeps those that it has or that policies give it; `petrel restart NAME --any-cpu` takes them back.

With --prune, unikernels that the manifest does not name are destroyed first, so that others can have what they had.

Volumes come first: one that is missing is created, one that is to be larger grows, also in use (a unikernel sees that
when it starts anew). One that is to be smaller is shown, and then apply refuses and does nothing, for shrinking loses
data. A volume that the manifest does not name is left alone, also with --prune: only `petrel volume rm` deletes one.

Prints with --json an object with the fields
  changes [{kind: unikernel|volume, name, action: create|replace|start|destroy|grow|shrink,
  differences [{field, is, shall_be}]}], unchanged (how many)";

/// One unikernel.
#[derive(Debug, Args)]
pub struct Named {
    /// The unikernel
    #[arg(value_parser = name)]
    pub name: Name,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// What `restart` takes.
#[derive(Debug, Args)]
pub struct Restart {
    /// The unikernel
    #[arg(value_parser = name)]
    pub name: Name,
    /// Another image: its file, or sha256:HEX of one that the host has
    #[arg(long, value_parser = image)]
    pub image: Option<ImageArg>,
    /// What else is new
    #[command(flatten)]
    pub change: Change,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// What `update` takes.
#[derive(Debug, Args)]
pub struct Update {
    /// The unikernel
    #[arg(value_parser = name)]
    pub name: Name,
    /// Another image: its file, or sha256:HEX of one that the host has
    #[arg(value_parser = image)]
    pub image: Option<ImageArg>,
    /// What else is new
    #[command(flatten)]
    pub change: Change,
    /// How long it has to do well
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(WINDOW_S_MAX)))]
    pub window: u32,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// What may be changed besides the image. What is not given stays.
#[derive(Debug, Args)]
pub struct Change {
    /// Its memory, in MiB
    #[arg(long, value_name = "MIB")]
    pub mem: Option<u32>,
    /// A CPU of the host that it may run on, in place of those that there were (repeatable)
    #[arg(long, value_name = "N")]
    pub cpu: Vec<u16>,
    /// Let it run on any CPU
    #[arg(long, conflicts_with = "cpu")]
    pub any_cpu: bool,
    /// An argument for the unikernel, in place of those that there were (repeatable)
    #[arg(long, value_name = "A", allow_hyphen_values = true)]
    pub arg: Vec<OsString>,
    /// Give it no arguments
    #[arg(long, conflicts_with = "arg")]
    pub no_args: bool,
}

/// A manifest.
#[derive(Debug, Args)]
pub struct Manifest {
    /// The manifest's file
    pub file: PathBuf,
    /// Destroy the unikernels that the manifest does not name; volumes are never removed
    #[arg(long)]
    pub prune: bool,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// How a unikernel is watched over.
#[derive(Debug, Args)]
pub struct Supervision {
    /// Whether it is started again when it ends by itself: on 1 and 60 to 64, which say that it was started wrongly,
    /// only if --exit-code lists them
    #[arg(long, value_name = "WHEN", default_value = "never")]
    pub restart: When,
    /// The same as --restart on-failure
    #[arg(long, conflicts_with = "restart")]
    pub restart_on_fail: bool,
    /// With --restart on-failure, start it again on this exit code and those that are listed so only (repeatable)
    #[arg(long, value_name = "N")]
    pub exit_code: Vec<u8>,
    /// Start it when this unikernel is ready, or runs if that has no --ready (repeatable)
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub after: Vec<Name>,
    /// It is ready when it writes TEXT to its console, takes a TCP connection, or answers an HTTP GET with 200 to 399
    #[arg(long, value_name = "console:TEXT|tcp:ADDRESS:PORT|http:ADDRESS:PORT/PATH", value_parser = probe)]
    pub ready: Option<Probe>,
    /// End it, and do as --restart says, when this fails too often
    #[arg(long, value_name = "PROBE", value_parser = probe)]
    pub alive: Option<Probe>,
    /// How often --alive is tried
    #[arg(long, value_name = "SECONDS", default_value_t = ALIVE_EVERY_S, value_parser = clap::value_parser!(u16).range(1..))]
    pub alive_every: u16,
    /// How many failures of --alive in a row are too many
    #[arg(long, value_name = "N", default_value_t = ALIVE_FAILURES, value_parser = clap::value_parser!(u8).range(1..))]
    pub alive_failures: u8,
}

/// When a unikernel is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// It stays as it has ended
    #[default]
    Never,
    /// Unless it exited with 0
    OnFailure,
    /// However it ended
    Always,
}

fn probe(text: &str) -> Result<Probe, String> {
    text.parse().map_err(|error: petrel_wire::ProbeError| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use petrel_wire::operator::{Restart, RestartWhen};

    use super::super::{Cli, Command};

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn create_takes_how_a_unikernel_is_watched_over() {
        let line = "petrel create web web.hvt --restart on-failure --exit-code 1 --exit-code 255 --after db --after acme:log \
                    --ready http:10.0.0.9:80/up --alive tcp:10.0.0.9:80 --alive-every 5 -f";
        let Command::Create(create) = parse(line).unwrap() else { panic!("another command") };
        let supervision = crate::create::supervision(&create.supervision).unwrap();
        let restart = Restart { when: RestartWhen::OnFailure, codes: vec![1, 255].try_into().unwrap() };
        assert_eq!((supervision.restart, create.force), (restart, true));
        assert_eq!(supervision.after.iter().map(|name| &**name).collect::<Vec<_>>(), ["db", "acme:log"]);
        assert_eq!(supervision.ready.unwrap().to_string(), "http:10.0.0.9:80/up");
        let alive = supervision.alive.unwrap();
        assert_eq!(
            (alive.probe.to_string().as_str(), alive.every_s, alive.failures),
            ("tcp:10.0.0.9:80", 5, 3)
        );
    }

    #[test]
    fn albatrosss_word_for_restarting_is_understood() {
        let Command::Create(create) = parse("petrel create web web.hvt --restart-on-fail").unwrap() else {
            panic!("another command")
        };
        let restart = crate::create::supervision(&create.supervision).unwrap().restart;
        assert_eq!(restart.when, RestartWhen::OnFailure);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "petrel create web web.hvt --restart sometimes",
            "petrel create web web.hvt --restart-on-fail --restart always",
            "petrel create web web.hvt --exit-code 256",
            "petrel create web web.hvt --ready ping:10.0.0.1",
            "petrel create web web.hvt --alive tcp:10.0.0.1:1 --alive-every 0",
            "petrel create web web.hvt --after a/b",
            "petrel update web --window 0",
            "petrel update web --window 3601",
            "petrel update web --arg x --no-args",
            "petrel restart web --cpu 1 --any-cpu",
            "petrel rollback web -1",
            "petrel apply",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
