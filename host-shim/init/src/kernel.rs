//! The calls that rustix has no safe function for: the only unsafe code of this program.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io;
use rustix::ioctl::{NoArg, Opcode, Setter, Updater, ioctl};

// linux/sockios.h, linux/if.h, linux/fs.h, fs/ext4/ext4.h
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCBRADDBR: Opcode = 0x89a0;
const SIOCBRADDIF: Opcode = 0x89a2;
const SIOCSIFHWADDR: Opcode = 0x8924;
const BLKRRPART: Opcode = 0x125f;
const EXT4_IOC_RESIZE_FS: Opcode = 0x4008_6610;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u16 = 0x0001;
const NAME_BYTES: usize = 16;

/// `struct ifreq`: the interface's name, NUL-terminated, and a union of 24 bytes.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    value: [u8; 24],
}
const _: () = assert!(size_of::<InterfaceRequest>() == 40);

/// Does `OPCODE` to the interface `name`, with `value` at the start of the union.
fn request<const OPCODE: Opcode>(fd: impl AsFd, name: &str, value: &[u8]) -> io::Result<()> {
    const { assert!(matches!(OPCODE, SIOCSIFFLAGS | SIOCBRADDBR | SIOCBRADDIF | SIOCSIFHWADDR)) };
    let mut request = InterfaceRequest { name: [0; NAME_BYTES], value: [0; 24] };
    // One byte is left for the NUL.
    let room = request.name[..NAME_BYTES - 1].get_mut(..name.len()).ok_or(io::Errno::NAMETOOLONG)?;
    room.copy_from_slice(name.as_bytes());
    request.value[..value.len()].copy_from_slice(value);
    // SAFETY: each of the opcodes asserted above takes a pointer to one `struct ifreq`, or (SIOCBRADDBR) to the name at
    // its start, which the kernel reads and may write for the length of the call; any bytes are valid in it.
    unsafe { ioctl(fd, Updater::<OPCODE, InterfaceRequest>::new(&mut request)) }
}

/// Makes a bridge.
pub fn add_bridge(socket: impl AsFd, name: &str) -> io::Result<()> {
    request::<SIOCBRADDBR>(socket, name, &[])
}

/// Plugs an interface, named by its index, into a bridge.
pub fn add_port(socket: impl AsFd, bridge: &str, index: u32) -> io::Result<()> {
    request::<SIOCBRADDIF>(socket, bridge, &index.to_ne_bytes())
}

/// Gives an interface its hardware address.
pub fn set_hardware_address(socket: impl AsFd, name: &str, address: [u8; 6]) -> io::Result<()> {
    request::<SIOCSIFHWADDR>(socket, name, &[&ARPHRD_ETHER.to_ne_bytes()[..], &address].concat())
}

/// Brings an interface up.
pub fn bring_up(socket: impl AsFd, name: &str) -> io::Result<()> {
    request::<SIOCSIFFLAGS>(socket, name, &IFF_UP.to_ne_bytes())
}

/// Makes a mounted ext4 this many blocks large.
pub fn resize_ext4(mounted: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS takes a pointer to a `__u64`, which the kernel only reads.
    unsafe { ioctl(mounted, Setter::<EXT4_IOC_RESIZE_FS, u64>::new(blocks)) }
}

/// Has a disk's partitions read again.
pub fn read_partitions(disk: impl AsFd) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument.
    unsafe { ioctl(disk, NoArg::<BLKRRPART>::new()) }
}
