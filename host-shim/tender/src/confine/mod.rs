//! What the tender gives up before the guest's first instruction.
//!
//! The filter alone would do: it allows no call that opens, starts, or reaches anything. The rest is there for the day
//! on which the filter, or the kernel behind a call that it allows, has a hole.

mod seccomp;

use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Uid, geteuid, getpid};
use rustix::process::{set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_no_new_privs};

pub use seccomp::{Condition, Rule, arg};

use crate::sys;

/// Standard output and standard error stay open.
const STDIO: [RawFd; 2] = [1, 2];

/// Where root started the tender, its process gets the user of this number and its own pid's together: one that nobody
/// else has, as Linux's pids end below 2^22 and neither people nor containers are given numbers so high.
const UID_BASE: u32 = 0x7f00_0000;

/// Gives up all but the descriptors in `keep` and the system calls in `rules`, and the right to make a file in that folder,
/// if there is one.
pub fn confine(mut keep: Vec<RawFd>, rules: &[Rule], new_file_in: Option<BorrowedFd>) -> Result<(), String> {
    let mut program = seccomp::compile(rules);
    keep.extend(STDIO);
    close_all_but(keep).map_err(failed("close descriptors"))?;
    sys::forget_environment();
    no_core_dumps().map_err(failed("turn core dumps off"))?;
    // A file is made by whom its folder belongs to.
    drop_capabilities(new_file_in.is_none()).map_err(failed("drop capabilities"))?;
    // From here on no program that is executed can bring privileges back; both filters below insist on it.
    set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    match sys::landlock(new_file_in) {
        // A kernel without Landlock: the filter denies the same.
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(failed("set Landlock up")(error)),
    }
    sys::seccomp(&mut program).map_err(failed("install the system-call filter"))
}

fn failed(what: &'static str) -> impl Fn(Errno) -> String {
    move |error| format!("Could not {what}: {error}")
}

fn close_all_but(mut keep: Vec<RawFd>) -> Result<(), Errno> {
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep {
        if fd > first {
            sys::close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    sys::close_range(first, RawFd::MAX)
}

/// Neither a crash nor a debugger of the same user may take the guest's memory out of here.
fn no_core_dumps() -> Result<(), Errno> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// All of them, for good; and where that leaves root behind, who owns most files of a host, `another_user`.
fn drop_capabilities(another_user: bool) -> Result<(), Errno> {
    // Ends at the first that the kernel does not know. Who has no right to do this has none to lose either.
    let known = (0..64).map(|number| CapabilitySet::from_bits_retain(1 << number));
    let _ = known.into_iter().try_for_each(rustix::thread::remove_capability_from_bounding_set);
    let _ = rustix::thread::clear_ambient_capability_set();
    if another_user && geteuid().is_root() {
        become_nobody()?;
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

fn become_nobody() -> Result<(), Errno> {
    let id = UID_BASE + getpid().as_raw_nonzero().get().cast_unsigned();
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    // The root of a user namespace may not be allowed the first, and has no other ids to take: it stays who it is,
    // which is an ordinary user to the host.
    let _ = rustix::thread::set_thread_groups(&[]);
    match rustix::thread::set_thread_res_gid(gid, gid, gid) {
        Err(Errno::INVAL) => return Ok(()),
        result => result?,
    }
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}
