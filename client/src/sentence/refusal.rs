//! Why the host did not do it.

use std::io;

use petrel_wire::limits::{
    JOURNAL_VERSION, OPERATOR_VERSION, STATE_FILE_BYTES_MAX, STATE_FILE_VERSION, UNIKERNELS_MAX,
};
use petrel_wire::operator::{DeviceKind, ImageFault, ReadOnly, Refusal, StateFault, Table};
use petrel_wire::shim::Fault;

use super::supervise::supervise;
use super::{About, Sentence, policy, say, volume};

/// The sentence for a refusal.
pub(crate) fn refusal(reason: &Refusal, about: &About<'_>) -> Sentence {
    let name = about.name.map_or("of this name".into(), |name| format!("\"{name}\""));
    let image = about.image.unwrap_or("the image");
    match reason {
        Refusal::Certificate { .. }
        | Refusal::RightMissing(_)
        | Refusal::OutsideScope
        | Refusal::ScopedName
        | Refusal::NoSuchPolicy
        | Refusal::OverPolicy { .. }
        | Refusal::CpuPolicy { .. }
        | Refusal::BridgePolicy { .. } => policy::refusal(reason),
        Refusal::NoSuchUnikernel => say(
            format!("there is no unikernel {name}"),
            "the name of one that is listed",
            "see `petrel ps` for what there is",
        ),
        Refusal::NameTaken => say(
            format!("there is a unikernel {name} already"),
            "a name that is free on this host",
            "choose another name, put it in that one's place with --force, or `petrel destroy` that one first",
        ),
        Refusal::NoSuchImage => say(
            format!("the host has not got {image}"),
            "the digest of an image that was uploaded to it",
            "give the path of the image's file instead, and it will be uploaded",
        ),
        Refusal::ImageSize { max } => say(
            format!("{image} is empty or too large"),
            format!("an image of 1 to {max} bytes"),
            "give another image, or strip this one",
        ),
        Refusal::DigestMismatch { received } => say(
            format!("what arrived of {image} was not what was announced (it has the digest {received})"),
            "the same bytes from beginning to end",
            "see that nobody writes to the file meanwhile, and try again",
        ),
        Refusal::NotAnImage(fault) => not_an_image(image, *fault),
        Refusal::NoMonitor { target, version } => no_monitor(image, *target, *version),
        Refusal::DeviceMissing { device, kind } => say(
            format!("{image} declares the {} device \"{device}\", which is not given", kind_word(*kind)),
            "each declared device to be given",
            match kind {
                DeviceKind::Net => format!("add --net {device}=BRIDGE"),
                DeviceKind::Block => format!("add --block {device}=VOLUME"),
            },
        ),
        Refusal::DeviceUnknown { device, kind } => say(
            format!("{image} declares no {} device \"{device}\"", kind_word(*kind)),
            "only devices that the image's manifest declares",
            "see `petrel inspect IMAGE` for what it declares, and leave this one out",
        ),
        Refusal::DeviceTwice(device) => say(
            format!("the device \"{device}\" is given twice"),
            "each device once",
            "leave one of the two out",
        ),
        Refusal::Memory { asked_mib, min_mib, max_mib } => say(
            format!("{asked_mib} MiB of memory cannot be given to a unikernel"),
            format!("{min_mib} to {max_mib} MiB on this host"),
            "give another --mem, or destroy a unikernel that is not needed",
        ),
        Refusal::CpuUnknown(cpu) => say(
            format!("unikernels may not run on CPU {cpu}, or there is none"),
            "a CPU that the host offers",
            "see `petrel host` for those, or leave --cpu out",
        ),
        Refusal::BridgeUnknown { bridge, known } => say(
            format!("unikernels may not be plugged into the bridge \"{bridge}\", or there is none"),
            match known.iter().map(|bridge| &**bridge).collect::<Vec<_>>().as_slice() {
                [] => "no bridge at all: the host offers none".into(),
                known => format!("one of {}", known.join(", ")),
            },
            "choose one of those, or have it allowed in the host's shim.toml",
        ),
        Refusal::Volume(reason) => volume::volume(reason),
        Refusal::ImageInUse(names) if names.is_empty() => say(
            "somebody uploads the image just now, or it is being looked into",
            "an image that nobody is at",
            "try again in a moment",
        ),
        Refusal::ImageInUse(names) => say(
            format!("unikernels are made of the image, or can go back to it: {}", listed(names)),
            "an image that no unikernel needs",
            "destroy those first",
        ),
        Refusal::Arguments { max } => say(
            "the arguments are too long, or one holds a NUL",
            format!("at most {max} bytes, joined by spaces"),
            "shorten them",
        ),
        Refusal::MemoryGiven { host_mib, given_mib, asked_mib } => say(
            format!("the host has not got {asked_mib} MiB of memory left"),
            format!(
                "at most {} MiB: of the host's {host_mib} MiB, {given_mib} MiB are given to others",
                host_mib.saturating_sub(*given_mib)
            ),
            "give less --mem, or stop or destroy a unikernel that is not needed",
        ),
        Refusal::Full(table) => full(*table),
        Refusal::NotRunning => say(
            format!("the unikernel {name} does not run"),
            "one that does",
            "see `petrel ps` for what it is doing",
        ),
        Refusal::NotAnAppliance => say(
            "the host is no appliance",
            "a host whose machine is Petrel's alone",
            "do it on the machine itself",
        ),
        Refusal::ShimAway => say(
            "the control plane has lost its connection to the host's shim",
            "petrel-shim to run on the host",
            "try again in a moment; if it persists, see the shim's log on the host",
        ),
        Refusal::Shim(fault) => shim(*fault),
        Refusal::MonitorUnknown(_)
        | Refusal::NotEnding { .. }
        | Refusal::AfterUnknown(_)
        | Refusal::AfterCycle(_)
        | Refusal::NoSuchGeneration
        | Refusal::RolledBack { .. }
        | Refusal::Superseded
        | Refusal::BeingDestroyed
        | Refusal::Supervision => supervise(reason, &name),
        Refusal::ReadOnly(reason) => read_only(*reason),
        Refusal::StateFile(fault) => state_file(*fault),
        Refusal::StateInUse { running: 0, unikernels } => say(
            format!("the host keeps {unikernels} unikernels, which would be given up"),
            "a control plane that keeps nothing yet",
            "save them with `petrel state export`, then give them up with --force",
        ),
        Refusal::StateInUse { running, .. } => say(
            format!("{running} unikernels of this host have not ended"),
            "a control plane that runs nothing",
            "destroy them first; see `petrel ps`",
        ),
        Refusal::Version(spoken) => say(
            format!("the host speaks versions {} to {} of Petrel's protocol", spoken.oldest, spoken.newest),
            format!("version {OPERATOR_VERSION}, which this client speaks"),
            "use the client of the host's release",
        ),
        Refusal::Malformed
        | Refusal::FrameTooLong { .. }
        | Refusal::HelloExpected
        | Refusal::IdInUse
        | Refusal::UnexpectedChunk => client_fault(reason),
    }
}

