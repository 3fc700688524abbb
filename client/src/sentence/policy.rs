//! What certificates and policies do not allow.

use petrel_wire::operator::{CertificateFault, Refusal, Resource};

use super::{Sentence, say};

/// The sentence for such a refusal.
pub(super) fn refusal(reason: &Refusal) -> Sentence {
    match reason {
        Refusal::Certificate { index, fault } => certificate(*index, *fault),
        Refusal::RightMissing(right) => say(
            format!("this operator's certificates do not give the right to {right}"),
            format!(
                "a chain of certificates each of which has the right to {right}, or says nothing of rights"
            ),
            "see `petrel cert show` for what yours say, and ask who signed them",
        ),
        Refusal::OutsideScope => say(
            "that is for those above to do: it is about more than what lies below your path",
            "a path below one's own for a policy; for the state of the host, an operator who has all of it",
            "name a path, as `petrel policy set team …`, or ask who signed your CA's certificate",
        ),
        Refusal::ScopedName => say(
            "with the path that the certificates give in front, the name is too long or too deep",
            "at most 8 labels and 128 bytes together",
            "choose a shorter name",
        ),
        Refusal::NoSuchPolicy => say(
            "no policy was set for this path",
            "a path for which one was set",
            "see `petrel policy ls` for those",
        ),
        Refusal::OverPolicy { path, resource, limit, used, asked } => say(
            format!(
                "the policy of \"{path}\" allows {}: {used} used and {asked} asked for are {}",
                amount(*resource, *limit),
                used.saturating_add(*asked)
            ),
            format!("at most {} more below \"{path}\"", limit.saturating_sub(*used)),
            "ask for less, remove what is not needed, or have the policy widened by who set it",
        ),
        Refusal::CpuPolicy { path, asked, allowed } => say(
            match asked {
                Some(cpu) => format!("the policy of \"{path}\" does not allow CPU {cpu}"),
                None => format!("the policy of \"{path}\" allows no CPU that the host has"),
            },
            match &**allowed {
                [] => "no CPU at all: the policies above it have none in common".into(),
                allowed => format!("one of {}", list(allowed)),
            },
            "choose among those with --cpu, or have the policy widened by who set it",
        ),
        Refusal::BridgePolicy { path, asked, allowed } => say(
            format!("the policy of \"{path}\" does not allow the bridge \"{asked}\""),
            match &**allowed {
                [] => "no bridge at all".into(),
                allowed => format!("one of {}", list(allowed)),
            },
            "choose among those with --net, or have the policy widened by who set it",
        ),
        other => say(format!("it is not allowed ({other:?})"), "what a policy allows", "ask who set it"),
    }
}

fn amount(resource: Resource, limit: u64) -> String {
    match resource {
        Resource::Unikernels => format!("{limit} unikernels"),
        Resource::Memory => format!("{limit} MiB of memory"),
        Resource::VolumeSpace => format!("{limit} MiB of volumes"),
    }
}

fn list(entries: &[impl ToString]) -> String {
    entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why the host turned a chain away that TLS had let in, or ended its session.
fn certificate(index: u8, fault: CertificateFault) -> Sentence {
    let which = match index {
        0 => "this operator's certificate".to_string(),
        index => format!("certificate {} in this operator's chain, a CA's,", u32::from(index) + 1),
    };
    let sign_again = "have it signed anew by its CA; `petrel cert show` tells what it says";
    match fault {
        CertificateFault::Malformed => {
            say(format!("{which} cannot be read by the host"), "a certificate by RFC 5280", sign_again)
        }
        CertificateFault::Purpose => say(
            format!("{which} is not for clients"),
            "the extended key usage clientAuth",
            "have it signed by `petrel cert sign`",
        ),
        CertificateFault::Label => say(
            format!("{which} has no label as its name"),
            "exactly one common name of letters, digits, '-', '_' and '.'",
            sign_again,
        ),
        CertificateFault::Depth => say(
            format!("{which} makes a path that is too long or too deep"),
            "at most 8 labels and 128 bytes together",
            "choose shorter labels, or fewer CAs in a row",
        ),
        CertificateFault::Policy => say(
            format!("the policy in {which} cannot be read"),
            "albatross's policy extension with CPUs, bridges and numbers within Petrel's bounds",
            sign_again,
        ),
        CertificateFault::PolicyVersion(version) => say(
            format!("the policy in {which} has version {version}"),
            "version 5 of albatross's extension",
            "have it signed anew by `petrel cert delegate`, or by a release of albatross that writes version 5",
        ),
        CertificateFault::Command => say(
            format!("{which} carries one command of albatross's"),
            "a certificate that is good for more than one command",
            "have a certificate signed by `petrel cert sign`",
        ),
        CertificateFault::Rights => say(
            format!("the rights in {which} cannot be read"),
            "a bit string of read, operate and delegate",
            sign_again,
        ),
        CertificateFault::Expired => say(
            "a certificate in this operator's chain has expired".to_string(),
            "certificates that are valid by the host's clock",
            "see `petrel cert show` for which, and have it renewed by `petrel cert renew`",
        ),
        CertificateFault::Revoked => say(
            format!("{which} is revoked"),
            "certificates that are not",
            "ask who signed it for a new one, for a new key",
        ),
    }
}
