//! `shim.toml`: all that the shim may ever do. Read once, at the start.

use std::{env, fs, net::SocketAddrV4, num::NonZeroU32, ops::RangeInclusive, path::PathBuf};

use petrel_wire::limits::{BRIDGES_MAX, CPUS_MAX, MONITORS_MAX, UNIKERNELS_MAX};
use petrel_wire::{BridgeName, Label, List, shim::Backend};
use serde::{Deserialize, Deserializer, de::Error};

use crate::about;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub state_dir: PathBuf,
    /// The shim's address on the link, and the port.
    pub listen: SocketAddrV4,
    /// The shim's private key, PKCS #8 DER.
    #[serde(deserialize_with = "contents")]
    pub key: Vec<u8>,
    /// SubjectPublicKeyInfo DER.
    #[serde(deserialize_with = "contents")]
    pub control_plane_public_key: Vec<u8>,
    /// What workloads may be plugged into.
    pub bridges: List<BridgeName, BRIDGES_MAX>,
    /// What workloads may run on, of what the shim may; all of that when absent.
    pub cpus: Option<List<u16, CPUS_MAX>>,
    /// The space that volumes may take together; what the disk has, when absent.
    pub volumes_mib: Option<u64>,
    /// The users (and groups of the same number) that monitors run as, each its own. Nothing else on the host uses them.
    pub uids: Option<RangeInclusive<u32>>,
    /// Whether unikernels run by KVM or not at all. The control plane's own monitor may be any: it has to tell.
    #[serde(default)]
    pub require_kvm: bool,
    pub control_plane: ControlPlane,
    pub monitors: List<Monitor, MONITORS_MAX>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    pub image: PathBuf,
    pub seal: PathBuf,
    /// What it keeps its state on, made of `state_mib` MiB when it is not there.
    pub state: PathBuf,
    pub state_mib: NonZeroU32,
    pub memory_mib: u32,
    /// What its net "service" is plugged into.
    pub bridge: BridgeName,
    pub monitor: Label,
    pub args: Vec<String>,
}

/// A program that runs guests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    pub name: Label,
    pub path: PathBuf,
    /// The ABI target it runs (hvt 1, spt 2), and its newest version.
    pub target: u32,
    pub version: u32,
    /// What isolates the guests of upstream's solo5-hvt or solo5-spt. Petrel's own tender is asked.
    pub backend: Option<Backend>,
}

impl Config {
    /// Reads and checks `file`. Relative paths are relative to its folder, so that becomes the current one.
    pub fn load(file: &str) -> Result<Self, String> {
        let path = fs::canonicalize(file).map_err(about(file))?;
        env::set_current_dir(path.parent().unwrap_or(&path)).map_err(about(file))?;
        let text = fs::read_to_string(path).map_err(about(file))?;
        let config: Self = basic_toml::from_str(&text).map_err(about(file))?;
        let map = fs::read_to_string("/proc/self/uid_map").map_err(about("/proc/self/uid_map"))?;
        // A line of the first user here, the first outside, and their number.
        let is_alone = map.split_whitespace().skip(2).eq(["1"]);
        let suffice = config.uids.as_ref().map_or(is_alone, |uids| {
            *uids.start() > 0 && uids.end().saturating_sub(*uids.start()) as usize > UNIKERNELS_MAX
        });
        let expected = "uids: expected 1,026 users or more, without root: { start = 200000, end = 265535 }";
        if suffice { Ok(config) } else { Err(format!("{file}: {expected}")) }
    }
}

/// The contents of the file whose path is given.
fn contents<'de, D: Deserializer<'de>>(path: D) -> Result<Vec<u8>, D::Error> {
    let path = PathBuf::deserialize(path)?;
    fs::read(&path).map_err(about(path.display())).map_err(D::Error::custom)
}