/// Names in a row.
fn listed(names: &[petrel_wire::Name]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// Refusals that this client never earns, unless the other side is of another make.
fn client_fault(reason: &Refusal) -> Sentence {
    let what = match reason {
        Refusal::Malformed => "a message that it cannot read".into(),
        Refusal::FrameTooLong { claimed } => format!("a frame of {claimed} bytes"),
        Refusal::HelloExpected => "a greeting too many or too few".into(),
        Refusal::IdInUse => "a request with the number of another".into(),
        _ => "image bytes that nobody awaited".into(),
    };
    say(
        format!("the host complains about {what}"),
        "a client and a host of the same release",
        "use the same release of Petrel on both sides, and report it if it persists",
    )
}

fn not_an_image(image: &str, fault: ImageFault) -> Sentence {
    let (what, advice) = match fault {
        ImageFault::NotElf => ("is not an executable for x86_64", "give the unikernel's own file (*.hvt)"),
        ImageFault::BadElf => ("is a damaged or unsuitable executable", "build or copy it again"),
        ImageFault::NoAbi => ("says nowhere which Solo5 target it is for", "build it for Solo5's target hvt"),
        ImageFault::BadManifest => ("has no valid Solo5 manifest", "build it with Solo5 0.6 or newer"),
    };
    say(format!("{image} {what}"), "a static ELF executable with Solo5's ABI and manifest notes", advice)
}

fn no_monitor(image: &str, target: u32, version: u32) -> Sentence {
    let known = hvt_abi::note::Target::from_raw(target).name();
    say(
        format!(
            "no monitor of this host runs {image}, which is for Solo5's {known} (target {target}), ABI version {version}"
        ),
        "a target and version that one of the host's monitors runs",
        "see `petrel host` for those, and build the image for one of them; with require_kvm in the shim's configuration \
         there are only those that run guests by KVM",
    )
}

fn kind_word(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Net => "net",
        DeviceKind::Block => "block",
    }
}

