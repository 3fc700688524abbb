//! From the seal and the arguments to a control plane.

use alloc::boxed::Box;
use core::net::Ipv4Addr;

use petrel_engine::Config;
use petrel_wire::seal::{Addressing, MAGIC, SEAL_BYTES_MAX, SECTOR_BYTES, Seal, SealError};
use petrel_wire::{Label, RELEASE};

use crate::disk::Disk;
use crate::log::Log;
use crate::net::{Nic, Stack};
use crate::plane::{ControlPlane, Parts};
use crate::tls::{LinkClient, OperatorsServer, SetupError, WallClock};

/// What the arguments say in place of the seal.
#[derive(Default)]
pub struct Overrides {
    /// Where our address on net "service" comes from.
    pub addressing: Option<Addressing>,
    /// The gateway there.
    pub gateway: Option<Ipv4Addr>,
    /// What the host is called.
    pub name: Option<Label>,
}

/// What a machine gives to a control plane.
pub struct Machine<N> {
    /// The operators' network device.
    pub service: N,
    /// The device that leads to the shim.
    pub shim: N,
    /// What the state is kept on, if anything.
    pub state: Option<Box<dyn Disk>>,
    /// The wall clock.
    pub clock: WallClock,
    /// The log.
    pub log: Log,
    /// Random numbers, to be hard to guess on the wire and on the disk.
    pub seeds: [u64; 4],
    /// The time of the start, in monotonic nanoseconds.
    pub now_ns: u64,
}

/// Why there is no control plane.
#[derive(Debug)]
pub enum BootError<E> {
    /// The device with the seal could not be read.
    Device(E),
    /// What is on it is no seal for us.
    Seal(SealError),
    /// The seal holds something that cannot be used.
    Setup(SetupError),
    /// The seal says so.
    Port,
    /// The arguments name one, and DHCP does.
    Gateway,
}

impl<E: core::fmt::Display> core::fmt::Display for BootError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Device(error) => write!(f, "block device \"seal\" cannot be read: {error}"),
            Self::Seal(error) => write!(f, "block device \"seal\": {error}"),
            Self::Setup(error) => write!(f, "{error}"),
            Self::Port => f.write_str("the seal says to listen on port 0, which is none"),
            Self::Gateway => {
                f.write_str("--ipv4-gateway: the gateway is the one that DHCP names, or give --ipv4")
            }
        }
    }
}

impl<E: core::fmt::Debug + core::fmt::Display> core::error::Error for BootError<E> {}

