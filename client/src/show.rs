//! Tables and lists for people.

use petrel_wire::operator::{
    Address, GenerationInfo, HostInfo, Journal, Liveness, Policy, PolicyEntry, Restart, Revocable,
    Revocation, State, Unikernel, UnikernelInfo, Watching,
};
use petrel_wire::{BridgeName, Probe};

use crate::apply::volumes::Change;
use crate::apply::{Action, Step};
use crate::image::Image;
use crate::{json, sentence, units};

/// The hexadecimal digits of a digest that a table shows.
const DIGEST_DIGITS: usize = 12;

/// Lines of `label  value`, the values aligned.
#[derive(Default)]
pub struct Lines(Vec<(&'static str, String)>);

impl Lines {
    /// One line.
    pub fn add(&mut self, label: &'static str, value: impl Into<String>) {
        self.0.push((label, value.into()));
    }

    /// One line for each value, only the first with the label.
    pub fn add_all(&mut self, label: &'static str, values: impl IntoIterator<Item = String>) {
        let mut label = label;
        for value in values {
            self.add(label, value);
            label = "";
        }
    }

    /// The text.
    pub fn render(self) -> String {
        let width = self.0.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        self.0.into_iter().map(|(label, value)| format!("{label:width$}  {value}\n")).collect()
    }
}

/// Rows under a heading, the columns aligned.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(heading.to_vec())).chain(rows).collect()
}

/// What a host is and has.
pub fn host(host: &HostInfo) -> String {
    let mut lines = Lines::default();
    lines.add("host", &*host.host);
    lines.add(
        "release",
        format!("control plane {}, shim {}", json::release(host.control_plane), json::release(host.shim)),
    );
    if let Some(address) = &host.address {
        lines.add("address", self::address(address));
    }
    lines.add("up", units::span(host.uptime_ms));
    lines.add("cpus", cpus(&host.cpus));
    lines.add(
        "memory",
        format!("{} MiB, {} MiB of it given to unikernels", host.memory_mib, host.memory_used_mib),
    );
    lines.add("unikernels", host.unikernels.to_string());
    let used = units::size(host.volumes_used_mib.saturating_mul(1 << 20));
    lines.add(
        "volumes",
        match host.volumes_mib {
            Some(mib) => format!("{}, {used} of it given", units::size(mib.saturating_mul(1 << 20))),
            None => format!("{used} given, as much as the disk has"),
        },
    );
    lines.add("bridges", host.bridges.iter().map(|bridge| &**bridge).collect::<Vec<_>>().join(", "));
    lines.add_all(
        "monitors",
        host.monitors.iter().map(|monitor| {
            let (target, backend) = (json::target(monitor.target), json::backend(monitor.backend));
            format!("{} ({target}, ABI version {}, {backend})", monitor.name, monitor.version)
        }),
    );
    let limits: Vec<_> = host.limits.iter().map(|limit| json::limit(*limit)).collect();
    lines.add(
        "limits",
        if limits.is_empty() { "none are set by the kernel".into() } else { limits.join(", ") },
    );
    lines.add("state", journal(host.journal));
    lines.render()
}

/// Where a control plane is reached.
fn address(address: &Address) -> String {
    let Address { ipv4: (ipv4, prefix), gateway, is_leased } = address;
    let gateway = gateway.map_or_else(|| "without a gateway".into(), |gateway| format!("gateway {gateway}"));
    format!("{ipv4}/{prefix}, {gateway}{}", if *is_leased { ", leased by DHCP" } else { "" })
}

/// Where a control plane keeps what it knows.
fn journal(journal: Journal) -> String {
    match journal {
        Journal::InMemory => "in memory only: there is no state device".into(),
        Journal::Kept { epoch, used_bytes, area_bytes } => {
            let (used, area) = (units::size(used_bytes), units::size(area_bytes));
            format!("in a journal, epoch {epoch}, {used} of {area}")
        }
        Journal::ReadOnly(reason) => format!("changes are refused: {}", sentence::journal_fault(reason)),
    }
}

/// A local image.
pub fn inspect(image: &Image) -> String {
    let mut lines = Lines::default();
    lines.add("file", image.path.to_string_lossy());
    lines.add("digest", format!("{:?}", image.digest()));
    lines.add("size", format!("{} ({} bytes)", units::size(image.bytes.len() as u64), image.bytes.len()));
    if let Some(id) = &image.build_id {
        lines.add("build id", json::hex(id));
    }
    lines.add("target", format!("{}, ABI version {}", image.abi.target.name(), image.abi.version));
    lines.add_all("runs", runs(image));
    lines.add("memory", format!("{} MiB or more", image.layout.memory_min_mib()));
    lines.add("entry", format!("{:#x}", image.layout.entry));
    let devices = image.devices.iter();
    let devices = devices.map(|(_, device)| format!("{} {}", json::device_kind(device.kind), device.name()));
    let devices: Vec<_> = devices.collect();
    lines.add_all("devices", if devices.is_empty() { vec!["none".into()] } else { devices });
    lines.add_all(
        "segments",
        image.layout.segments().iter().map(|segment| {
            let flag = |set, letter| if set { letter } else { '-' };
            let may = segment.permissions;
            let (read, write, execute) = (flag(may.read, 'r'), flag(may.write, 'w'), flag(may.execute, 'x'));
            let bytes = units::size(segment.end - segment.start);
            format!("{:#010x}..{:#010x}  {read}{write}{execute}  {bytes}", segment.start, segment.end)
        }),
    );
    lines.render()
}

/// On what petrel-tender runs an image, and how well.
fn runs(image: &Image) -> Vec<String> {
    match (image.runnable(), image.hypercall_sites()) {
        (Err(reason), _) => vec![format!("not on petrel-tender: {reason}")],
        (Ok(()), None) => vec!["confined in ring 3, making system calls itself".into()],
        (Ok(()), Some(sites)) => {
            let on_kvm = if json::kvm_is_here() { "" } else { " (this machine has none)" };
            vec![
                format!("on KVM{on_kvm}"),
                format!("confined in ring 3, with {sites} hypercalls in its code made fast; others trap"),
            ]
        }
    }
}

/// A unikernel that was just created.
pub fn created(unikernel: &Unikernel) -> String {
    format!("{} {}\n", unikernel.name, state(unikernel.state))
}

/// All unikernels. `now_ms` is this machine's clock.
pub fn ps(unikernels: &[Unikernel], now_ms: u64) -> String {
    let rows = unikernels.iter().map(|unikernel| {
        vec![
            unikernel.name.to_string(),
            state(unikernel.state),
            json::wish(unikernel.wish).into(),
            unikernel.generation.to_string(),
            unikernel.restarts.to_string(),
            format!("{} MiB", unikernel.memory_mib),
            unikernel.image.to_string()[..DIGEST_DIGITS].into(),
            units::age(unikernel.created_ms, now_ms),
            unikernel.ended_ms.map_or("-".into(), |ended_ms| units::age(ended_ms, now_ms)),
        ]
    });
    let heading = ["NAME", "STATE", "WISH", "GEN", "RESTARTS", "MEMORY", "IMAGE", "AGE", "ENDED"];
    table(&heading, &rows.collect::<Vec<_>>())
}

/// One unikernel. `now_ms` is this machine's clock.
pub fn info(info: &UnikernelInfo, now_ms: u64) -> String {
    let unikernel = &info.unikernel;
    let mut lines = Lines::default();
    lines.add("name", &*unikernel.name);
    lines.add("state", state(unikernel.state));
    lines.add("wish", json::wish(unikernel.wish));
    add_watching(&mut lines, &info.watching, now_ms);
    let trial = info.watching.trial_from.map(|from| format!(", on trial: {from} comes back if it fails"));
    lines.add("generation", format!("{}{}", unikernel.generation, trial.unwrap_or_default()));
    lines.add("image", format!("{:?}", unikernel.image));
    lines.add("memory", format!("{} MiB", unikernel.memory_mib));
    lines.add("cpus", if info.cpus.is_empty() { "any".into() } else { cpus(&info.cpus) });
    lines.add_all(
        "nets",
        info.nets.iter().map(|(net, mac)| format!("{} on bridge {}, {mac}", net.device, net.bridge)),
    );
    lines.add_all(
        "blocks",
        info.blocks.iter().map(|block| format!("{} on volume {}", block.device, block.volume)),
    );
    // Somebody else's bytes: quoted, so that none of them drives the terminal.
    lines.add_all("args", info.args.iter().map(|arg| format!("{:?}", String::from_utf8_lossy(arg))));
    let backend = info.backend.map_or("no longer offered by the host", json::backend);
    lines.add("monitor", format!("{} ({backend})", info.monitor));
    if info.pid != 0 {
        lines.add("pid", info.pid.to_string());
    }
    lines.add("created", format!("{} ago", units::age(unikernel.created_ms, now_ms)));
    lines.add("restarts", unikernel.restarts.to_string());
    if let Some(status) = unikernel.last_exit {
        let ago = unikernel.ended_ms.map(|ended_ms| format!(", {} ago", units::age(ended_ms, now_ms)));
        lines.add("last exit", format!("{status}{}", ago.unwrap_or_default()));
    }
    lines.render()
}

/// The limits of a policy, one in each line.
pub fn policy_lines(policy: &Policy) -> Vec<String> {
    let number = |what: &str, limit: Option<u64>| limit.map(|limit| format!("{what} {limit}"));
    let set = |what: &str, text: Option<String>| text.map(|text| format!("{what} {}", or_none(text)));
    let lines = [
        number("unikernels", policy.unikernels.map(u64::from)),
        number("memory MiB", policy.memory_mib),
        number("volume space MiB", policy.volume_mib),
        set("cpus", policy.cpus.as_deref().map(cpus)),
        set("bridges", policy.bridges.as_deref().map(bridges)),
    ];
    lines.into_iter().flatten().collect()
}

/// What may be and what is used: a row for each policy of a path, and one for a path without any.
pub fn policies(entries: &[PolicyEntry]) -> String {
    let rows = entries.iter().flat_map(|entry| {
        let both = [("set", &entry.set), ("certificate", &entry.certificate)];
        let from = both.into_iter().filter_map(|(from, policy)| Some((from, policy.as_ref()?)));
        let mut rows: Vec<_> = from.map(|(from, policy)| policy_row(entry, from, policy)).collect();
        if rows.is_empty() {
            rows.push(policy_row(entry, "-", &Policy::default()));
        }
        rows
    });
    let heading = ["PATH", "FROM", "UNIKERNELS", "MEMORY MIB", "VOLUMES MIB", "CPUS", "BRIDGES"];
    table(&heading, &rows.collect::<Vec<_>>())
}

fn policy_row(entry: &PolicyEntry, from: &str, policy: &Policy) -> Vec<String> {
    let of = |used: u64, limit: Option<u64>| match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => used.to_string(),
    };
    let held = &entry.held;
    vec![
        entry.path.to_string(),
        from.into(),
        of(held.unikernels.into(), policy.unikernels.map(u64::from)),
        of(held.memory_mib, policy.memory_mib),
        of(held.volume_mib, policy.volume_mib),
        policy.cpus.as_deref().map_or("any".into(), |set| or_none(cpus(set))),
        policy.bridges.as_deref().map_or("any".into(), |set| or_none(bridges(set))),
    ]
}

