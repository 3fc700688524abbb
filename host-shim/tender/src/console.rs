//! The guest's console: standard output.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Writes all of `text`, waiting where the reader is slow.
///
/// A reader that is gone is no error: a guest outlives those who watch it.
pub fn write(mut text: &[u8]) -> Result<(), Errno> {
    while !text.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), text) {
            Ok(done) => text = text.get(done..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_until_writable()?,
            Err(Errno::PIPE) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_until_writable() -> Result<(), Errno> {
    let stdout = rustix::stdio::stdout();
    match poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}
