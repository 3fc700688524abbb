//! The command line.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

mod appliance;
mod cert;
mod policy;

pub use appliance::{ApplianceVerb, Seal};
pub use cert::{Authority, CertCommand, Delegate, Renew, Revoke, RevokedArg, Sign, rights};
pub use policy::{Limits, PolicyCommand};

use clap::{Args, Parser, Subcommand};
use petrel_wire::operator::{Block, KINDS, Net, Since};
use petrel_wire::{BridgeName, Digest, Label, Name};

mod supervise;

pub use supervise::{
    ALIVE_EVERY_S, ALIVE_FAILURES, Change, Manifest, Named, Restart, Supervision, Update, When,
};

/// The memory of a unikernel for which none is given, in MiB.
pub const MEMORY_MIB: u32 = 32;
pub use crate::storage::args::{Get, ImageCommand, VolumeCommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the host refused it, or failed at it
  2  the command line is wrong
  3  no connection to the host, or one side does not trust the other
  4  a local file, profile or image is the problem
`create --wait` ends with the unikernel's own exit code, or 128 and the signal's number if one ended it.

Profiles:
  A profile says where a host is and holds the operator's certificate. `petrel init` makes it. It is taken from
  --profile, else $PETREL_PROFILE, else `default`; a name stands for ~/.config/petrel/NAME (or below
  $XDG_CONFIG_HOME), a text with a `/` for a path.";

/// Deploys and watches unikernels on a Petrel host.
#[derive(Debug, Parser)]
#[command(name = "petrel", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// The host's profile, by name or path
    #[arg(long, global = true, value_name = "NAME|PATH")]
    pub profile: Option<OsString>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a host: its keys, seal and configuration, and the operator's profile for it
    Init(Init),
    /// Seal what `init --appliance` has made, for the one host that it is for
    ///
    /// The sealed host is signed with the key of the operators' CA. An appliance refuses one that was altered, or whose
    /// signer is not the one that its image or its first boot has named.
    Seal(Seal),
    /// Ask something of the machine itself, where it is an appliance
    Appliance {
        /// What to do
        #[command(subcommand)]
        verb: ApplianceVerb,
    },
    /// Show what the host is and has
    #[command(after_help = crate::json::HOST_FIELDS)]
    Host(Json),
    /// Show what a local image is and needs, without any host
    #[command(after_help = crate::json::INSPECT_FIELDS)]
    Inspect {
        /// The image's file
        image: PathBuf,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// Create and start a unikernel, uploading its image if the host has not got it
    #[command(after_help = crate::json::UNIKERNEL_FIELDS)]
    Create(Create),
    /// List the unikernels
    #[command(after_help = crate::json::PS_FIELDS)]
    Ps(Json),
    /// Show one unikernel
    #[command(after_help = crate::json::INFO_FIELDS)]
    Info {
        /// The unikernel
        #[arg(value_parser = name)]
        name: Name,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// Print what a unikernel wrote to its console, also one that is no more
    ///
    /// The bytes are printed as they are, unless the output is a terminal: there, control characters other than
    /// newline and tab, and bytes that are not UTF-8, are shown as \xNN, because they could drive the terminal.
    #[command(after_help = MOMENTS)]
    Console(Console),
    /// List the consoles that are kept, those of unikernels that are no more included
    #[command(after_help = crate::json::CONSOLES_FIELDS)]
    Consoles(Json),
    /// Show what happened and who did it
    #[command(after_help = crate::json::EVENT_FIELDS)]
    Events(Events),
    /// Show what unikernels that run use: CPU, memory, storage, network
    #[command(after_help = crate::json::STATS_FIELDS)]
    Stats(Stats),
    /// Start a unikernel that is stopped, has ended or waits to be started again
    #[command(after_help = crate::json::UNIKERNEL_FIELDS)]
    Start(Named),
    /// Stop a unikernel and keep it
    ///
    /// A Solo5 guest cannot be told to end, so it is killed.
    #[command(after_help = crate::json::UNIKERNEL_FIELDS)]
    Stop(Named),
    /// Stop a unikernel and start it anew, with other arguments, memory, CPUs or another image if given
    ///
    /// What is changed makes a new generation. If that cannot be started, the unikernel is what it was.
    #[command(after_help = crate::json::UNIKERNEL_FIELDS)]
    Restart(Restart),
    /// Make a new generation of a unikernel, and go back to the present one unless it does well
    ///
    /// It does well if it gets ready within the window or, without --ready, runs through it. Network devices and
    /// volumes belong to one instance, so the present one is stopped before the new one is started.
    #[command(after_help = crate::json::UNIKERNEL_FIELDS)]
    Update(Update),
    /// Go back to an earlier generation of a unikernel
    #[command(after_help = crate::json::UNIKERNEL_FIELDS)]
    Rollback {
        /// The unikernel
        #[arg(value_parser = name)]
        name: Name,
        /// The generation; the latest earlier one that was not given up when absent
        generation: Option<u32>,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// Show the generations of a unikernel
    #[command(after_help = crate::json::HISTORY_FIELDS)]
    History(Named),
    /// Make the host's unikernels and volumes what a manifest says
    ///
    /// Shows what differs, then creates, grows, replaces and starts until nothing does. What the manifest does not name
    /// is left alone.
    #[command(after_help = supervise::MANIFEST)]
    Apply {
        /// The manifest and how to treat it
        #[command(flatten)]
        manifest: Manifest,
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Show how the host's unikernels and volumes differ from a manifest
    #[command(after_help = supervise::MANIFEST)]
    Diff(Manifest),
    /// Stop a unikernel and forget it
    Destroy {
        /// The unikernel
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Make, fill, read and remove volumes: what block devices store on
    Volume {
        /// What to do
        #[command(subcommand)]
        command: VolumeCommand,
    },
    /// Upload, list and remove images
    Image {
        /// What to do
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Download the image that a unikernel is made of
    #[command(after_help = crate::storage::GET_FIELDS)]
    Get(Get),
    /// Set, show and remove what all that lies below a path may have
    Policy {
        /// What to do
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Ask for, sign, show and revoke certificates
    Cert {
        /// What to do
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Save what the control plane keeps, or have it keep what was saved
    State {
        /// Which of the two
        #[command(subcommand)]
        verb: StateVerb,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command
    Man {
        /// The folder for them, which is made if it is not there
        folder: PathBuf,
    },
}

/// What `state` does.
#[derive(Debug, Subcommand)]
pub enum StateVerb {
    /// Save all that the control plane keeps in a file: the unikernels, not their images nor volumes
    ///
    /// The file holds the unikernels' arguments, so it is made for its owner only.
    Export {
        /// The file, which is replaced if it is there
        file: PathBuf,
    },
    /// Have the control plane keep what is in a file that `petrel state export` has made
    Import {
        /// The file
        file: PathBuf,
        /// Give up what it keeps now; it still must have no unikernel that runs
        #[arg(long)]
        force: bool,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Json {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const MOMENTS: &str = "\
A moment is a duration before now (\"90s\", \"15m\", \"2h 30m\", \"1d\"), a time of today (\"18:00\"), or a date with or without a
time (\"2026-11-24\", \"2026-11-24 18:00\", \"2026-11-24T18:00:00Z\").";

/// What `console` takes.
#[derive(Debug, Args)]
pub struct Console {
    /// The unikernel
    #[arg(value_parser = name, required_unless_present = "list")]
    pub name: Option<Name>,
    /// Go on with what comes, until the unikernel ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only what arrived since this moment
    #[arg(long, value_name = "MOMENT", value_parser = crate::time::since)]
    pub since: Option<Since>,
    /// Only the last N lines of what is kept
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
    /// Only what the unikernel wrote since it was last started
    #[arg(long)]
    pub latest: bool,
    /// Print before each line when it arrived
    #[arg(short, long)]
    pub times: bool,
    /// List the consoles that are kept, as `petrel consoles` does
    #[arg(long, conflicts_with_all = ["name", "follow", "since", "tail", "latest", "times"])]
    pub list: bool,
    /// How to print the list
    #[command(flatten)]
    pub json: Json,
}

/// What `events` takes.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what happens
    #[arg(short, long)]
    pub follow: bool,
    /// Only what is about this name, or one below it
    #[arg(long, value_name = "PATH", value_parser = name)]
    pub name: Option<Name>,
    /// Only what happened since this moment: 15m, 2h, 1d, 18:00, 2026-11-24, 2026-11-24T18:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = crate::time::since)]
    pub since: Option<Since>,
    /// Only events of this kind (repeatable)
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    pub kind: Vec<String>,
    /// Of what is kept, only the last N
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// What `stats` takes.
#[derive(Debug, Args)]
pub struct Stats {
    /// A unikernel, or the path of several (all when absent)
    #[arg(value_parser = name)]
    pub name: Vec<Name>,
    /// Print again and again, with rates, until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// How many seconds lie between, with --follow
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "follow", value_parser = clap::value_parser!(u32).range(1..))]
    pub interval: u32,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// What `create` takes.
#[derive(Debug, Args)]
pub struct Create {
    /// What to call it: labels of letters, digits, '-', '_' and '.', joined by ':'
    #[arg(value_parser = name)]
    pub name: Name,
    /// The image's file, or sha256:HEX of an image that the host has
    #[arg(value_parser = image)]
    pub image: ImageArg,
    /// Its memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = MEMORY_MIB)]
    pub mem: u32,
    /// A CPU of the host that it may run on (repeatable; any when absent)
    #[arg(long, value_name = "N")]
    pub cpu: Vec<u16>,
    /// Plug a network device of its manifest into a bridge of the host (repeatable)
    #[arg(long, value_name = "DEVICE=BRIDGE", value_parser = net)]
    pub net: Vec<Net>,
    /// Back a block device of its manifest by a volume (repeatable)
    #[arg(long, value_name = "DEVICE=VOLUME", value_parser = block)]
    pub block: Vec<Block>,
    /// An argument for the unikernel (repeatable)
    #[arg(long, value_name = "A", allow_hyphen_values = true)]
    pub arg: Vec<OsString>,
    /// How it is watched over
    #[command(flatten)]
    pub supervision: Supervision,
    /// If there is one of this name, put this in its place
    #[arg(short, long)]
    pub force: bool,
    /// Stay, print its console, and end with its exit code when it ends
    #[arg(long, conflicts_with = "json")]
    pub wait: bool,
    /// How to print it
    #[command(flatten)]
    pub json: Json,
}

/// Where a control plane's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4 {
    /// It is set: the address and the length of the network's prefix.
    Set((Ipv4Addr, u8)),
    /// A DHCP server leases it.
    Dhcp,
}

/// What `init` takes.
#[derive(Debug, Args)]
pub struct Init {
    /// The folder to make; it must not exist
    pub dir: PathBuf,
    /// What the host is called; its certificate is for this name
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub host: Label,
    /// The control plane's address and prefix length, as 10.0.0.2/24, or `dhcp`: it asks its network for one
    #[arg(long, value_name = "CIDR|dhcp", value_parser = ipv4)]
    pub ipv4: Ipv4,
    /// The control plane's gateway; DHCP names its own
    #[arg(long, value_name = "ADDRESS")]
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// The TCP port for operators
    #[arg(long, default_value_t = 1025, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// A bridge that unikernels may use (repeatable); the control plane is plugged into the first
    #[arg(long, value_name = "NAME", value_parser = bridge, default_value = "service")]
    pub bridge: Vec<BridgeName>,
    /// The control plane's image; petrel.hvt beside this program when absent
    #[arg(long, value_name = "PATH")]
    pub image: Option<PathBuf>,
    /// The tender that runs hvt images; petrel-tender beside this program when absent
    #[arg(long, value_name = "PATH")]
    pub tender: Option<PathBuf>,
    /// The host is an appliance, which has its image, tender and users already; seal it with `petrel seal`
    #[arg(long, conflicts_with_all = ["image", "tender", "uids"])]
    pub appliance: bool,
    /// Give each monitor a user of its own, out of this range; required where petrel-shim runs as root
    #[arg(long, value_name = "FIRST:COUNT", value_parser = uids)]
    pub uids: Option<(u32, u32)>,
    /// Leave ~/.config/petrel alone; otherwise the profile is installed there too, as --profile or `default`
    #[arg(long)]
    pub no_profile: bool,
}

/// An image as it is given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageArg {
    /// A local file.
    File(PathBuf),
    /// One that the host has.
    Digest(Digest),
}

pub fn name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error: petrel_wire::NameError| error.to_string())
}

fn label(text: &str) -> Result<Label, String> {
    text.parse().map_err(|error: petrel_wire::NameError| error.to_string())
}

pub(crate) fn bridge(text: &str) -> Result<BridgeName, String> {
    text.parse().map_err(|error: petrel_wire::NameError| error.to_string())
}

pub(crate) fn image(text: &str) -> Result<ImageArg, String> {
    match text.strip_prefix("sha256:") {
        Some(hex) => hex.parse().map(ImageArg::Digest).map_err(|error| format!("{error}")),
        None => Ok(ImageArg::File(text.into())),
    }
}

pub(crate) fn net(text: &str) -> Result<Net, String> {
    let (device, bridge) = text.split_once('=').ok_or("expected DEVICE=BRIDGE, as service=br0")?;
    Ok(Net {
        device: device.parse().map_err(|error| format!("the device's name: {}", device_words(error)))?,
        bridge: bridge.parse().map_err(|error| format!("the bridge's name: {error}"))?,
    })
}

pub(crate) fn block(text: &str) -> Result<Block, String> {
    let (device, volume) = text.split_once('=').ok_or("expected DEVICE=VOLUME, as storage=data")?;
    Ok(Block {
        device: device.parse().map_err(|error| format!("the device's name: {}", device_words(error)))?,
        volume: volume.parse().map_err(|error| format!("the volume's name: {error}"))?,
    })
}

/// Devices have a smaller alphabet than other names.
fn device_words(error: petrel_wire::NameError) -> String {
    match error {
        petrel_wire::NameError::Character(c) => format!("{c:?} is not allowed: use letters and digits"),
        other => other.to_string(),
    }
}

fn ipv4(text: &str) -> Result<Ipv4, String> {
    if text == "dhcp" { Ok(Ipv4::Dhcp) } else { cidr(text).map(Ipv4::Set) }
}

fn cidr(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let expected = "expected ADDRESS/PREFIX, as 10.0.0.2/24, or dhcp";
    let (address, prefix) = text.split_once('/').ok_or(expected)?;
    let address: Ipv4Addr = address.parse().map_err(|_| expected)?;
    let prefix: u8 = prefix.parse().map_err(|_| expected)?;
    let host_bits = u32::MAX.checked_shr(prefix.into()).ok_or("a prefix is at most 30")?;
    if !(1..=30).contains(&prefix) {
        return Err("a prefix of 1 to 30 leaves room for a network and a host".into());
    }
    let host_part = address.to_bits() & host_bits;
    if host_part == 0 || host_part == host_bits {
        return Err(format!("{address} is the network's own or its broadcast address, not a host's"));
    }
    Ok((address, prefix))
}

fn uids(text: &str) -> Result<(u32, u32), String> {
    let expected = "expected FIRST:COUNT, as 200000:65536";
    let (first, count) = text.split_once(':').ok_or(expected)?;
    let (first, count): (u32, u32) =
        (first.parse().map_err(|_| expected)?, count.parse().map_err(|_| expected)?);
    match first.checked_add(count) {
        Some(_) if first > 0 && count > 0 => Ok((first, count)),
        _ => Err("the range must not be empty, hold root's 0, or exceed 32 bits".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn create_takes_devices_and_arguments_that_begin_with_dashes() {
        let line = "petrel create web web.hvt --mem 64 --cpu 0 --cpu 1 --net service=br0 --block data=vol.1 \
                    --arg=--ipv4=10.0.0.9/24 --arg -v";
        let Command::Create(create) = parse(line).unwrap().command else { panic!("another command") };
        assert_eq!((&*create.name, create.mem, create.cpu.as_slice()), ("web", 64, [0, 1].as_slice()));
        assert_eq!((&*create.net[0].device, &*create.net[0].bridge), ("service", "br0"));
        assert_eq!((&*create.block[0].device, &*create.block[0].volume), ("data", "vol.1"));
        assert_eq!(create.arg, ["--ipv4=10.0.0.9/24", "-v"]);
        assert_eq!(create.image, ImageArg::File("web.hvt".into()));
    }

    #[test]
    fn the_profile_may_stand_before_or_after_the_command() {
        for line in ["petrel --profile alpha ps", "petrel ps --profile alpha"] {
            assert_eq!(parse(line).unwrap().profile, Some("alpha".into()));
        }
    }

    #[test]
    fn ill_formed_values_are_refused() {
        for line in [
            "petrel create a/b x.hvt",
            "petrel create .. x.hvt",
            "petrel create a sha256:12",
            "petrel create a x.hvt --net service",
            "petrel create a x.hvt --net ser-vice=br0",
            "petrel create a x.hvt --wait --json",
            "petrel destroy",
            "petrel console",
            "petrel console a --list",
            "petrel console a --since yesterday",
            "petrel events --kind no-such-kind",
            "petrel stats --interval 0 -f",
            "petrel stats --interval 5",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn addresses_must_be_those_of_a_host_in_a_network() {
        assert_eq!(cidr("10.0.0.2/24"), Ok((Ipv4Addr::new(10, 0, 0, 2), 24)));
        for bad in
            ["10.0.0.2", "10.0.0.2/0", "10.0.0.2/31", "10.0.0.2/33", "10.0.0.0/24", "10.0.0.255/24", "a/8"]
        {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_of_users_never_hold_root() {
        assert_eq!(uids("200000:65536"), Ok((200_000, 65_536)));
        for bad in ["0:10", "5:0", "4294967295:2", "7", "a:b"] {
            assert!(uids(bad).is_err(), "{bad}");
        }
    }
}
