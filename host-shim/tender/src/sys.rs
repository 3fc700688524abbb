//! What Linux offers and no library offers safely: one small function each, safe for the reason given in it.

use std::ffi::{c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Ends the process at once: no destructors, no buffers, one system call.
pub fn exit(status: i32) -> ! {
    // SAFETY: only ends the process.
    unsafe { libc::_exit(status & 0xff) }
}

/// The time-stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: every x86_64 CPU has the instruction, and Linux leaves it to user mode.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Frequency of a virtual machine's time-stamp counter in kHz; an error where KVM tells it of virtual CPUs only.
pub fn vm_tsc_khz(vm: &impl AsRawFd) -> Result<u32, Errno> {
    /// `_IO(KVMIO, 0xa3)` of linux/kvm.h.
    const KVM_GET_TSC_KHZ: libc::Ioctl = 0xaea3;
    // SAFETY: takes no argument.
    let khz = i64::from(unsafe { libc::ioctl(vm.as_raw_fd(), KVM_GET_TSC_KHZ) });
    check(khz)?;
    u32::try_from(khz).map_err(|_| Errno::RANGE)
}

/// Closes the descriptors `first` to `last`, both included. For a process that has only its guest left to live for:
/// the caller keeps what that needs.
pub fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Takes over a descriptor that whoever started this process opened for it.
pub fn inherited(fd: RawFd) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: used for one call only, which the kernel answers with BADF if the descriptor is not open.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) })?;
    // SAFETY: just checked to be open. It was opened for a device by whoever started us, so nothing else here owns
    // it; devices live as long as the process, which is when it is closed.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sees to it that descriptors 0 to 2 are open: in place of one that is not, a disk could become the console.
pub fn standard_descriptors() -> Result<(), Errno> {
    for fd in 0..=2 {
        // SAFETY: used for one call only, which the kernel answers with BADF if the descriptor is not open.
        if rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }) == Err(Errno::BADF) {
            // The lowest number that is free is this one. It stays open for good.
            let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
            let _ = null.into_raw_fd();
        }
    }
    Ok(())
}

/// What a signal does.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// What the kernel does by itself.
    Default,
    /// Nothing.
    Ignore,
    /// Calls this, on the alternate stack where there is one. It may use nothing but system calls.
    Call(extern "C" fn(c_int)),
}

/// Says what `signal` does from now on.
pub fn on_signal(signal: c_int, action: Action) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid sigaction: no flags, nothing blocked.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    match action {
        Action::Default => new.sa_sigaction = libc::SIG_DFL,
        Action::Ignore => new.sa_sigaction = libc::SIG_IGN,
        Action::Call(handler) => {
            new.sa_sigaction = handler as usize;
            new.sa_flags = libc::SA_ONSTACK;
        }
    }
    // SAFETY: `new` is valid, and a handler is told what it may do.
    check(unsafe { libc::sigaction(signal, &raw const new, std::ptr::null_mut()) }.into())
}

/// Overwrites the environment, where a guest that can read this process's memory would find it.
pub fn forget_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut c_char;
    }
    // SAFETY: the C library keeps `environ` a null-terminated array of strings, or null. Nothing here changes the
    // environment, so they lie where the kernel put them, in writable memory, and no other thread looks at them.
    unsafe {
        let mut variable = environ;
        while !variable.is_null() && !(*variable).is_null() {
            let text = *variable;
            std::ptr::write_bytes(text, 0, libc::strlen(text));
            *variable = std::ptr::null_mut();
            variable = variable.add(1);
        }
    }
}