fn full(table: Table) -> Sentence {
    let (what, advice) = match table {
        Table::Requests => ("too many requests of this session are unanswered", "wait for some of them"),
        Table::Uploads => {
            ("too many uploads are under way on this host", "try again when one of them is done")
        }
        Table::Unikernels => {
            ("the host has as many unikernels as it can have", "destroy one that is not needed")
        }
        Table::Volumes => ("the host has as many volumes as it can have", "remove one that is not needed"),
        Table::Transfers => {
            ("too many volumes and images are being moved on this host", "try again when one of them is done")
        }
        Table::Taps => ("the host has as many taps as it can have", "destroy a unikernel that is not needed"),
        Table::ShimRequests => ("the host is too busy", "try again in a moment"),
        Table::Sessions => ("too many sessions are open on this host", "try again in a moment"),
        Table::Policies => ("as many policies are set as there can be", "remove one with `petrel policy rm`"),
        Table::Revocations => (
            "as many certificates are revoked as there can be",
            "revoke the CA that signed them, or have the host's operators start anew with another CA",
        ),
        Table::StateFiles => {
            ("another state file is on its way from or to this host", "try again when it is done")
        }
    };
    let expected = match table {
        Table::Unikernels => format!("fewer than {UNIKERNELS_MAX}, those that have ended included"),
        _ => "room for one more".into(),
    };
    say(what, expected, advice)
}

/// What is wrong with the journal, in a few words.
pub fn journal_fault(reason: ReadOnly) -> String {
    match reason {
        ReadOnly::NotAJournal => "what is on its state device is no journal".into(),
        ReadOnly::Damaged => "its journal is damaged".into(),
        ReadOnly::Version(version) => format!("its journal is of version {version}"),
        ReadOnly::Newer => "its journal was written by a newer release".into(),
        ReadOnly::Geometry => "its state device is another one than its journal was begun on".into(),
        ReadOnly::TooSmall { bytes, min } => {
            format!("its state device has {bytes} bytes, and needs {min} at least")
        }
        ReadOnly::Unreadable => "its state device cannot be read".into(),
        ReadOnly::Unwritable => "its state device cannot be written".into(),
        ReadOnly::Full => "its journal has no room for it".into(),
    }
}

fn read_only(reason: ReadOnly) -> Sentence {
    let (expected, advice) = match reason {
        ReadOnly::NotAJournal | ReadOnly::Damaged => (
            "a journal that is whole from beginning to end".into(),
            "save what can be read with `petrel state export`, then see docs/state.md for how to begin anew",
        ),
        ReadOnly::Version(_) | ReadOnly::Newer => (
            format!("one of version {JOURNAL_VERSION}, by this release or an older one"),
            "use the release of the control plane that wrote it",
        ),
        ReadOnly::Geometry => (
            "a device of the same block size, and not smaller".into(),
            "attach the old device; to change it, `petrel state export` and `import`",
        ),
        ReadOnly::TooSmall { .. } => (
            "a larger one".into(),
            "raise control_plane.state_mib in the host's shim.toml, and remove the small file",
        ),
        ReadOnly::Unreadable | ReadOnly::Unwritable => (
            "a disk that works, with room on it".into(),
            "see the control plane's log in the shim's, mend the disk, and end the control plane: it is started again",
        ),
        ReadOnly::Full => {
            ("room in it".into(), "destroy what is not needed, or move to a larger device: see docs/state.md")
        }
    };
    say(format!("the control plane cannot keep changes: {}", journal_fault(reason)), expected, advice)
}

