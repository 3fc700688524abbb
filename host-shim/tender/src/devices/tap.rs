//! Opening and asking tap interfaces.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::Errno;

use crate::sys::{InterfaceRequest, interface_socket};

/// Attaches to the tap `name`, which must exist and be up; returns its MTU in bytes too.
pub fn open(name: &str) -> Result<(OwnedFd, u16), Errno> {
    let mut request = InterfaceRequest::new(name)?;
    // Asking first matters: attaching to a name that does not exist would make a new interface.
    let flags = request.flags(&interface_socket()?, libc::SIOCGIFFLAGS, 0).map_err(|error| match error {
        Errno::NODEV => Errno::NOENT,
        error => error,
    })?;
    if flags & (libc::IFF_UP | libc::IFF_RUNNING) == 0 {
        return Err(Errno::NETDOWN);
    }
    let tap = open_file("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    request.flags(&tap, libc::TUNSETIFF, libc::IFF_TAP | libc::IFF_NO_PI)?;
    // Names with a '%' are templates to the kernel.
    if request.name() != name {
        return Err(Errno::INVAL);
    }
    Ok((tap, mtu(name)?))
}

/// The name of the interface behind a tap's descriptor.
pub fn name(tap: &OwnedFd) -> Result<String, Errno> {
    let mut request = InterfaceRequest::new("")?;
    match request.flags(tap, libc::TUNGETIFF, 0)? & libc::IFF_TAP {
        0 => Err(Errno::INVAL),
        _ => Ok(request.name()),
    }
}

/// The MTU of an interface in this network namespace, in bytes.
pub fn mtu(name: &str) -> Result<u16, Errno> {
    let mtu = InterfaceRequest::new(name)?.number(&interface_socket()?, libc::SIOCGIFMTU)?;
    u16::try_from(mtu).map_err(|_| Errno::RANGE)
}
