//! Network devices.

use crate::device::{IoError, acquire, result};
use crate::hypercall;
use crate::limits::ETHERNET_HEADER_BYTES;
use hvt_abi::hypercall::{NetRead, NetWrite};
use hvt_abi::manifest::DeviceKind;

/// A network device: whole Ethernet frames in and out, no sleeping.
#[derive(Debug)]
pub struct Net {
    handle: u64,
    mac: [u8; 6],
    mtu: u16,
}

impl Net {
    /// Takes the network device that the manifest declares as `name`; nothing when it declares none, or when
    /// the device was taken before.
    pub fn acquire(name: &str) -> Option<Self> {
        let (handle, properties) = acquire(DeviceKind::Net, name)?;
        Some(Self { handle, mac: properties.mac(), mtu: properties.mtu() })
    }

    /// The hardware address that the tender has given it.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Most bytes of a frame after its Ethernet header.
    pub fn mtu(&self) -> usize {
        self.mtu.into()
    }

    /// Most bytes of a frame with its Ethernet header.
    pub fn frame_max(&self) -> usize {
        self.mtu() + ETHERNET_HEADER_BYTES
    }

    /// The bit that says in a poll's answer that this device is readable.
    pub(crate) fn ready_bit(&self) -> u64 {
        1 << self.handle
    }

    /// Reads one frame into `frame` and tells its length; nothing when none is there.
    ///
    /// # Errors
    /// [`IoError::OutOfBounds`] when `frame` is shorter than [`frame_max`](Self::frame_max): the rest of a frame
    /// would be lost. Else what the tender says.
    pub fn read(&mut self, frame: &mut [u8]) -> Result<Option<usize>, IoError> {
        if frame.len() < self.frame_max() {
            return Err(IoError::OutOfBounds);
        }
        let room = frame.len();
        let mut read = NetRead {
            handle: self.handle,
            data: hypercall::address_of_mut(frame),
            len: room as u64,
            ..NetRead::default()
        };
        // SAFETY: data and len are those of a slice borrowed mutably for the whole call.
        unsafe { hypercall::call(&mut read) };
        match result(read.ret) {
            // Length and room are the tender's and ours: never trust one to index the other.
            Ok(()) => Ok(Some(usize::try_from(read.len).unwrap_or(room).min(room))),
            Err(IoError::Again) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends `frame`, an Ethernet frame without its checksum.
    ///
    /// # Errors
    /// [`IoError::OutOfBounds`] when it is empty or longer than [`frame_max`](Self::frame_max): upstream tenders
    /// end the guest over such a frame. Else what the tender says.
    pub fn write(&mut self, frame: &[u8]) -> Result<(), IoError> {
        if frame.is_empty() || frame.len() > self.frame_max() {
            return Err(IoError::OutOfBounds);
        }
        let mut write = NetWrite {
            handle: self.handle,
            data: hypercall::address_of(frame),
            len: frame.len() as u64,
            ..NetWrite::default()
        };
        // SAFETY: data and len are those of a slice borrowed for the whole call; the tender only reads it.
        unsafe { hypercall::call(&mut write) };
        result(write.ret)
    }
}
