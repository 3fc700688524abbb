//! `petrel policy`.

use clap::{Args, Subcommand};
use petrel_wire::operator::{Bridges, Cpus, Policy};
use petrel_wire::{BridgeName, List, Path};

use super::{Json, bridge};
use crate::failure::Failure;

/// What to do about policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Set what all that lies below a path may have together, in place of what was set for it before
    ///
    /// Beside it holds what the certificates of who asks say, and what is set for the paths above: of all of them
    /// the narrowest. What is not given is not limited.
    Set {
        /// The path, as acme:web; `:` is the root, or what your certificates give you
        path: Path,
        /// The limits
        #[command(flatten)]
        limits: Limits,
    },
    /// Show what may be and what is used, for a path and all below it
    #[command(after_help = crate::json::POLICY_FIELDS)]
    Ls {
        /// The path; all that you may see when absent
        #[arg(default_value_t = Path::ROOT)]
        path: Path,
        /// How to print it
        #[command(flatten)]
        json: Json,
    },
    /// Remove what was set for a path
    Rm {
        /// The path
        path: Path,
    },
}

/// The limits of a policy.
#[derive(Debug, Args)]
pub struct Limits {
    /// How many unikernels, running or not
    #[arg(long, value_name = "N")]
    pub unikernels: Option<u32>,
    /// The memory of all of them, in MiB
    #[arg(long, value_name = "MIB")]
    pub mem: Option<u64>,
    /// A CPU that they may run on (repeatable)
    #[arg(long, value_name = "N")]
    pub cpu: Vec<u16>,
    /// The size of all volumes, in MiB
    #[arg(long, value_name = "MIB")]
    pub volume_space: Option<u64>,
    /// A bridge that they may be plugged into (repeatable)
    #[arg(long, value_name = "NAME", value_parser = bridge)]
    pub bridge: Vec<BridgeName>,
    /// They may be plugged into no bridge
    #[arg(long, conflicts_with = "bridge")]
    pub no_bridge: bool,
}

impl Limits {
    /// As a policy in which what is not given is not limited.
    pub fn policy(&self) -> Result<Policy, Failure> {
        Ok(Policy {
            unikernels: self.unikernels,
            memory_mib: self.mem,
            cpus: if self.cpu.is_empty() { None } else { Some(self.cpus()?) },
            volume_mib: self.volume_space,
            bridges: if self.bridge.is_empty() && !self.no_bridge { None } else { Some(self.bridges()?) },
        })
    }

    /// Each CPU once, in order.
    pub fn cpus(&self) -> Result<Cpus, Failure> {
        let mut cpus = self.cpu.clone();
        cpus.sort_unstable();
        cpus.dedup();
        List::try_from(cpus).map_err(|error| too_many("--cpu", error.max))
    }

    /// Each bridge once, in order.
    pub fn bridges(&self) -> Result<Bridges, Failure> {
        let mut bridges = self.bridge.clone();
        bridges.sort_unstable();
        bridges.dedup();
        List::try_from(bridges).map_err(|error| too_many("--bridge", error.max))
    }
}

fn too_many(what: &str, max: usize) -> Failure {
    Failure::usage(format!("too many {what}"), format!("at most {max}"), "leave some out")
}
