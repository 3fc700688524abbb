//! What monitors use, as the kernel tells it.

use std::fs;

use petrel_shim::ledger::{Ledger, State};
use petrel_wire::shim::{Flow, InstanceId, Stats, Storage, TapId, Traffic};
use rustix::param::{clock_ticks_per_second, page_size};

use crate::process::stat;

/// What those of `instances` use by now that run.
pub fn usage<P, T, U>(instances: &[InstanceId], ledger: &Ledger<P, T, U>) -> Vec<Stats> {
    let (uptime, interfaces) = (read("/proc/uptime"), read("/proc/self/net/dev"));
    let hundredths =
        uptime.split(' ').next().and_then(|seconds| seconds.replace('.', "").parse::<u64>().ok());
    let ms = |ticks: u64| ticks.saturating_mul(1000) / clock_ticks_per_second();
    let running = instances.iter().filter_map(|of| Some((of, ledger.monitors.get(of)?)));
    let running = running.filter(|(_, monitor)| matches!(monitor.state, State::Running(_)));
    let stats = running.filter_map(|(instance, monitor)| {
        let (record, fields) = (&monitor.record, stat(monitor.record.pid).ok()?);
        let nets: Vec<_> = record.taps.iter().map(|tap| traffic(*tap, &interfaces)).collect();
        Some(Stats {
            instance: *instance,
            run_ms: (hundredths? * 10).saturating_sub(ms(record.started.1)),
            cpu_ms: ms(fields.get(11)?.saturating_add(*fields.get(12)?)),
            resident_kib: fields.get(21)?.saturating_mul(page_size() as u64) / 1024,
            storage: storage(&read(&format!("/proc/{}/io", record.pid))),
            nets: nets.try_into().unwrap_or_default(), // as many as there are taps
        })
    });
    stats.collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// What a tap has moved, out of proc(5)'s `net/dev`. What the host received its guest has sent.
fn traffic(tap: TapId, interfaces: &str) -> Traffic {
    let name = format!("pt{}:", tap.0);
    let line = interfaces.lines().find_map(|line| line.trim_start().strip_prefix(&*name)).unwrap_or_default();
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    let flow = |first| Flow { bytes: at(first), packets: at(first + 1), dropped: at(first + 3) };
    Traffic { received: flow(8), sent: flow(0) }
}

/// What went to and came from storage, out of proc(5)'s `io`.
fn storage(told: &str) -> Option<Storage> {
    let field = |name| told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some(Storage { read_bytes: field("read_bytes:")?, written_bytes: field("write_bytes:")? })
}
