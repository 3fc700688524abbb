//! Network interfaces and their addresses. The only unsafe code of the shim: the ioctls that rustix has no safe function for.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use linux_raw_sys::if_tun::{IFF_NO_PI, IFF_TAP, IFF_TUN_EXCL};
use linux_raw_sys::ioctl::{SIOCSIFADDR, SIOCSIFFLAGS, SIOCSIFNETMASK, TUNSETIFF};
use rustix::fs::{Mode, OFlags, open};
use rustix::io;
use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, netdevice, socket_with, sockopt};

// linux/sockios.h, linux/if.h
const SIOCBRADDIF: Opcode = 0x89a2;
const IFF_UP: u32 = 0x0001;
const NAME_BYTES: usize = 16;

/// `struct ifreq`: the interface's name, NUL-terminated, and a union of 24 bytes.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    value: [u8; 24],
}
const _: () = assert!(size_of::<InterfaceRequest>() == 40);

/// Does `OPCODE` to the interface `name`, with `value` at the start of the union. Flags are 16 bits there: the lower half,
/// in little endian, of the constants' 32.
fn request<const OPCODE: Opcode>(fd: impl AsFd, name: &str, value: &[u8]) -> io::Result<()> {
    const { assert!(matches!(OPCODE, TUNSETIFF | SIOCSIFFLAGS | SIOCSIFADDR | SIOCSIFNETMASK | SIOCBRADDIF)) };
    let mut request = InterfaceRequest { name: [0; NAME_BYTES], value: [0; 24] };
    // One byte is left for the NUL.
    let room = request.name[..NAME_BYTES - 1].get_mut(..name.len()).ok_or(io::Errno::NAMETOOLONG)?;
    room.copy_from_slice(name.as_bytes());
    request.value[..value.len()].copy_from_slice(value);
    // SAFETY: each of the opcodes asserted above takes a pointer to one `struct ifreq`, which the kernel reads and may
    // write for the length of the call; `InterfaceRequest` has its layout, and any bytes are valid in it.
    unsafe { ioctl(fd, Updater::<OPCODE, InterfaceRequest>::new(&mut request)) }
}

/// Creates the tap `name`, up, plugged into `bridge` if one is named. It lives until the descriptor's last copy is
/// closed. [`io::Errno::BUSY`] if there is such an interface.
pub fn create_tap(name: &str, bridge: Option<&str>) -> std::io::Result<OwnedFd> {
    let tap = open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    request::<TUNSETIFF>(&tap, name, &(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL).to_le_bytes())?;
    // The host has no business talking on a guest's wire. Fails where the kernel has no IPv6, which is as good.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    // Interfaces are named to the kernel through any socket.
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if let Some(bridge) = bridge {
        let index = netdevice::name_to_index(&socket, name)?;
        request::<SIOCBRADDIF>(&socket, bridge, &index.to_ne_bytes())?;
    }
    request::<SIOCSIFFLAGS>(&socket, name, &IFF_UP.to_le_bytes())?;
    Ok(tap)
}

/// Gives the interface `name` its IPv4 address, on a network that has room for only one neighbour.
pub fn set_address(name: &str, address: Ipv4Addr) -> io::Result<()> {
    // The start of `struct sockaddr_in`: family, no port, address.
    let socket_address = |address: [u8; 4]| {
        [AddressFamily::INET.as_raw().to_ne_bytes().as_slice(), &[0, 0], &address].concat()
    };
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    request::<SIOCSIFADDR>(&socket, name, &socket_address(address.octets()))?;
    request::<SIOCSIFNETMASK>(&socket, name, &socket_address([255, 255, 255, 252]))
}

/// Listens on an address that need not be there: it comes and goes with its interface.
pub fn listen_on(address: SocketAddrV4) -> std::io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, 16)?; // that wait to be accepted
    Ok(socket.into())
}
