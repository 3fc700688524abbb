//! What the tender gives up before the guest's first instruction.

use std::os::fd::RawFd;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::seccomp::{self, Rule, arg};

/// Standard output and standard error stay open.
const STDIO: [RawFd; 2] = [1, 2];

/// Closes all descriptors but the standard outputs and `keep`, turns core dumps off, and puts the system-call filter
/// in force: `rules`, and what every guest needs.
pub fn confine(mut keep: Vec<RawFd>, mut rules: Vec<Rule>) -> Result<(), String> {
    keep.extend(STDIO);
    close_all_but(keep)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| format!("Could not turn core dumps off: {error}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("Could not turn core dumps off: {error}"))?;
    rules.extend(common_rules());
    seccomp::install(&rules)
}

fn common_rules() -> [Rule; 5] {
    let rule = |call, when, why| Rule { call, when, why };
    [
        rule(libc::SYS_write, vec![arg(0).eq(1)], "writes to the console"),
        rule(
            libc::SYS_clock_gettime,
            vec![arg(0).eq(libc::CLOCK_REALTIME)],
            "the wall clock, where the vDSO cannot tell",
        ),
        rule(libc::SYS_restart_syscall, vec![], "goes on waiting after SIGSTOP and SIGCONT"),
        rule(libc::SYS_write, vec![arg(0).eq(2)], "says why the guest ends"),
        rule(libc::SYS_exit_group, vec![], "ends"),
    ]
}

fn close_all_but(mut keep: Vec<RawFd>) -> Result<(), String> {
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), String> {
    // SAFETY: takes no pointers. Nothing uses the descriptors that are closed here: from now on there is only the
    // guest, and what its devices need was kept.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        Ok(())
    } else {
        Err(format!("Could not close descriptors: {}", std::io::Error::last_os_error()))
    }
}