fn bridges(bridges: &[BridgeName]) -> String {
    bridges.iter().map(|bridge| &**bridge).collect::<Vec<_>>().join(", ")
}

fn or_none(list: String) -> String {
    if list.is_empty() { "none".into() } else { list }
}

/// What is revoked.
pub fn revocations(all: &[Revocation]) -> String {
    let row = |one: &Revocation| vec![revocable(&one.what), one.path.to_string(), units::date(one.at_ms)];
    table(&["REVOKED", "BELOW", "SINCE"], &all.iter().map(row).collect::<Vec<_>>())
}

/// What is revoked, in a few words.
pub fn revocable(what: &Revocable) -> String {
    match what {
        Revocable::Serial(serial) => format!("serial {}", hex(serial)),
        Revocable::Key(key) => format!("key {key}"),
    }
}

/// Bytes in hexadecimal; a zero for none at all, which is the number 0.
pub fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() { "00".into() } else { bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
}

/// How it is watched over, and what that leads to now.
fn add_watching(lines: &mut Lines, watching: &Watching, now_ms: u64) {
    let Watching { supervision, waits_for, retry_ms, failure, .. } = watching;
    lines.add_all("waits for", waits_for.iter().map(|name| name.to_string()));
    if let Some(failure) = failure {
        lines.add("not started", json::failure(failure));
    }
    if let Some(retry_ms) = retry_ms {
        lines.add("started again", format!("in {}", units::span(retry_ms.saturating_sub(now_ms))));
    }
    lines.add("restart", restart(&supervision.restart));
    lines.add_all("after", supervision.after.iter().map(|name| name.to_string()));
    if supervision.ready.is_some() {
        lines.add("ready", probe(supervision.ready.as_ref()));
    }
    if supervision.alive.is_some() {
        lines.add("alive", alive(supervision.alive.as_ref()));
    }
}

