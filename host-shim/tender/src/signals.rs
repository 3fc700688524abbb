//! Ending at once when asked to.

use std::ffi::c_int;

use rustix::io::write;
use rustix::stdio::stderr;

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
        // SAFETY: only ends the process.
        unsafe { libc::_exit(1) };
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: all-zero is a valid sigaction: no flags, nothing blocked.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = exit as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: `action` is valid, and the handler does only what is safe in a signal handler.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(format!("Could not install signal handler: {}", std::io::Error::last_os_error()));
        }
    }
    Ok(())
}
