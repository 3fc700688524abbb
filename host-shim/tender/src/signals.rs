//! Ending at once when asked to.

use std::ffi::c_int;

use rustix::io::write;
use rustix::stdio::stderr;

use crate::sys::{self, Action};

/// From now on SIGTERM and SIGINT end the tender with status 1, whatever the guest does.
pub fn exit_on_termination() -> Result<(), String> {
    extern "C" fn exit(signal: c_int) {
        // In ring 3 the guest's FS base may be live here, so nothing that knows of threads may be used: no
        // formatting, no standard streams, only system calls.
        let text: &[u8] = match signal {
            libc::SIGTERM => b"petrel-tender: Exiting on signal 15\n",
            _ => b"petrel-tender: Exiting on signal 2\n",
        };
        let _ = write(stderr(), text);
        sys::exit(1);
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        sys::on_signal(signal, Action::Call(exit))
            .map_err(|error| format!("Could not install signal handler: {error}"))?;
    }
    Ok(())
}
