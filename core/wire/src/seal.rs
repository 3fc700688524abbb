//! The seal: all that makes a control plane this control plane, as one small read-only block image.
//!
//! Layout: the magic, a little-endian `u32` length, the postcard message, zeros up to a multiple of
//! [`SECTOR_BYTES`]. It holds private keys: whoever can read it can be this control plane.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Label;
use crate::limits::SEAL_VERSION;

/// The first bytes of a seal.
pub const MAGIC: [u8; 8] = *b"PETRSEAL";
/// A seal is a whole number of sectors.
pub const SECTOR_BYTES: usize = 512;
/// The largest seal.
pub const SEAL_BYTES_MAX: usize = 64 * 1024;
const HEADER_BYTES: usize = MAGIC.len() + 4;

/// What a control plane is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// [`SEAL_VERSION`].
    pub version: u16,
    /// What the host is called.
    pub host: Label,
    /// The operators' side.
    pub service: Service,
    /// The shim's side.
    pub link: Link,
}

/// How operators reach the control plane.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Where its address on net "service" comes from; `--ipv4` overrides it.
    pub addressing: Addressing,
    /// The TCP port.
    pub port: u16,
    /// The server's certificate, DER.
    pub certificate: Vec<u8>,
    /// The server's private key, PKCS #8 DER.
    pub key: Vec<u8>,
    /// The CA certificate that operators' certificates must chain to, DER.
    pub operators: Vec<u8>,
}

/// Where an address on a network comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Addressing {
    /// It is set.
    Static {
        /// The address and the length of the network's prefix.
        ipv4: (Ipv4Addr, u8),
        /// The gateway there, if any; `--ipv4-gateway` overrides it.
        gateway: Option<Ipv4Addr>,
    },
    /// A DHCP server of the network leases it, and names the gateway.
    Dhcp,
}

/// How the control plane reaches the shim: TLS 1.3 with raw public keys (RFC 7250) on net "shim".
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The control plane's address and prefix length.
    pub ipv4: (Ipv4Addr, u8),
    /// The shim's address.
    pub shim_ipv4: Ipv4Addr,
    /// The shim's TCP port.
    pub shim_port: u16,
    /// The control plane's private key, PKCS #8 DER.
    pub key: Vec<u8>,
    /// The shim's public key, SubjectPublicKeyInfo DER.
    pub shim_public_key: Vec<u8>,
}

/// Why a block image is not a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// It does not begin with [`MAGIC`].
    NotASeal,
    /// Its length exceeds the image, or [`SEAL_BYTES_MAX`].
    Truncated,
    /// It does not decode.
    Malformed,
    /// It is of this version, which is not [`SEAL_VERSION`].
    Version(u16),
}

impl core::fmt::Display for SealError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotASeal => f.write_str("not a seal: make one with `petrel init`"),
            Self::Truncated => f.write_str("the seal is cut short"),
            Self::Malformed => f.write_str("the seal is damaged"),
            Self::Version(version) => {
                write!(f, "the seal is of version {version}, this control plane reads {SEAL_VERSION}")
            }
        }
    }
}

impl core::error::Error for SealError {}

impl Seal {
    /// Reads a seal from the start of a block image.
    pub fn decode(image: &[u8]) -> Result<Self, SealError> {
        let rest = image.strip_prefix(&MAGIC).ok_or(SealError::NotASeal)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(SealError::Truncated)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| SealError::Truncated)?;
        let message = rest.get(..length).ok_or(SealError::Truncated)?;
        let (version, _) = postcard::take_from_bytes::<u16>(message).map_err(|_| SealError::Malformed)?;
        if version != SEAL_VERSION {
            return Err(SealError::Version(version));
        }
        postcard::from_bytes(message).map_err(|_| SealError::Malformed)
    }

    /// The block image, or [`SealError::Truncated`] if it would exceed [`SEAL_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, SealError> {
        let message = postcard::to_allocvec(self).map_err(|_| SealError::Malformed)?;
        let length = u32::try_from(message.len()).map_err(|_| SealError::Truncated)?;
        let mut image = Vec::with_capacity(HEADER_BYTES + message.len() + SECTOR_BYTES);
        image.extend_from_slice(&MAGIC);
        image.extend_from_slice(&length.to_le_bytes());
        image.extend_from_slice(&message);
        image.resize(image.len().next_multiple_of(SECTOR_BYTES), 0);
        if image.len() > SEAL_BYTES_MAX { Err(SealError::Truncated) } else { Ok(image) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn seal() -> Seal {
        Seal {
            version: SEAL_VERSION,
            host: "alpha".parse().unwrap(),
            service: Service {
                addressing: Addressing::Static { ipv4: (Ipv4Addr::new(10, 0, 0, 2), 24), gateway: None },
                port: 1025,
                certificate: vec![1; 300],
                key: vec![2; 48],
                operators: vec![3; 300],
            },
            link: Link {
                ipv4: (Ipv4Addr::new(10, 1, 0, 2), 30),
                shim_ipv4: Ipv4Addr::new(10, 1, 0, 1),
                shim_port: 1026,
                key: vec![4; 48],
                shim_public_key: vec![5; 44],
            },
        }
    }

    #[test]
    fn a_seal_is_whole_sectors_and_comes_back() {
        let image = seal().encode().unwrap();
        assert_eq!(image.len() % SECTOR_BYTES, 0);
        assert!(Seal::decode(&image) == Ok(seal()));
        let mut leased = seal();
        leased.service.addressing = Addressing::Dhcp;
        assert!(Seal::decode(&leased.encode().unwrap()) == Ok(leased));
    }

    #[test]
    fn every_cut_is_an_error_never_a_panic() {
        let image = seal().encode().unwrap();
        let length = image.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        assert!((0..length).all(|cut| Seal::decode(&image[..cut]).is_err()));
    }

    #[test]
    fn another_version_is_named() {
        let image = Seal { version: 9, ..seal() }.encode().unwrap();
        assert!(Seal::decode(&image) == Err(SealError::Version(9)));
    }
}
