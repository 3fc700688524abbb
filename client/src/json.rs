//! JSON for programs. The names of the fields are a promise, told by each command's `--help`.

use petrel_wire::operator::{
    Block, GenerationInfo, HostInfo, Journal, Net, Policy, PolicyEntry, Refusal, RestartWhen, Revocable,
    Revocation, State, Supervision, Unikernel, UnikernelInfo, Wish,
};
use petrel_wire::shim::{Backend, Limit};
use petrel_wire::{Blob, ExitStatus, Mac};
use serde_json::{Value, json};

use crate::apply::volumes::Change;
use crate::apply::{Action, Step};
use crate::image::Image;
use crate::sentence;

/// What `host --json` prints.
pub const HOST_FIELDS: &str = "\
Fields of --json:
  host, control_plane, shim (releases, \"1.2.3\"), address ({ipv4: ADDRESS/PREFIX, gateway (null without one), leased},
  null where none is known), uptime_ms, cpus [N], memory_mib, memory_used_mib, unikernels
  (how many), volumes_mib (null when only the disk bounds them), volumes_used_mib, bridges [NAME],
  monitors [{name, target, target_number, abi_version, backend: kvm|ring3}], limits [memory|processes|cpu-share] (what
  the kernel holds each unikernel to), journal: in-memory|kept|read-only, journal_epoch, journal_used_bytes and
  journal_area_bytes (null unless it is kept), journal_fault (TEXT, null unless it is read-only)";

/// What `inspect --json` prints.
pub const INSPECT_FIELDS: &str = "\
Fields of --json:
  file, digest, bytes, build_id (null where it has none), target, target_number, abi_version,
  runs: {reason (why petrel-tender cannot run it, or null), ring3, kvm, kvm_here (this machine has KVM)},
  hypercall_sites (how many ring 3 makes fast; null for targets without hypercalls), memory_min_mib, entry,
  devices [{name, kind: net|block}], segments [{start, end, file_bytes, read, write, execute}]";

