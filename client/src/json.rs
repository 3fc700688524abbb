//! JSON for programs. The names of the fields are a promise, told by each command's `--help`.

use petrel_wire::ExitStatus;
use petrel_wire::operator::{HostInfo, Journal, State, Unikernel, UnikernelInfo};
use petrel_wire::shim::{Backend, Limit};
use serde_json::{Value, json};

use crate::image::Image;
use crate::sentence;

/// What `host --json` prints.
pub const HOST_FIELDS: &str = "\
Fields of --json:
  host, control_plane, shim (releases, \"1.2.3\"), uptime_ms, cpus [N], memory_mib, memory_used_mib, unikernels
  (how many), bridges [NAME], monitors [{name, target, target_number, abi_version, backend: kvm|ring3}], limits
  [memory|processes|cpu-share] (what the kernel holds each unikernel to), journal: in-memory|kept|read-only,
  journal_epoch, journal_used_bytes and journal_area_bytes (null unless it is kept), journal_fault (TEXT, null unless
  it is read-only)";

/// What `inspect --json` prints.
pub const INSPECT_FIELDS: &str = "\
Fields of --json:
  file, digest, bytes, target, target_number, abi_version, entry, devices [{name, kind: net|block}],
  segments [{start, end, file_bytes, read, write, execute}]";

/// What `create --json` prints.
pub const UNIKERNEL_FIELDS: &str = "\
Fields of --json:
  name, state: starting|running|stopping|ended, exit_code and signal (null unless it ended so), image (digest),
  memory_mib, created_ms and ended_ms (milliseconds since 1970 by the host's clock, or null)";

/// What `ps --json` prints.
pub const PS_FIELDS: &str = "\
Prints with --json an array of objects with the fields
  name, state: starting|running|stopping|ended, exit_code and signal (null unless it ended so), image (digest),
  memory_mib, created_ms and ended_ms (milliseconds since 1970 by the host's clock, or null)";

/// What `info --json` prints.
pub const INFO_FIELDS: &str = "\
Fields of --json: those of `petrel ps`, and
  cpus [N], nets [{device, bridge, mac}], blocks [{device, volume}], args [TEXT], monitor, pid (null when it has
  none)";

/// What `consoles --json` prints.
pub const CONSOLES_FIELDS: &str = "\
Prints with --json an array of objects with the fields
  name, exists (whether there is a unikernel of this name), bytes, lines, first_ms and last_ms (when the oldest and the
  newest of what is kept arrived: milliseconds since 1970 by the host's clock, or null)";

/// What `events --json` prints.
pub const EVENT_FIELDS: &str = "\
Prints with --json one object a line, with the fields
  sequence, wall_ms (milliseconds since 1970 by the host's clock), kind, who (null: the control plane) and scope (the path
  that the operator's certificate is for, or null), about (the name it happened to, or null), text, and where the kind
  has it image (digest), exit_code, signal, pid, release; or {missed: N} where N events are no longer kept";

/// What `stats --json` prints.
pub const STATS_FIELDS: &str = "\
Prints with --json an array, with --follow one a line, of objects with the fields
  name, run_ms, cpu_ms, memory_mib (given), resident_kib (in use), storage {read_bytes, written_bytes} (null where the
  host's kernel does not tell), nets [{device, received, sent}, each of those two {bytes, packets, dropped}], all since it
  was started, and rates {cpu_percent, read, written, received, sent (bytes a second), dropped (frames a second)} since the
  line before (null without one)";

/// What a host is and has.
pub fn host(host: &HostInfo) -> Value {
    let monitors = host.monitors.iter().map(|monitor| {
        json!({
            "name": &*monitor.name,
            "target": target(monitor.target),
            "target_number": monitor.target,
            "abi_version": monitor.version,
            "backend": backend(monitor.backend),
        })
    });
    let (journal, kept, fault) = match host.journal {
        Journal::InMemory => ("in-memory", None, None),
        Journal::Kept { epoch, used_bytes, area_bytes } => {
            ("kept", Some((epoch, used_bytes, area_bytes)), None)
        }
        Journal::ReadOnly(reason) => ("read-only", None, Some(sentence::journal_fault(reason))),
    };
    json!({
        "host": &*host.host,
        "control_plane": release(host.control_plane),
        "shim": release(host.shim),
        "uptime_ms": host.uptime_ms,
        "cpus": &*host.cpus,
        "memory_mib": host.memory_mib,
        "memory_used_mib": host.memory_used_mib,
        "unikernels": host.unikernels,
        "bridges": host.bridges.iter().map(|bridge| &**bridge).collect::<Vec<_>>(),
        "monitors": monitors.collect::<Vec<_>>(),
        "limits": host.limits.iter().map(|limit| self::limit(*limit)).collect::<Vec<_>>(),
        "journal": journal,
        "journal_epoch": kept.map(|(epoch, ..)| epoch),
        "journal_used_bytes": kept.map(|(_, used_bytes, _)| used_bytes),
        "journal_area_bytes": kept.map(|(.., area_bytes)| area_bytes),
        "journal_fault": fault,
    })
}

/// What the kernel holds a unikernel to, in one word.
pub fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Memory => "memory",
        Limit::Processes => "processes",
        Limit::CpuShare => "cpu-share",
    }
}

/// A local image.
pub fn inspect(image: &Image) -> Value {
    let devices = image
        .devices
        .iter()
        .map(|(_, device)| json!({ "name": device.name(), "kind": device_kind(device.kind) }));
    let segments = image.layout.segments().iter().map(|segment| {
        json!({
            "start": segment.start,
            "end": segment.end,
            "file_bytes": segment.file.len,
            "read": segment.permissions.read,
            "write": segment.permissions.write,
            "execute": segment.permissions.execute,
        })
    });
    json!({
        "file": image.path.to_string_lossy(),
        "digest": image.digest(),
        "bytes": image.bytes.len(),
        "target": image.abi.target.name(),
        "target_number": image.abi.target.raw(),
        "abi_version": image.abi.version,
        "entry": image.layout.entry,
        "devices": devices.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(),
    })
}

/// A unikernel, in brief.
pub fn unikernel(unikernel: &Unikernel) -> Value {
    let (exit_code, signal) = match unikernel.state {
        State::Ended(status) => ended(status),
        _ => (None, None),
    };
    json!({
        "name": &*unikernel.name,
        "state": state(unikernel.state),
        "exit_code": exit_code,
        "signal": signal,
        "image": unikernel.image,
        "memory_mib": unikernel.memory_mib,
        "created_ms": unikernel.created_ms,
        "ended_ms": unikernel.ended_ms,
    })
}

/// The exit code or the signal that a unikernel ended with.
pub fn ended(status: ExitStatus) -> (Option<u8>, Option<u8>) {
    match status {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal(signal) => (None, Some(signal)),
        ExitStatus::Unknown => (None, None),
    }
}

/// A unikernel, whole.
pub fn info(info: &UnikernelInfo) -> Value {
    let mut value = unikernel(&info.unikernel);
    let nets = info
        .nets
        .iter()
        .map(|(net, mac)| json!({ "device": &*net.device, "bridge": &*net.bridge, "mac": mac.to_string() }));
    let blocks =
        info.blocks.iter().map(|block| json!({ "device": &*block.device, "volume": &*block.volume }));
    value["cpus"] = json!(&*info.cpus);
    value["nets"] = nets.collect();
    value["blocks"] = blocks.collect();
    value["args"] = info.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
    value["monitor"] = json!(&*info.monitor);
    value["pid"] = json!((info.pid != 0).then_some(info.pid));
    value
}

/// What a unikernel is doing, in one word.
fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Stopping => "stopping",
        State::Ended(_) => "ended",
    }
}

/// A release as people write it.
pub fn release([major, minor, patch]: [u16; 3]) -> String {
    format!("{major}.{minor}.{patch}")
}

/// The name of a Solo5 target.
pub fn target(raw: u32) -> &'static str {
    hvt_abi::note::Target::from_raw(raw).name()
}

/// What isolates a monitor's guests.
pub fn backend(backend: Backend) -> &'static str {
    match backend {
        Backend::Kvm => "kvm",
        Backend::Ring3 => "ring3",
    }
}

/// What a device is.
pub fn device_kind(kind: hvt_abi::manifest::DeviceKind) -> &'static str {
    match kind {
        hvt_abi::manifest::DeviceKind::Net => "net",
        hvt_abi::manifest::DeviceKind::Block => "block",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unikernel_that_ended_says_how() {
        let mut ended = Unikernel {
            name: "web".parse().unwrap(),
            state: State::Ended(ExitStatus::Code(3)),
            image: petrel_wire::Digest([0xab; 32]),
            memory_mib: 32,
            created_ms: 1000,
            ended_ms: Some(2000),
        };
        let told = unikernel(&ended);
        assert_eq!(
            (&told["state"], &told["exit_code"], &told["signal"]),
            (&json!("ended"), &json!(3), &Value::Null)
        );
        assert_eq!(told["image"], json!("ab".repeat(32)));
        ended.state = State::Ended(ExitStatus::Signal(9));
        let told = unikernel(&ended);
        assert_eq!((&told["exit_code"], &told["signal"]), (&Value::Null, &json!(9)));
    }
}
