//! What monitors use, in the kernel's own words: the peer reads them.

use std::fs;

use petrel_shim::ledger::Ledger;
use petrel_wire::shim::{InstanceId, Reply, Usage};
use petrel_wire::{Blob, List};

/// What those of `instances` use by now that run.
pub fn usage(instances: &[InstanceId], ledger: &Ledger) -> Reply {
    let known = instances.iter().filter_map(|instance| ledger.monitor(*instance));
    let listed = known.map(|record| &record.listed).filter(|listed| listed.exited.is_none());
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let line = |name: &str| interfaces.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or("");
    let usages = &mut listed.map(|listed| Usage {
        instance: listed.instance,
        stat: told(&format!("/proc/{}/stat", listed.pid)),
        io: told(&format!("/proc/{}/io", listed.pid)),
        nets: List::fill(&mut listed.taps.iter().map(|tap| cut(line(&format!("pt{}:", tap.0)).as_bytes()))),
    });
    Reply::Stats { uptime: told("/proc/uptime"), page: List::fill(usages) }
}

fn told<const N: usize>(file: &str) -> Blob<N> {
    cut(&fs::read(file).unwrap_or_default())
}

fn cut<const N: usize>(bytes: &[u8]) -> Blob<N> {
    Blob::try_from(&bytes[..bytes.len().min(N)]).unwrap_or_default()
}