/// What `create --json` prints.
pub const UNIKERNEL_FIELDS: &str = "\
Fields of --json:
  name, state: starting|running|ready|stopping|stopped|ended|waiting|backoff|crash-loop|failed, exit_code and signal
  (null unless its state is that it ended so), image (digest), memory_mib, created_ms and ended_ms (milliseconds since
  1970 by the host's clock, or null), wish: running|stopped|destroyed, generation (number), restarts (how often it was
  started again by itself), last_exit (\"exit N\", \"signal N\", \"ended unseen\" or null)";

/// What `ps --json` prints.
pub const PS_FIELDS: &str = "\
Prints with --json an array of objects with the fields
  name, state: starting|running|ready|stopping|stopped|ended|waiting|backoff|crash-loop|failed, exit_code and signal
  (null unless its state is that it ended so), image (digest), memory_mib, created_ms and ended_ms (milliseconds since
  1970 by the host's clock, or null), wish: running|stopped|destroyed, generation (number), restarts (how often it was
  started again by itself), last_exit (\"exit N\", \"signal N\", \"ended unseen\" or null)";

/// What `info --json` prints.
pub const INFO_FIELDS: &str = "\
Fields of --json: those of `petrel ps`, and
  cpus [N], nets [{device, bridge, mac}], blocks [{device, volume}], args [TEXT], monitor, backend (kvm, ring3, or
  null when the host offers that monitor no more), pid (null when it has none), restart {when: never|on-failure|always,
  exit_codes [N]}, after [NAME], ready (PROBE or null), alive ({probe, every_s, failures} or null), waits_for [NAME],
  retry_ms (when it is started again, or null), failure (why it could not be started, or null), trial_from (the
  generation that comes back if this one fails, or null)";

/// What `history --json` prints.
pub const HISTORY_FIELDS: &str = "\
Prints with --json an array of objects with the fields
  number, current, faulty (it was given up), made_ms, image, memory_mib, cpus, nets, blocks, args, restart, after, ready,
  alive (as in `petrel info`)";

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
  has it image (digest), exit_code, signal, pid, release, delay_ms, generation, failed_generation, bytes, from (a
  volume); or {missed: N} where N events are no longer kept";

/// What `stats --json` prints.
pub const STATS_FIELDS: &str = "\
Prints with --json an array, with --follow one a line, of objects with the fields
  name, run_ms, cpu_ms, memory_mib (given), resident_kib (in use), storage {read_bytes, written_bytes} (null where the
  host's kernel does not tell), nets [{device, received, sent}, each of those two {bytes, packets, dropped}], all since it
  was started, and rates {cpu_percent, read, written, received, sent (bytes a second), dropped (frames a second)} since the
  line before (null without one)";
/// What `policy ls --json` prints.
pub const POLICY_FIELDS: &str = "\
Prints with --json an array of objects with the fields
  path, used {unikernels, memory_mib, volume_mib}, set and certificate (each null, or {unikernels, memory_mib,
  cpus [N], volume_mib, bridges [NAME]}, where null is no limit)";

/// What `cert show --json` prints.
pub const CERT_FIELDS: &str = "\
Prints with --json an array of objects, one for each certificate of the file, with the fields
  name (or null), role: ca|operator|other, path (that it gives; null if its name is no label), policy (null, or as
  `petrel policy ls` has it), rights [read|operate|delegate] (or null), faults [TEXT] (why no host takes it),
  not_before_ms and not_after_ms (milliseconds since 1970), serial (hexadecimal), key (SHA-256 of its
  SubjectPublicKeyInfo)";

/// What `cert revoke --json` prints.
pub const REVOKE_FIELDS: &str = "\
Fields of --json:
  serial (hexadecimal) and key (SHA-256), one of them null, sessions (how many ended by it)";

/// What `cert revoked --json` prints.
pub const REVOKED_FIELDS: &str = "\
Prints with --json an array of objects with the fields
  serial (hexadecimal) and key (SHA-256), one of them null, path (of certificates that a CA of this path or below
  has signed), at_ms (milliseconds since 1970 by the host's clock)";

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
        "address": host.address.as_ref().map(|address| {
            let (ipv4, prefix) = address.ipv4;
            json!({
                "ipv4": format!("{ipv4}/{prefix}"),
                "gateway": address.gateway.map(|gateway| gateway.to_string()),
                "leased": address.is_leased,
            })
        }),
        "uptime_ms": host.uptime_ms,
        "cpus": &*host.cpus,
        "memory_mib": host.memory_mib,
        "memory_used_mib": host.memory_used_mib,
        "unikernels": host.unikernels,
        "volumes_mib": host.volumes_mib,
        "volumes_used_mib": host.volumes_used_mib,
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
    let reason = image.runnable().err().map(|reason| reason.to_string());
    let sites = image.hypercall_sites();
    json!({
        "file": image.path.to_string_lossy(),
        "digest": image.digest(),
        "bytes": image.bytes.len(),
        "target": image.abi.target.name(),
        "target_number": image.abi.target.raw(),
        "abi_version": image.abi.version,
        "build_id": image.build_id.as_deref().map(hex),
        "runs": {
            "ring3": reason.is_none(),
            "kvm": reason.is_none() && sites.is_some(),
            "kvm_here": kvm_is_here(),
            "reason": reason,
        },
        "hypercall_sites": sites,
        "memory_min_mib": image.layout.memory_min_mib(),
        "entry": image.layout.entry,
        "devices": devices.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(),
    })
}

/// Whether this machine has KVM. (Whether that is of use, `petrel-tender --probe` tells.)
pub fn kvm_is_here() -> bool {
    std::path::Path::new("/dev/kvm").exists()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        "wish": wish(unikernel.wish),
        "generation": unikernel.generation,
        "restarts": unikernel.restarts,
        "last_exit": unikernel.last_exit.map(|status| status.to_string()),
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
    value["cpus"] = json!(&*info.cpus);
    value["nets"] = nets(&info.nets);
    value["blocks"] = blocks(&info.blocks);
    value["args"] = args(&info.args);
    value["monitor"] = json!(&*info.monitor);
    value["backend"] = json!(info.backend.map(backend));
    value["pid"] = json!((info.pid != 0).then_some(info.pid));
    let watching = &info.watching;
    add_supervision(&mut value, &watching.supervision);
    value["waits_for"] = watching.waits_for.iter().map(|name| json!(&**name)).collect();
    value["retry_ms"] = json!(watching.retry_ms);
    value["failure"] = json!(watching.failure.as_deref().map(failure));
    value["trial_from"] = json!(watching.trial_from);
    value
}

/// What may be and what is used, for one path.
pub fn policy_entry(entry: &PolicyEntry) -> Value {
    json!({
        "path": entry.path.to_string(),
        "used": {
            "unikernels": entry.held.unikernels,
            "memory_mib": entry.held.memory_mib,
            "volume_mib": entry.held.volume_mib,
        },
        "set": entry.set.as_ref().map(policy),
        "certificate": entry.certificate.as_ref().map(policy),
    })
}

/// A policy.
pub fn policy(policy: &Policy) -> Value {
    json!({
        "unikernels": policy.unikernels,
        "memory_mib": policy.memory_mib,
        "cpus": policy.cpus.as_deref(),
        "volume_mib": policy.volume_mib,
        "bridges": policy.bridges.as_ref().map(|bridges| bridges.iter().map(|one| &**one).collect::<Vec<_>>()),
    })
}

/// A revocation that has just been made.
pub fn revoked(what: &Revocable, sessions: u32) -> Value {
    let (serial, key) = revocable(what);
    json!({ "serial": serial, "key": key, "sessions": sessions })
}

/// A revocation.
pub fn revocation(revocation: &Revocation) -> Value {
    let (serial, key) = revocable(&revocation.what);
    json!({ "serial": serial, "key": key, "path": revocation.path.to_string(), "at_ms": revocation.at_ms })
}

fn revocable(what: &Revocable) -> (Option<String>, Option<String>) {
    match what {
        Revocable::Serial(serial) => (Some(crate::show::hex(serial)), None),
        Revocable::Key(key) => (None, Some(key.to_string())),
    }
}

/// A generation.
pub fn generation(generation: &GenerationInfo) -> Value {
    let mut value = json!({
        "number": generation.number,
        "current": generation.current,
        "faulty": generation.faulty,
        "made_ms": generation.made_ms,
        "image": generation.image,
        "memory_mib": generation.memory_mib,
        "cpus": &*generation.cpus,
        "nets": nets(&generation.nets),
        "blocks": blocks(&generation.blocks),
        "args": args(&generation.args),
    });
    add_supervision(&mut value, &generation.supervision);
    value
}

/// What is to be done so that all is as a manifest says.
pub fn plan(steps: &[Step], unchanged: usize) -> Value {
    let changes = steps.iter().map(|step| {
        let differences = step.differences.iter();
        let differences = differences.map(
            |difference| json!({ "field": difference.field, "is": difference.is, "shall_be": difference.shall_be }),
        );
        json!({
            "kind": if matches!(step.action, Action::Volume(_)) { "volume" } else { "unikernel" },
            "name": &*step.name,
            "action": action(step.action),
            "differences": differences.collect::<Vec<_>>(),
        })
    });
    json!({ "changes": changes.collect::<Vec<_>>(), "unchanged": unchanged })
}

fn nets(nets: &[(Net, Mac)]) -> Value {
    let one = |(net, mac): &(Net, Mac)| json!({ "device": &*net.device, "bridge": &*net.bridge, "mac": mac.to_string() });
    nets.iter().map(one).collect()
}

fn blocks(blocks: &[Block]) -> Value {
    blocks.iter().map(|block| json!({ "device": &*block.device, "volume": &*block.volume })).collect()
}

fn args<const N: usize>(args: &[Blob<N>]) -> Value {
    args.iter().map(|arg| String::from_utf8_lossy(arg)).collect()
}

fn add_supervision(value: &mut Value, supervision: &Supervision) {
    let Supervision { restart, after, ready, alive } = supervision;
    value["restart"] = json!({ "when": restart_when(restart.when), "exit_codes": &*restart.codes });
    value["after"] = after.iter().map(|name| json!(&**name)).collect();
    value["ready"] = json!(ready.as_ref().map(|probe| probe.to_string()));
    value["alive"] = json!(alive.as_ref().map(|alive| json!({
        "probe": alive.probe.to_string(),
        "every_s": alive.every_s,
        "failures": alive.failures,
    })));
}

/// Why something could not be started, without what to do about it.
pub fn failure(refusal: &Refusal) -> String {
    let refused = crate::error::Error::Refused(refusal.clone());
    crate::sentence::of(&refused, &crate::sentence::About::default()).wrong
}

/// What is to be done about a unikernel or a volume, in one word.
pub fn action(action: Action) -> &'static str {
    match action {
        Action::Create | Action::Volume(Change::Create { .. }) => "create",
        Action::Replace => "replace",
        Action::Start => "start",
        Action::Destroy => "destroy",
        Action::Volume(Change::Grow { .. }) => "grow",
        Action::Volume(Change::Shrink { .. }) => "shrink",
    }
}

/// What a unikernel is wanted to be, in one word.
pub fn wish(wish: Wish) -> &'static str {
    match wish {
        Wish::Running => "running",
        Wish::Stopped => "stopped",
        Wish::Destroyed => "destroyed",
    }
}

/// When a unikernel is started again, as the option says it.
pub fn restart_when(when: RestartWhen) -> &'static str {
    match when {
        RestartWhen::Never => "never",
        RestartWhen::OnFailure => "on-failure",
        RestartWhen::Always => "always",
    }
}

/// What a unikernel is doing, in one word.
pub fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Ready => "ready",
        State::Stopping => "stopping",
        State::Stopped => "stopped",
        State::Ended(_) => "ended",
        State::Waiting => "waiting",
        State::BackOff => "backoff",
        State::CrashLoop => "crash-loop",
        State::Failed => "failed",
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
            wish: Wish::Running,
            generation: 1,
            restarts: 0,
            last_exit: Some(ExitStatus::Code(3)),
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
