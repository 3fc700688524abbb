//! Opening and asking tap interfaces: Linux offers ioctls for that, and nothing safer.

use std::ffi::c_char;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::Errno;

/// Attaches to the tap `name`, which must exist and be up; returns its MTU in bytes too.
pub fn open(name: &str) -> Result<(OwnedFd, u16), Errno> {
    let mut request = request(name)?;
    let socket = socket()?;
    // Asking first matters: attaching to a name that does not exist would make a new interface.
    interface_ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request).map_err(|error| match error {
        Errno::NODEV => Errno::NOENT,
        error => error,
    })?;
    // SAFETY: SIOCGIFFLAGS has filled in this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if i32::from(flags) & (libc::IFF_UP | libc::IFF_RUNNING) == 0 {
        return Err(Errno::NETDOWN);
    }
    let tap = open_file("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let asked = request.ifr_name;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
    interface_ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &mut request)?;
    // Names with a '%' are templates to the kernel.
    if request.ifr_name != asked {
        return Err(Errno::INVAL);
    }
    Ok((tap, mtu(name)?))
}

/// The name of the interface behind a tap's descriptor.
pub fn name(tap: &OwnedFd) -> Result<String, Errno> {
    let mut request = request("")?;
    interface_ioctl(tap.as_raw_fd(), libc::TUNGETIFF, &mut request)?;
    // SAFETY: TUNGETIFF has filled in this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if i32::from(flags) & libc::IFF_TAP == 0 {
        return Err(Errno::INVAL);
    }
    let name = request.ifr_name.iter().take_while(|&&c| c != 0);
    Ok(name.map(|&c| char::from(c.cast_unsigned())).collect())
}

/// The MTU of an interface in this network namespace, in bytes.
pub fn mtu(name: &str) -> Result<u16, Errno> {
    let mut request = request(name)?;
    interface_ioctl(socket()?.as_raw_fd(), libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU has filled in this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u16::try_from(mtu).map_err(|_| Errno::RANGE)
}

fn request(name: &str) -> Result<libc::ifreq, Errno> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(Errno::NAMETOOLONG);
    }
    // SAFETY: ifreq is made of integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

/// A socket to ask about interfaces with.
fn socket() -> Result<OwnedFd, Errno> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: just opened, so it is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn interface_ioctl(fd: RawFd, number: libc::Ioctl, request: &mut libc::ifreq) -> Result<(), Errno> {
    // SAFETY: all ioctls used here (SIOCGIF*, TUN*IFF) read and write at most one ifreq.
    match unsafe { libc::ioctl(fd, number, std::ptr::from_mut(request)) } {
        0.. => Ok(()),
        _ => Err(last_error()),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