/// Denies this process all files, all TCP ports, and all other processes, as far as this kernel's Landlock can; but to make
/// files in that folder, if there is one. Descriptors that are open stay of use.
pub fn landlock(new_files_in: Option<BorrowedFd>) -> Result<(), Errno> {
    const VERSION: u32 = 1;
    /// `struct landlock_ruleset_attr`: what is denied where no rule allows it.
    #[repr(C)]
    struct Handled {
        files: u64,
        ports: u64,
        scopes: u64,
    }
    /// `struct landlock_path_beneath_attr`: what is allowed below a folder.
    #[repr(C, packed)]
    struct Beneath {
        files: u64,
        folder: RawFd,
    }
    const PATH_BENEATH: u32 = 1;
    const MAKE_REG: u64 = 1 << 8;
    // SAFETY: asks for the version, which takes no pointer.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Handled>(), 0, VERSION) };
    check(version)?;
    // The kernel refuses what it does not know, so each version names its own: linux/landlock.h.
    let files = (1 << [13, 14, 15, 15].get(usize::try_from(version - 1).unwrap_or(0)).unwrap_or(&16)) - 1;
    let (ports, scopes) = (if version >= 4 { 3 } else { 0 }, if version >= 6 { 3 } else { 0 });
    let handled = Handled { files, ports, scopes };
    // SAFETY: the kernel reads as many bytes as it is told `handled` has.
    let rules = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<Handled>(), 0)
    };
    check(rules)?;
    let fd = RawFd::try_from(rules).map_err(|_| Errno::BADF)?;
    // SAFETY: just opened, so it is ours alone.
    let _rules = unsafe { OwnedFd::from_raw_fd(fd) };
    if let Some(folder) = new_files_in {
        let beneath = Beneath { files: MAKE_REG, folder: folder.as_raw_fd() };
        // SAFETY: the kernel reads what this type of rule has, which is `beneath`.
        let added =
            unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, PATH_BENEATH, &raw const beneath, 0) };
        check(added)?;
    }
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, 0) })
}

/// Puts a system-call filter in force for this process and all its threads, for good.
pub fn seccomp(program: &mut [libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which `filter` describes and which outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            std::ptr::from_ref(&filter),
        )
    })
}

/// A request about a network interface.
pub struct InterfaceRequest(libc::ifreq);

impl InterfaceRequest {
    /// About the interface with this name; the empty name where the kernel is to fill it in.
    pub fn new(name: &str) -> Result<Self, Errno> {
        if name.len() >= libc::IFNAMSIZ {
            return Err(Errno::NAMETOOLONG);
        }
        // SAFETY: ifreq is made of integers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = c_char::from_ne_bytes([from]);
        }
        Ok(Self(request))
    }

    /// The interface's name, as the kernel has left it.
    pub fn name(&self) -> String {
        let name = self.0.ifr_name.iter().take_while(|&&c| c != 0);
        name.map(|&c| char::from(c.cast_unsigned())).collect()
    }

    /// Asks about or of a tap (`TUNSETIFF`, `TUNGETIFF`) or a socket (`SIOCGIFFLAGS`): flags go in and come out.
    pub fn flags(&mut self, fd: &OwnedFd, number: libc::Ioctl, flags: i32) -> Result<i32, Errno> {
        self.0.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| Errno::RANGE)?;
        self.call(fd, number)?;
        // SAFETY: this member was initialised above, and all these calls leave it so.
        Ok(i32::from(unsafe { self.0.ifr_ifru.ifru_flags }))
    }

    /// Asks a socket for a number (`SIOCGIFMTU`).
    pub fn number(&mut self, fd: &OwnedFd, number: libc::Ioctl) -> Result<i32, Errno> {
        self.0.ifr_ifru.ifru_mtu = 0;
        self.call(fd, number)?;
        // SAFETY: as above.
        Ok(unsafe { self.0.ifr_ifru.ifru_mtu })
    }

    fn call(&mut self, fd: &OwnedFd, number: libc::Ioctl) -> Result<(), Errno> {
        // SAFETY: all ioctls used here (SIOCGIF*, TUN*IFF) read and write at most one ifreq.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(&mut self.0)) }.into())
    }
}

/// A socket to ask about interfaces with.
pub fn interface_socket() -> Result<OwnedFd, Errno> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd.into())?;
    // SAFETY: just opened, so it is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The error that a C library call left behind, if its result says that there is one.
fn check(result: i64) -> Result<(), Errno> {
    match result {
        0.. => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
