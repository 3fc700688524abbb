//! Descriptors that whoever started the tender opened for it, named `@FD` on the command line.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The descriptor that `spec` names, if it has the form `@FD`.
pub fn take(spec: &str) -> Option<Result<OwnedFd, String>> {
    let number = spec.strip_prefix('@')?;
    Some(open_descriptor(number).map_err(|reason| format!("{spec}: {reason}")))
}

fn open_descriptor(number: &str) -> Result<OwnedFd, String> {
    let fd: RawFd = number.parse().map_err(|_| "not a file descriptor")?;
    if fd < 0 {
        return Err("not a file descriptor".into());
    }
    // SAFETY: used for one call only, which the kernel answers with BADF if the descriptor is not open.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).map_err(|error| error.to_string())?;
    // SAFETY: just checked to be open. It was opened for this device by whoever started us, so nothing else here
    // owns it; devices live as long as the process, which is when it is closed.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
