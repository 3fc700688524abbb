//! The sealed host: all that makes an appliance this host and no other, signed by the operators' CA.
//!
//! Layout: the magic, a little-endian `u32` length, the postcard message, the signer's Ed25519 public key, its signature
//! over all that stands before the signature, zeros up to a multiple of [`SECTOR_BYTES`]. Whoever reads it verifies the
//! signature; here it is only found. It holds private keys.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::limits::{BRIDGES_MAX, SEALED_HOST_VERSION};
use crate::seal::SECTOR_BYTES;
use crate::{BridgeName, Label, List, Mac};

/// The first bytes of a sealed host.
pub const MAGIC: [u8; 8] = *b"PETRHOST";
/// The largest sealed host.
pub const SEALED_HOST_BYTES_MAX: usize = 256 * 1024;
const HEADER_BYTES: usize = MAGIC.len() + 4;
/// An Ed25519 public key.
pub const KEY_BYTES: usize = 32;
/// An Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What a host is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedHost {
    /// [`SEALED_HOST_VERSION`].
    pub version: u16,
    /// What the host is called.
    pub host: Label,
    /// The one machine that it is for, by its SMBIOS UUID in lower case; any when absent.
    pub machine: Option<String>,
    /// The bridges, and which interface of the machine is plugged into each.
    pub bridges: List<Bridge, BRIDGES_MAX>,
    /// What the shim may do: `shim.toml`, with the paths of an appliance.
    pub shim_toml: String,
    /// The shim's private key, PKCS #8 DER.
    pub shim_key: Vec<u8>,
    /// The control plane's public key, SubjectPublicKeyInfo DER.
    pub control_plane_public_key: Vec<u8>,
    /// The control plane's own seal, as a block image.
    pub seal: Vec<u8>,
}

/// A bridge of an appliance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// What it is called.
    pub name: BridgeName,
    /// Where it leads to.
    pub uplink: Uplink,
}

/// What is plugged into a bridge beside guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uplink {
    /// Nothing.
    None,
    /// The first interface that no other bridge names, in the order of the kernel's names.
    First,
    /// The interface with this hardware address.
    Mac(Mac),
}

/// A sealed host whose signature has not been verified.
pub struct Alleged<'a> {
    message: &'a [u8],
    /// All that is signed.
    pub signed: &'a [u8],
    /// Who is said to have signed it.
    pub signer: &'a [u8; KEY_BYTES],
    /// The signature.
    pub signature: &'a [u8; SIGNATURE_BYTES],
}

/// Why some bytes are no sealed host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedHostError {
    /// They do not begin with [`MAGIC`].
    Missing,
    /// Their length exceeds what is there, or [`SEALED_HOST_BYTES_MAX`].
    Truncated,
    /// They do not decode.
    Malformed,
    /// They are of this version, which is not [`SEALED_HOST_VERSION`].
    Version(u16),
}

impl core::fmt::Display for SealedHostError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none: make one with `petrel seal`"),
            Self::Truncated => f.write_str("it is cut short"),
            Self::Malformed => f.write_str("it is damaged"),
            Self::Version(version) => {
                write!(f, "it is of version {version}, this appliance reads {SEALED_HOST_VERSION}")
            }
        }
    }
}

impl core::error::Error for SealedHostError {}

impl<'a> Alleged<'a> {
    /// Finds the parts of a sealed host at the start of a disk.
    pub fn find(image: &'a [u8]) -> Result<Self, SealedHostError> {
        let rest = image.strip_prefix(&MAGIC).ok_or(SealedHostError::Missing)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(SealedHostError::Truncated)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| SealedHostError::Truncated)?;
        let message = rest.get(..length).ok_or(SealedHostError::Truncated)?;
        let (signer, rest) = rest[length..].split_first_chunk().ok_or(SealedHostError::Truncated)?;
        let signature = rest.first_chunk().ok_or(SealedHostError::Truncated)?;
        let signed = &image[..HEADER_BYTES + length + KEY_BYTES];
        if signed.len() + SIGNATURE_BYTES > SEALED_HOST_BYTES_MAX {
            return Err(SealedHostError::Truncated);
        }
        Ok(Self { message, signed, signer, signature })
    }

    /// Reads it. To be called once the signature was verified.
    pub fn decode(&self) -> Result<SealedHost, SealedHostError> {
        let (version, _) =
            postcard::take_from_bytes::<u16>(self.message).map_err(|_| SealedHostError::Malformed)?;
        if version != SEALED_HOST_VERSION {
            return Err(SealedHostError::Version(version));
        }
        postcard::from_bytes(self.message).map_err(|_| SealedHostError::Malformed)
    }
}

impl SealedHost {
    /// The bytes for a disk, or [`SealedHostError::Truncated`] if they would exceed [`SEALED_HOST_BYTES_MAX`]. `sign`
    /// signs with the private key of `signer`.
    pub fn encode(
        &self,
        signer: &[u8; KEY_BYTES],
        sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES],
    ) -> Result<Vec<u8>, SealedHostError> {
        let message = postcard::to_allocvec(self).map_err(|_| SealedHostError::Malformed)?;
        let length = u32::try_from(message.len()).map_err(|_| SealedHostError::Truncated)?;
        let mut image = [&MAGIC[..], &length.to_le_bytes(), &message, signer].concat();
        let signature = sign(&image);
        image.extend_from_slice(&signature);
        if image.len() > SEALED_HOST_BYTES_MAX {
            return Err(SealedHostError::Truncated);
        }
        image.resize(image.len().next_multiple_of(SECTOR_BYTES), 0);
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> SealedHost {
        let uplink = Uplink::Mac(Mac([2, 0, 0, 0, 0, 1]));
        let bridge = Bridge { name: "service".parse().unwrap(), uplink };
        SealedHost {
            version: SEALED_HOST_VERSION,
            host: "alpha".parse().unwrap(),
            machine: None,
            bridges: List::try_from(alloc::vec![bridge]).unwrap(),
            shim_toml: "listen = 1".into(),
            shim_key: alloc::vec![1; 48],
            control_plane_public_key: alloc::vec![2; 44],
            seal: alloc::vec![3; 1024],
        }
    }

    fn image(host: &SealedHost) -> Vec<u8> {
        host.encode(&[7; KEY_BYTES], |signed| [signed[20]; SIGNATURE_BYTES]).unwrap()
    }

    #[test]
    fn a_sealed_host_is_whole_sectors_and_comes_back_with_all_that_was_signed() {
        let image = image(&host());
        assert_eq!(image.len() % SECTOR_BYTES, 0);
        let alleged = Alleged::find(&image).unwrap();
        assert!(alleged.decode() == Ok(host()));
        assert_eq!(alleged.signed, &image[..alleged.signed.len()]);
        assert_eq!((alleged.signer, alleged.signature), (&[7; KEY_BYTES], &[image[20]; SIGNATURE_BYTES]));
    }

    #[test]
    fn every_cut_is_an_error_never_a_panic() {
        let image = image(&host());
        let length = Alleged::find(&image).unwrap().signed.len() + SIGNATURE_BYTES;
        assert!((0..length).all(|cut| Alleged::find(&image[..cut]).is_err()));
        assert!(Alleged::find(&[0; 4096]).err() == Some(SealedHostError::Missing));
    }

    #[test]
    fn another_version_is_named() {
        let image = image(&SealedHost { version: 9, ..host() });
        assert!(Alleged::find(&image).unwrap().decode() == Err(SealedHostError::Version(9)));
    }
}