/// Reads the seal from a device: the first block, and then as much as its header says.
///
/// `read(offset, bytes)` fills `bytes`, whole blocks of `block_bytes` each.
///
/// # Errors
/// What `read` says, or that there is no seal.
pub fn read_seal<E>(
    capacity: u64,
    block_bytes: usize,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Seal, BootError<E>> {
    let header_bytes = MAGIC.len() + 4;
    let first = SECTOR_BYTES.next_multiple_of(block_bytes);
    if capacity < first as u64 {
        return Err(BootError::Seal(SealError::Truncated));
    }
    let mut image = alloc::vec![0; first];
    read(0, &mut image).map_err(BootError::Device)?;
    if !image.starts_with(&MAGIC) {
        return Err(BootError::Seal(SealError::NotASeal));
    }
    let length = image[MAGIC.len()..].first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    let whole = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(header_bytes);
    if whole > SEAL_BYTES_MAX {
        return Err(BootError::Seal(SealError::Truncated));
    }
    let whole = whole.next_multiple_of(block_bytes).max(first);
    if capacity < whole as u64 {
        return Err(BootError::Seal(SealError::Truncated));
    }
    image.resize(whole, 0);
    read(first as u64, &mut image[first..]).map_err(BootError::Device)?;
    Seal::decode(&image).map_err(BootError::Seal)
}

/// Puts everything together.
///
/// # Errors
/// [`BootError::Setup`] and [`BootError::Port`]: the seal holds something that cannot be used; [`BootError::Gateway`]: the
/// arguments do.
pub fn control_plane<N: Nic, E>(
    seal: Seal,
    overrides: Overrides,
    machine: Machine<N>,
) -> Result<ControlPlane<N>, BootError<E>> {
    let Seal { host, service, link, .. } = seal;
    if service.port == 0 {
        return Err(BootError::Port);
    }
    let Machine {
        service: service_nic,
        shim: shim_nic,
        state,
        clock,
        log,
        seeds: [service_seed, shim_seed, port_seed, state_seed],
        now_ns,
    } = machine;
    let operators = OperatorsServer::new(&service.certificate, &service.key, &service.operators, clock)
        .map_err(BootError::Setup)?;
    let shim_tls = LinkClient::new(&link.key, &link.shim_public_key).map_err(BootError::Setup)?;
    let host = overrides.name.unwrap_or(host);
    // A gateway of the seal's network is of no use in another one.
    let service_stack = match (overrides.addressing.unwrap_or(service.addressing), overrides.gateway) {
        (Addressing::Static { ipv4, gateway }, other) => {
            Stack::new(service_nic, ipv4, other.or(gateway), service_seed, now_ns)
        }
        (Addressing::Dhcp, None) => Stack::with_dhcp(service_nic, &host, service_seed, now_ns),
        (Addressing::Dhcp, Some(_)) => return Err(BootError::Gateway),
    };
    Ok(ControlPlane::new(Parts {
        service: service_stack,
        port: service.port,
        operators,
        shim: Stack::new(shim_nic, link.ipv4, None, shim_seed, now_ns),
        shim_endpoint: (link.shim_ipv4, link.shim_port),
        link: shim_tls,
        state,
        state_seed,
        engine: Config { host, release: RELEASE },
        log,
        port_seed,
    }))
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use petrel_wire::limits::SEAL_VERSION;
    use petrel_wire::seal::{Link, Service};

    use super::*;

    fn image() -> Vec<u8> {
        let ipv4 = (Ipv4Addr::new(10, 0, 0, 2), 24);
        let addressing = Addressing::Static { ipv4, gateway: None };
        let (certificate, key, operators) = (alloc::vec![1; 900], alloc::vec![2; 48], alloc::vec![3; 300]);
        let service = Service { addressing, port: 1025, certificate, key, operators };
        let (key, shim_public_key) = (alloc::vec![4; 48], alloc::vec![5; 44]);
        let link = Link { ipv4, shim_ipv4: Ipv4Addr::LOCALHOST, shim_port: 1026, key, shim_public_key };
        Seal { version: SEAL_VERSION, host: "alpha".parse().unwrap(), service, link }.encode().unwrap()
    }

    /// What comes of a device with this content: the seal's host, or the reason.
    fn read(image: &[u8], block_bytes: usize) -> Result<alloc::string::String, alloc::string::String> {
        let seal = read_seal(image.len() as u64, block_bytes, |offset, bytes| {
            assert_eq!((bytes.len() % block_bytes, offset % block_bytes as u64), (0, 0), "whole blocks");
            let from = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(image.get(from..from + bytes.len()).ok_or("out of bounds")?);
            Ok(())
        });
        seal.map(|seal| seal.host.to_string()).map_err(|error: BootError<&str>| error.to_string())
    }

    #[test]
    fn a_seal_is_read_from_a_device_with_blocks_of_any_size() {
        let mut image = image();
        assert_eq!(read(&image, 512).as_deref(), Ok("alpha"));
        image.resize(image.len().next_multiple_of(4096), 0);
        assert_eq!(read(&image, 4096).as_deref(), Ok("alpha"));
    }

    #[test]
    fn what_is_no_seal_is_named() {
        let image = image();
        let cut = "block device \"seal\": the seal is cut short";
        let none = "block device \"seal\": not a seal: make one with `petrel init`";
        assert_eq!(read(&[], 512), Err(cut.into()));
        assert_eq!(read(&[0; 4096], 512), Err(none.into()));
        assert_eq!(read(&image[..512], 512), Err(cut.into()));
        let mut endless = image.clone();
        endless[8..12].fill(0xff);
        assert_eq!(read(&endless, 512), Err(cut.into()));
        let mut damaged = image.clone();
        damaged[13..40].fill(0xff);
        assert_eq!(read(&damaged, 512), Err("block device \"seal\": the seal is damaged".into()));
        let broken = read_seal(4096, 512, |_, _| Err("the disk is gone"));
        let broken = broken.err().unwrap().to_string();
        assert_eq!(broken, "block device \"seal\" cannot be read: the disk is gone");
    }
}