/// A restart policy.
pub fn restart(restart: &Restart) -> String {
    let codes = restart.codes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    match restart.codes.is_empty() {
        true => json::restart_when(restart.when).into(),
        false => format!("{}, exit codes {codes}", json::restart_when(restart.when)),
    }
}

/// A readiness probe.
pub fn probe(probe: Option<&Probe>) -> String {
    probe.map_or("none".into(), |probe| probe.to_string())
}

/// A liveness probe.
pub fn alive(alive: Option<&Liveness>) -> String {
    alive.map_or("none".into(), |alive| {
        format!("{} every {} s, {} failures are too many", alive.probe, alive.every_s, alive.failures)
    })
}

/// The generations of a unikernel. `now_ms` is this machine's clock.
pub fn history(all: &[GenerationInfo], now_ms: u64) -> String {
    let rows = all.iter().map(|generation| {
        let args = generation.args.iter().map(|arg| format!("{:?}", String::from_utf8_lossy(arg)));
        let state = match (generation.current, generation.faulty) {
            (true, _) => "current",
            (false, true) => "given up",
            (false, false) => "-",
        };
        vec![
            generation.number.to_string(),
            state.into(),
            format!("{} MiB", generation.memory_mib),
            generation.image.to_string()[..DIGEST_DIGITS].into(),
            units::age(generation.made_ms, now_ms),
            args.collect::<Vec<_>>().join(" "),
        ]
    });
    table(&["GEN", "STATE", "MEMORY", "IMAGE", "AGE", "ARGS"], &rows.collect::<Vec<_>>())
}

