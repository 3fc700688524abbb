//! The two extensions.
//!
//! ```asn1
//! CertExt   ::= SEQUENCE { version INTEGER (5), command CHOICE { …, [4] PolicyCmd, … } }
//! PolicyCmd ::= CHOICE { …, [1] add Policy, … }
//! Policy    ::= SEQUENCE { cpuids SEQUENCE OF INTEGER, unikernels INTEGER, memory INTEGER,
//!                          block INTEGER OPTIONAL, bridges SEQUENCE OF UTF8String }
//! Rights    ::= BIT STRING { read (0), operate (1), delegate (2) }
//! ```
//!
//! All tags are explicit. What is not listed is forbidden: as in albatross, no bridge in the list means no bridge, and no
//! number of blocks means no volume.

use alloc::{string::String, vec, vec::Vec};

use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode, Sequence, Tag, TagNumber, Tagged};
use petrel_wire::operator::{CertificateFault, Policy, Rights};
use petrel_wire::{BridgeName, List};

/// The version of albatross's ASN.1.
const VERSION: u16 = 5;
/// The command that is about policies.
const POLICY_COMMAND: u32 = 4;
/// The part of it that grants one.
const ADD: u32 = 1;

#[derive(Sequence)]
struct CertExt<'a> {
    version: u16,
    command: AnyRef<'a>,
}

#[derive(Sequence)]
struct PolicyDer {
    cpus: Vec<u64>,
    unikernels: u64,
    memory_mib: u64,
    #[asn1(optional = "true")]
    volume_mib: Option<u64>,
    bridges: Vec<String>,
}

/// A policy that an extension cannot say: it has room only for one that sets every limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotExpressible;

/// Reads the extension with a policy.
///
/// # Errors
/// What is wrong with it.
pub fn read_policy(bytes: &[u8]) -> Result<Policy, CertificateFault> {
    let unreadable = |_: der::Error| CertificateFault::Policy;
    let extension = CertExt::from_der(bytes).map_err(unreadable)?;
    if extension.version != VERSION {
        return Err(CertificateFault::PolicyVersion(extension.version));
    }
    let command = extension.command;
    if command.tag() != explicit(POLICY_COMMAND) {
        return Err(CertificateFault::Command);
    }
    let granted = AnyRef::from_der(command.value()).map_err(unreadable)?;
    if granted.tag() != explicit(ADD) {
        return Err(CertificateFault::Command);
    }
    meaning(PolicyDer::from_der(granted.value()).map_err(unreadable)?).ok_or(CertificateFault::Policy)
}

/// What the numbers and texts say, if they are within Petrel's bounds.
fn meaning(policy: PolicyDer) -> Option<Policy> {
    let cpus: Vec<u16> = policy.cpus.into_iter().map(u16::try_from).collect::<Result<_, _>>().ok()?;
    let bridges = policy.bridges.iter().map(|bridge| bridge.parse());
    let bridges: Vec<BridgeName> = bridges.collect::<Result<_, _>>().ok()?;
    Some(Policy {
        unikernels: Some(u32::try_from(policy.unikernels).unwrap_or(u32::MAX)),
        memory_mib: Some(policy.memory_mib),
        cpus: Some(List::try_from(cpus).ok()?),
        volume_mib: Some(policy.volume_mib.unwrap_or(0)),
        bridges: Some(List::try_from(bridges).ok()?),
    })
}

/// Writes the extension with a policy.
///
/// # Errors
/// If the policy leaves a resource without limit.
pub fn policy_extension(policy: &Policy) -> Result<Vec<u8>, NotExpressible> {
    let Policy {
        unikernels: Some(unikernels),
        memory_mib: Some(memory_mib),
        cpus: Some(cpus),
        volume_mib: Some(volume_mib),
        bridges: Some(bridges),
    } = policy
    else {
        return Err(NotExpressible);
    };
    let policy = PolicyDer {
        cpus: cpus.iter().map(|&cpu| cpu.into()).collect(),
        unikernels: (*unikernels).into(),
        memory_mib: *memory_mib,
        volume_mib: Some(*volume_mib).filter(|&volume_mib| volume_mib > 0),
        bridges: bridges.iter().map(|bridge| String::from(&**bridge)).collect(),
    };
    let written = policy.to_der().and_then(|policy| {
        let add = AnyRef::new(explicit(ADD), &policy)?.to_der()?;
        CertExt { version: VERSION, command: AnyRef::new(explicit(POLICY_COMMAND), &add)? }.to_der()
    });
    // It fails for lengths over 256 MiB only.
    written.map_err(|_| NotExpressible)
}

