//! Descriptors that whoever started the tender opened for it, named `@FD` on the command line.

use std::os::fd::OwnedFd;

use crate::sys;

/// The descriptor that `spec` names, if it has the form `@FD`.
pub fn take(spec: &str) -> Option<Result<OwnedFd, String>> {
    let number = spec.strip_prefix('@')?;
    let fd = number.parse().map_err(|_| format!("{spec}: not a file descriptor"));
    Some(fd.and_then(|fd| sys::inherited(fd).map_err(|error| format!("{spec}: {error}"))))
}