/// What is to be done so that all is as a manifest says.
pub fn plan(steps: &[Step], unchanged: usize) -> String {
    steps.iter().map(step).chain([self::unchanged(unchanged)]).collect()
}

/// What is to be done about one unikernel or volume, and why.
pub fn step(step: &Step) -> String {
    let sign = match step.action {
        Action::Create | Action::Volume(Change::Create { .. }) => '+',
        Action::Replace | Action::Start | Action::Volume(Change::Grow { .. }) => '~',
        Action::Destroy => '-',
        Action::Volume(Change::Shrink { .. }) => '!',
    };
    let differences = step.differences.iter();
    let differences = differences.map(|difference| {
        format!("    {}: {} -> {}\n", difference.field, difference.is, difference.shall_be)
    });
    let kind = if matches!(step.action, Action::Volume(_)) { "volume " } else { "" };
    let refused = if sign == '!' { ", which apply refuses" } else { "" };
    let head = format!("{sign} {kind}{}: {}{refused}\n", step.name, json::action(step.action));
    std::iter::once(head).chain(differences).collect()
}

/// How many are as they shall be.
pub fn unchanged(count: usize) -> String {
    format!("{count} unchanged\n")
}

fn state(state: State) -> String {
    match state {
        State::Ended(status) => status.to_string(),
        other => json::state(other).into(),
    }
}

/// Numbers of CPUs, runs of them shortened: `0-3, 8`.
fn cpus(cpus: &[u16]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for cpu in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last == cpu || last.checked_add(1) == Some(cpu) => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let runs = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    runs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use petrel_wire::operator::Wish;
    use petrel_wire::{Digest, ExitStatus};

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let unikernel = |name: &str, state, ended_ms| Unikernel {
            name: name.parse().unwrap(),
            state,
            image: Digest([0xab; 32]),
            memory_mib: 32,
            created_ms: 0,
            ended_ms,
            wish: Wish::Running,
            generation: 2,
            restarts: 0,
            last_exit: None,
        };
        let all = [
            unikernel("a-long-name", State::Running, None),
            unikernel("b", State::Ended(ExitStatus::Code(255)), Some(120_000)),
        ];
        let expected = "\
NAME         STATE     WISH     GEN  RESTARTS  MEMORY  IMAGE         AGE  ENDED
a-long-name  running   running  2    0         32 MiB  abababababab  3m   -
b            exit 255  running  2    0         32 MiB  abababababab  3m   1m
";
        assert_eq!(ps(&all, 180_000), expected);
    }

    #[test]
    fn each_policy_of_a_path_has_a_row_with_what_is_used() {
        let set =
            Policy { memory_mib: Some(100), bridges: Some(petrel_wire::List::new()), ..Policy::default() };
        let certificate =
            Policy { unikernels: Some(3), cpus: Some(vec![0, 1].try_into().unwrap()), ..Policy::default() };
        let held = petrel_wire::operator::Held { unikernels: 2, memory_mib: 64, volume_mib: 0 };
        let path: petrel_wire::Path = "acme".parse().unwrap();
        let entries = [
            PolicyEntry { path: petrel_wire::Path::ROOT, set: None, certificate: None, held },
            PolicyEntry { path, set: Some(set), certificate: Some(certificate), held },
        ];
        let expected = "\
PATH  FROM         UNIKERNELS  MEMORY MIB  VOLUMES MIB  CPUS  BRIDGES
:     -            2           64          0            any   any
acme  set          2           64 of 100   0            any   none
acme  certificate  2 of 3      64          0            0-1   any
";
        assert_eq!(policies(&entries), expected);
    }

    #[test]
    fn runs_of_cpus_are_shortened() {
        assert_eq!(cpus(&[3, 0, 1, 2, 8]), "0-3, 8");
        assert_eq!(cpus(&[u16::MAX]), "65535");
        assert_eq!(cpus(&[]), "");
    }
}
