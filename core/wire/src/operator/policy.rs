//! Policies, rights and revocations: who may have what.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{
    BRIDGES_MAX, CHAIN_CERTIFICATES_MAX, CPUS_MAX, PAGE_ENTRIES_MAX, POLICY_PAGE_ENTRIES_MAX,
    SERIAL_BYTES_MAX,
};
use crate::{Blob, BridgeName, Digest, List, Path};

/// The CPUs that may be used.
pub type Cpus = List<u16, CPUS_MAX>;
/// The bridges that may be used.
pub type Bridges = List<BridgeName, BRIDGES_MAX>;

/// What all that lies below a path may have together. `None` sets no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How many unikernels, running or not.
    pub unikernels: Option<u32>,
    /// The memory of these, in MiB.
    pub memory_mib: Option<u64>,
    /// The CPUs that they may run on.
    pub cpus: Option<Cpus>,
    /// The size of all volumes, in MiB.
    pub volume_mib: Option<u64>,
    /// The bridges that they may be plugged into.
    pub bridges: Option<Bridges>,
}

/// What is there below a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many unikernels, running or not.
    pub unikernels: u32,
    /// The memory of these, in MiB.
    pub memory_mib: u64,
    /// The size of all volumes, in MiB.
    pub volume_mib: u64,
}

/// One path: what is there below it, and what may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEntry {
    /// The path.
    pub path: Path,
    /// What an operator has set for it.
    pub set: Option<Policy>,
    /// What the session's certificates say for it.
    pub certificate: Option<Policy>,
    /// What is there.
    pub held: Held,
}

/// A page of [`PolicyEntry`]s.
pub type PolicyPage = List<PolicyEntry, POLICY_PAGE_ENTRIES_MAX>;

/// What a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Unikernels.
    Unikernels,
    /// Memory of unikernels, in MiB.
    Memory,
    /// Size of volumes, in MiB.
    VolumeSpace,
}

/// One kind of thing that an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    /// To see what there is.
    Read,
    /// To change what there is.
    Operate,
    /// To set policies and revoke certificates.
    Delegate,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Delegate => "delegate",
        })
    }
}

/// A set of [`Right`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// [`Right::Read`]
    pub read: bool,
    /// [`Right::Operate`]
    pub operate: bool,
    /// [`Right::Delegate`]
    pub delegate: bool,
}

impl Rights {
    /// All of them.
    pub const ALL: Self = Self { read: true, operate: true, delegate: true };

    /// Whether `right` is among them.
    pub fn has(self, right: Right) -> bool {
        match right {
            Right::Read => self.read,
            Right::Operate => self.operate,
            Right::Delegate => self.delegate,
        }
    }

    /// Those that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            operate: self.operate && other.operate,
            delegate: self.delegate && other.delegate,
        }
    }
}

/// A certificate's serial number, without leading zeros.
pub type Serial = Blob<SERIAL_BYTES_MAX>;

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Revocable {
    /// The certificates with this serial number.
    Serial(Serial),
    /// The certificates for the key whose SubjectPublicKeyInfo has this SHA-256.
    Key(Digest),
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// It is about certificates that a CA of this path, or of one below, has issued.
    pub path: Path,
    /// What is revoked.
    pub what: Revocable,
    /// When it was revoked: the host's clock, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A page of [`Revocation`]s.
pub type RevocationPage = List<Revocation, PAGE_ENTRIES_MAX>;

/// Why a certificate opens no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateFault {
    /// It is not well-formed X.509.
    Malformed,
    /// It is an operator's own, and not for clients (no extended key usage clientAuth).
    Purpose,
    /// It is a CA's, and its subject has not exactly one common name that is a label.
    Label,
    /// It is a CA's, and the labels down to it are too many or too long for a path.
    Depth,
    /// Its policy extension cannot be read.
    Policy,
    /// Its policy extension has another version than 5.
    PolicyVersion(u16),
    /// It carries one of albatross's commands: it is good for that command over albatross's protocol only.
    Command,
    /// Its extension with the rights cannot be read.
    Rights,
    /// It has expired.
    Expired,
    /// It is revoked.
    Revoked,
}

/// The place of a certificate in the chain that was presented, the operator's own being 0.
pub type ChainIndex = u8;
const _: () = assert!(CHAIN_CERTIFICATES_MAX <= ChainIndex::MAX as usize);