fn state_file(fault: StateFault) -> Sentence {
    let whole = "a file that `petrel state export` has made, as it was made";
    match fault {
        StateFault::NotAStateFile => say("this is no state file", whole, "give the path of one"),
        StateFault::Version(version) => say(
            format!("the state file is of version {version}"),
            format!("one of version {STATE_FILE_VERSION}"),
            "use the release of the control plane that made it",
        ),
        StateFault::Damaged => {
            say("the state file is cut short or damaged", whole, "copy it again, or take another backup")
        }
        StateFault::Newer => say(
            "the state file was made by a newer release",
            "one of this release or an older one",
            "use the release of the control plane that made it",
        ),
        StateFault::Impossible => say(
            "the state file tells what cannot be, or is too large",
            format!("at most {STATE_FILE_BYTES_MAX} bytes, as a control plane has written them"),
            "take another backup; the control plane's log says what cannot be",
        ),
    }
}

/// The sentence for what the shim could not do.
pub(crate) fn shim(fault: Fault) -> Sentence {
    let (what, expected, advice) = match fault {
        Fault::NotFound => {
            ("the host lost what it needed for it", "image, tap and monitor to stay", "try again")
        }
        Fault::Exists => {
            ("the same is under way already", "one at a time", "try again when the other is done")
        }
        Fault::InUse => ("something that it needs is in use", "it to be free", "try again in a moment"),
        Fault::NoVolume => ("the host has no such volume", "a volume of the host", "see `petrel volume ls`"),
        Fault::Full => ("the host's shim is full", "room for one more", "remove what is not needed there"),
        Fault::Os { errno } => return os(errno),
    };
    say(what, expected, advice)
}

fn os(errno: i32) -> Sentence {
    let advice = match errno {
        28 | 122 => "make room on the host's disk",
        12 => "destroy a unikernel that is not needed, or give it less memory",
        1 | 13 => "see that petrel-shim has the rights it needs, and its log on the host",
        _ => "see the shim's log on the host",
    };
    say(
        format!("the host's operating system refused ({})", io::Error::from_raw_os_error(errno)),
        "the host to be able to do it",
        advice,
    )
}

#[cfg(test)]
mod tests {
    use petrel_wire::Name;

    use super::*;

    #[test]
    fn a_refusal_names_what_it_is_about() {
        let name: Name = "web".parse().unwrap();
        let about = About { name: Some(&name), image: Some("web.hvt") };
        let taken = refusal(&Refusal::NameTaken, &about).to_string();
        assert!(taken.starts_with("there is a unikernel \"web\" already: "), "{taken}");
        let missing = Refusal::DeviceMissing { device: "service".parse().unwrap(), kind: DeviceKind::Net };
        let missing = refusal(&missing, &about).to_string();
        assert!(missing.starts_with("web.hvt declares the net device \"service\""), "{missing}");
        assert!(missing.ends_with("add --net service=BRIDGE"), "{missing}");
    }

    #[test]
    fn an_unknown_bridge_is_answered_with_the_known_ones() {
        let known = ["service", "backend"].map(|bridge| bridge.parse().unwrap()).to_vec().try_into().unwrap();
        let unknown = Refusal::BridgeUnknown { bridge: "br9".parse().unwrap(), known };
        let sentence = refusal(&unknown, &About::default());
        assert_eq!(sentence.expected, "one of service, backend");
    }

    #[test]
    fn a_system_error_is_told_in_words() {
        let full = os(28);
        assert!(full.wrong.contains("No space left on device"), "{full}");
        assert!(full.advice.contains("disk"), "{full}");
    }
}
