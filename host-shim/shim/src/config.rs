//! `shim.toml`: all that the shim may ever do. Read once, at the start.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use petrel_wire::limits::{
    BRIDGES_MAX, CPUS_MAX, MEMORY_MIB_MAX, MEMORY_MIB_MIN, MONITORS_MAX, UNIKERNELS_MAX,
};
use petrel_wire::{BridgeName, Label, List};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub state_dir: PathBuf,
    pub listen: SocketAddrV4,
    /// The shim's private key, PKCS #8 DER.
    pub key: PathBuf,
    /// SubjectPublicKeyInfo DER.
    pub control_plane_public_key: PathBuf,
    /// What workloads may be plugged into.
    pub bridges: List<BridgeName, BRIDGES_MAX>,
    /// What workloads may run on; where the shim may, when absent.
    pub cpus: Option<List<u16, CPUS_MAX>>,
    pub uids: Option<Uids>,
    pub control_plane: ControlPlane,
    pub monitors: List<Monitor, MONITORS_MAX>,
}

/// The users (and groups of the same number) that monitors run as, each its own. Nothing else on the host uses them.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uids {
    /// The control plane's.
    pub first: u32,
    pub count: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    pub image: PathBuf,
    pub seal: PathBuf,
    /// What it keeps, and how large that is made.
    pub state: PathBuf,
    pub state_mib: std::num::NonZeroU32,
    pub memory_mib: u32,
    /// What its net "service" is plugged into.
    pub bridge: BridgeName,
    /// The shim's address on the link.
    pub link_ipv4: Cidr,
    pub monitor: Label,
    #[serde(default)]
    pub args: Vec<String>,
}

/// A program that runs guests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    pub name: Label,
    pub path: PathBuf,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Petrel,
    Solo5Hvt,
    Solo5Spt,
}

/// An address and its prefix length in bits, as in `169.254.25.1/30`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Cidr(pub Ipv4Addr, pub u8);

impl TryFrom<String> for Cidr {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/').map(|(address, bits)| (address.parse(), bits.parse())) {
            Some((Ok(address), Ok(prefix_bits @ 1..=32))) => Ok(Self(address, prefix_bits)),
            _ => Err(format!("{text:?}: expected an address and a prefix length, like 169.254.25.1/30")),
        }
    }
}

impl Config {
    /// Reads and checks `file`. The error is a sentence with the file, the key and what is expected there.
    pub fn load(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| error.to_string());
        let config =
            text.and_then(|text| basic_toml::from_str::<Self>(&text).map_err(|error| error.to_string()));
        let config = config.map(|config| config.in_folder(file.parent().unwrap_or(Path::new("."))));
        let checked = config.and_then(|config| config.check().map(|()| config));
        checked.map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Relative paths are relative to the configuration.
    fn in_folder(mut self, folder: &Path) -> Self {
        let mut monitors = self.monitors.into_vec();
        let own = [&mut self.state_dir, &mut self.key, &mut self.control_plane_public_key];
        let guest = &mut self.control_plane;
        let guest = [&mut guest.image, &mut guest.seal, &mut guest.state];
        for path in own.into_iter().chain(guest).chain(monitors.iter_mut().map(|monitor| &mut monitor.path)) {
            *path = folder.join(&*path);
        }
        self.monitors = monitors.try_into().unwrap_or_default(); // as many as there were
        self
    }

    fn check(&self) -> Result<(), String> {
        let ControlPlane { memory_mib, link_ipv4, monitor, image, seal, .. } = &self.control_plane;
        if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(memory_mib) {
            return Err(format!("control_plane.memory_mib: expected {MEMORY_MIB_MIN} to {MEMORY_MIB_MAX}"));
        }
        if *self.listen.ip() != link_ipv4.0 {
            return Err(
                "listen: expected the address of control_plane.link_ipv4: only the control plane is there"
                    .into(),
            );
        }
        if self.monitors.iter().filter(|known| known.name == *monitor).count() != 1 {
            return Err(format!("control_plane.monitor: expected one of [[monitors]] to be named {monitor}"));
        }
        let monitors = self.monitors.iter().map(|monitor| ("monitors.path", &monitor.path));
        for (key, path) in
            [("control_plane.image", image), ("control_plane.seal", seal)].into_iter().chain(monitors)
        {
            if !path.is_file() {
                return Err(format!("{key}: there is no file {}", path.display()));
            }
        }
        self.check_uids()
    }

    fn check_uids(&self) -> Result<(), String> {
        // Each unikernel, and the control plane.
        let least = u32::try_from(UNIKERNELS_MAX).unwrap_or(u32::MAX) + 1;
        match self.uids {
            None if is_root_of_many() => {
                Err("uids: expected as the shim runs as root, like { first = 200000, count = 65536 }".into())
            }
            Some(_) if !is_root_of_many() => {
                Err("uids: not possible, as the shim is not root of other users".into())
            }
            Some(Uids { first, count })
                if first == 0 || count < least || first.checked_add(count).is_none() =>
            {
                Err(format!(
                    "uids: expected a first that is not root's 0, a count from {least}, and a sum below 2^32"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Whether this process is root, and not in a namespace of only one user.
fn is_root_of_many() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let users = map.split_whitespace().skip(2).step_by(3).filter_map(|users| users.parse::<u32>().ok());
    rustix::process::geteuid().is_root() && users.fold(0, u32::saturating_add) > 1
}
