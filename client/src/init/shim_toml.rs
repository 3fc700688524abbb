//! The shim's configuration, with comments for who comes to change it.

use std::path::{Path, PathBuf};

use super::{LINK_PREFIX, SHIM_IPV4, SHIM_PORT};
use crate::args::Init;
use crate::failure::Failure;

/// Where things are on a host. Relative paths are relative to `shim.toml`.
pub struct Places {
    pub state_dir: PathBuf,
    pub state: PathBuf,
    pub image: PathBuf,
    pub tender: PathBuf,
}

impl Places {
    /// Where petrel-init has them.
    pub fn of_an_appliance() -> Self {
        Self {
            state_dir: "/state/host".into(),
            state: "/state/control-plane.img".into(),
            image: "/petrel/petrel.hvt".into(),
            tender: "/petrel/petrel-tender".into(),
        }
    }
}

/// The users of an appliance, whose own there are none of.
const APPLIANCE_UIDS: (u32, u32) = (200_000, 65_536);

/// The text of `shim.toml`.
pub fn render(args: &Init, places: &Places) -> Result<String, Failure> {
    let bridges: Vec<String> = args.bridge.iter().map(|bridge| quoted(bridge)).collect();
    let uids = match args.uids.or(args.appliance.then_some(APPLIANCE_UIDS)) {
        Some((first, count)) => format!("uids = {{ start = {first}, end = {} }}", first + (count - 1)),
        None => "# uids = { start = 200000, end = 265535 }".into(),
    };
    Ok(format!(
        "\
# What petrel-shim may do on this host. Relative paths are relative to this file.
state_dir = {state_dir}                    # images/, volumes/ and run/ are made below it
listen = \"{SHIM_IPV4}:{SHIM_PORT}\"           # its end of the link, a network of {LINK_PREFIX} bits with one neighbour
key = \"shim-key.der\"
control_plane_public_key = \"control-plane-public.der\"
bridges = [{bridges}]                # that unikernels may be plugged into
# cpus = [0, 1]                        # that unikernels may run on; all that the shim may when absent
# volumes_mib = 102400                 # that all volumes may take together; what the disk has when absent
# A user of its own for each monitor: required where the shim runs as root, impossible in a namespace of one user.
{uids}
# Where there is no usable KVM, petrel-tender runs guests in ring 3, of which a system-call filter is the boundary.
# require_kvm = true                   # rather runs no unikernels there

[control_plane]
image = {image}
seal = \"seal.img\"
state = {state}                    # what it keeps: made when it is not there, never removed
state_mib = 16                         # how large it is made
memory_mib = 32
bridge = {bridge}                     # where operators reach it
monitor = \"petrel-tender\"
args = []

[[monitors]]
name = \"petrel-tender\"
path = {tender}
target = 1                             # the ABI that it runs: 1 is hvt, 2 is spt
version = 2                            # the newest version of it
# Petrel's own tender finds out which backend works. Of upstream's solo5-hvt and solo5-spt it has to be said:
# backend = \"kvm\"                      # or \"ring3\"
",
        bridges = bridges.join(", "),
        bridge = bridges.first().map_or("\"service\"", String::as_str),
        state_dir = path(&places.state_dir)?,
        state = path(&places.state)?,
        image = path(&places.image)?,
        tender = path(&places.tender)?,
    ))
}

fn path(path: &Path) -> Result<String, Failure> {
    path.to_str().map(quoted).ok_or_else(|| {
        Failure::local(
            format!("the path {} is not UTF-8", path.display()),
            "a path that can stand in a TOML file",
            "move the file elsewhere",
        )
    })
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