fn explicit(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

const READ: u8 = 1 << 7;
const OPERATE: u8 = 1 << 6;
const DELEGATE: u8 = 1 << 5;

/// Reads the extension with rights. Bits that are not known here are nobody's right.
///
/// # Errors
/// [`CertificateFault::Rights`]
pub fn read_rights(bytes: &[u8]) -> Result<Rights, CertificateFault> {
    let bits = BitStringRef::from_der(bytes).map_err(|_| CertificateFault::Rights)?;
    let first = bits.raw_bytes().first().copied().unwrap_or(0);
    Ok(Rights { read: first & READ != 0, operate: first & OPERATE != 0, delegate: first & DELEGATE != 0 })
}

/// Writes the extension with rights.
pub fn rights_extension(rights: Rights) -> Vec<u8> {
    let flag = |set, bit| if set { bit } else { 0 };
    let bits = flag(rights.read, READ) | flag(rights.operate, OPERATE) | flag(rights.delegate, DELEGATE);
    // DER has no zeros at the end of a list of named bits: X.690, section 11.2.2.
    const BIT_STRING: u8 = 3;
    match u8::try_from(bits.trailing_zeros()) {
        Ok(unused @ 0..8) => vec![BIT_STRING, 2, unused, bits],
        _ => vec![BIT_STRING, 1, 0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPUs 0 and 1, 10 unikernels, 1024 MiB, 2048 MiB of blocks, bridge "serv0": byte for byte by albatross's ASN.1.
    const ALBATROSS: [u8; 39] = [
        0x30, 37, 0x02, 1, 5, // version 5
        0xa4, 32, 0xa1, 30, 0x30, 28, // policy, add
        0x30, 6, 0x02, 1, 0, 0x02, 1, 1, // cpuids
        0x02, 1, 10, // unikernels
        0x02, 2, 4, 0, // memory
        0x02, 2, 8, 0, // block
        0x30, 7, 0x0c, 5, b's', b'e', b'r', b'v', b'0', // bridges
    ];

    fn full() -> Policy {
        Policy {
            unikernels: Some(10),
            memory_mib: Some(1024),
            cpus: Some(vec![0, 1].try_into().unwrap()),
            volume_mib: Some(2048),
            bridges: Some(vec!["serv0".parse().unwrap()].try_into().unwrap()),
        }
    }

    #[test]
    fn a_policy_is_read_and_written_as_albatross_does() {
        assert_eq!(read_policy(&ALBATROSS), Ok(full()));
        assert_eq!(policy_extension(&full()).unwrap(), ALBATROSS);
    }

    #[test]
    fn no_blocks_and_no_bridges_mean_none() {
        let bytes = [
            0x30, 20, 0x02, 1, 5, 0xa4, 15, 0xa1, 13, 0x30, 11, // without block
            0x30, 3, 0x02, 1, 3, 0x02, 1, 1, 0x02, 1, 64, 0x30, 0,
        ];
        let mut bytes = bytes.to_vec();
        // The lengths from the inside out.
        let inner = u8::try_from(bytes.len() - 11).unwrap();
        (bytes[10], bytes[8], bytes[6], bytes[1]) = (inner, inner + 2, inner + 4, inner + 9);
        let read = read_policy(&bytes).unwrap();
        assert_eq!((read.volume_mib, read.bridges.as_deref()), (Some(0), Some(&[][..])));
        assert_eq!(policy_extension(&read).unwrap(), bytes);
    }

    #[test]
    fn other_versions_and_commands_are_told_apart_and_nothing_is_guessed() {
        let changed = |at: usize, byte| {
            let mut bytes = ALBATROSS;
            bytes[at] = byte;
            read_policy(&bytes)
        };
        assert_eq!(changed(4, 4), Err(CertificateFault::PolicyVersion(4)));
        assert_eq!(changed(5, 0xa3), Err(CertificateFault::Command), "a unikernel's command");
        assert_eq!(changed(7, 0xa0), Err(CertificateFault::Command), "a question for policies");
        assert_eq!(changed(13, 0x04), Err(CertificateFault::Policy));
        assert!((0..ALBATROSS.len()).all(|cut| read_policy(&ALBATROSS[..cut]).is_err()));
        let longer = [&ALBATROSS[..], &[0]].concat();
        assert_eq!(read_policy(&longer), Err(CertificateFault::Policy));
    }

    #[test]
    fn numbers_over_our_bounds_are_no_policy_but_many_unikernels_are_many() {
        let with = |cpus: Vec<u64>, unikernels, bridges: &[&str]| {
            let bridges = bridges.iter().map(|bridge| String::from(*bridge)).collect();
            meaning(PolicyDer { cpus, unikernels, memory_mib: 1, volume_mib: None, bridges })
        };
        assert_eq!(with(vec![], 1 << 40, &[]).unwrap().unikernels, Some(u32::MAX));
        assert_eq!(with(vec![65_536], 1, &[]), None);
        assert_eq!(with((0..257).collect(), 1, &[]), None);
        assert_eq!(with(vec![], 1, &["a/b"]), None);
    }

    #[test]
    fn a_policy_without_some_limit_cannot_be_written() {
        assert_eq!(policy_extension(&Policy { memory_mib: None, ..full() }), Err(NotExpressible));
    }

    #[test]
    fn rights_are_bits_in_der() {
        for (rights_of, bytes) in [
            (Rights::ALL, &[3, 2, 5, 0xe0][..]),
            (Rights { read: true, operate: false, delegate: false }, &[3, 2, 7, 0x80]),
            (Rights { read: false, operate: false, delegate: true }, &[3, 2, 5, 0x20]),
            (Rights { read: false, operate: false, delegate: false }, &[3, 1, 0]),
        ] {
            assert_eq!(rights_extension(rights_of), bytes);
            assert_eq!(read_rights(bytes), Ok(rights_of));
        }
        assert_eq!(read_rights(&[3, 2, 0, 0xff]), Ok(Rights::ALL), "bits that are not known yet");
        assert_eq!(read_rights(&[4, 1, 0xe0]), Err(CertificateFault::Rights));
    }
}
