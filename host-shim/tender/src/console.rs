//! The guest's console: standard output.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Writes all of `text`, waiting where the reader is slow.
///
/// A reader that is gone is no error: a guest outlives those who watch it.
pub fn write(console: impl AsFd, mut text: &[u8]) -> Result<(), Errno> {
    while !text.is_empty() {
        match rustix::io::write(&console, text) {
            Ok(done) => text = text.get(done..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_until_writable(&console)?,
            Err(Errno::PIPE) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_until_writable(console: &impl AsFd) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(console, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}
