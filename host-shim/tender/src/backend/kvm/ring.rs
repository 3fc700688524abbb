//! Network I/O without leaving the guest: a ring that guest and tender share, and a thread that serves it.
//!
//! It lies beyond the guest's memory, where no hypercall's pointer may point. The guest writes to it at any time, so each
//! request is copied before it is looked at, and each of its pointers is checked as a hypercall's would be.

use std::mem::offset_of;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::thread;

use hvt_abi::boot::GUEST_PAGE_SIZE;
use hvt_abi::hypercall::{RING_KICK_PORT, ret};
use hvt_abi::manifest::MAX_ENTRIES;
use hvt_abi::ring::{Commit, Entry, NET_READ, NET_WRITE, POLLS, Ring, SLOTS};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use rustix::thread::sched_getaffinity;
use vmm_sys_util::eventfd::EventFd;

use crate::confine::{Rule, arg};
use crate::devices::{Attached, FRAME_MAX, received, sent};
use crate::hypercalls::Fault;
use crate::memory::{Access, GuestMemory, Map, usize_from};
use crate::report::warn;
use crate::sys;

/// Bytes beyond the guest's memory: the ring, in whole pages.
pub const RING_BYTES: u64 = GUEST_PAGE_SIZE;
const _: () = assert!(size_of::<Ring>() as u64 <= RING_BYTES);

/// What wakes the thread: the guest's kicks, which never reach the tender itself.
pub struct Kick(EventFd);

impl Kick {
    /// Has KVM send kicks there; nothing where it cannot.
    pub fn new(vm: &VmFd) -> Option<Kick> {
        let event = EventFd::new(libc::EFD_CLOEXEC).ok()?;
        vm.register_ioevent(&event, &IoEventAddress::Pio(RING_KICK_PORT.into()), NoDatamatch).ok()?;
        Some(Kick(event))
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The system call that waits for it.
    pub fn rule(&self) -> Rule {
        let when = vec![arg(0).eq(self.descriptor()), arg(2).eq(size_of::<u64>() as u64)];
        Rule { call: libc::SYS_read, when, why: "waits for requests in the network's ring" }
    }

    /// Starts the thread, and returns when it needs no system calls any more but for requests.
    pub fn serve(&self, memory: &GuestMemory, devices: &Attached) -> Result<(), String> {
        let mut nets = [None; MAX_ENTRIES];
        for (handle, fd) in devices.nets() {
            nets[usize_from(handle)] = Some(fd.as_raw_fd());
        }
        let (map, ring, kick) = (memory.map(), memory.size(), self.descriptor());
        // On the only CPU that there is, the guest makes no request while this thread looks for one.
        let alone = sched_getaffinity(None).is_ok_and(|cpus| cpus.count() == 1);
        let polls = if alone { 1 } else { POLLS };
        let mut server = Server { map, ring, nets, kick, polls, taken: 0, answered: 0 };
        let ready = Arc::new(AtomicBool::new(false));
        let told_ready = ready.clone();
        thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || {
                told_ready.store(true, Ordering::Release);
                server.run()
            })
            .map_err(|error| format!("Could not start network thread: {error}"))?;
        while !ready.load(Ordering::Acquire) {
            thread::yield_now();
        }
        Ok(())
    }
}

/// Who serves the ring.
struct Server {
    map: Map,
    /// The ring's guest-physical address.
    ring: u64,
    /// The net devices' descriptors by handle.
    nets: [Option<RawFd>; MAX_ENTRIES],
    kick: RawFd,
    /// How often to look for requests before it sleeps.
    polls: u32,
    /// Requests taken and answers given, of which the ring holds copies.
    taken: u32,
    answered: u32,
}

impl Server {
    fn run(&mut self) -> ! {
        loop {
            let made = self.await_requests();
            if let Err(fault) = self.take(made) {
                warn(&fault);
                sys::exit(1);
            }
        }
    }

    /// Returns how many requests were made, once there are some that were not taken.
    fn await_requests(&self) -> u32 {
        let made = self.counter(offset_of!(Ring, ent_tail));
        let needs_kick = self.counter(offset_of!(Ring, needs_kick));
        loop {
            for _ in 0..self.polls {
                match made.load(Ordering::Acquire) {
                    count if count != self.taken => return count,
                    _ => std::hint::spin_loop(),
                }
            }
            needs_kick.store(1, Ordering::Relaxed);
            // The guest stores its count, then looks whether to kick; we the other way round: one of us sees the other.
            fence(Ordering::SeqCst);
            if made.load(Ordering::Relaxed) == self.taken {
                let mut kicks = [0_u8; size_of::<u64>()];
                // SAFETY: there is room for as many bytes.
                let _ = unsafe { sys::read(self.kick, kicks.as_mut_ptr(), kicks.len()) };
            }
            needs_kick.store(0, Ordering::Relaxed);
        }
    }

    fn take(&mut self, made: u32) -> Result<(), Fault> {
        if made.wrapping_sub(self.taken) > SLOTS {
            return Err(Fault::Ring { made, taken: self.taken });
        }
        while self.taken != made {
            let entry: Entry = self.read_slot(offset_of!(Ring, entries), self.taken);
            match entry.operation {
                NET_WRITE => self.send(&entry)?,
                NET_READ => self.receive(&entry)?,
                _ => {}
            }
            self.taken = self.taken.wrapping_add(1);
            self.counter(offset_of!(Ring, ent_head)).store(self.taken, Ordering::Release);
        }
        Ok(())
    }

    fn net(&self, entry: &Entry) -> Option<RawFd> {
        *self.nets.get(usize::try_from(entry.handle).ok()?)?
    }

    fn send(&self, entry: &Entry) -> Result<(), Fault> {
        let len = usize_from(entry.len.into());
        let Some(net) = self.net(entry).filter(|_| len <= FRAME_MAX) else { return Ok(()) };
        let from = self.map.check(entry.data, entry.len.into(), Access::Read)?;
        // SAFETY: `check` found so many bytes there. That the guest may change them meanwhile is the kernel's to bear.
        sent(unsafe { sys::write(net, from, len) }, len).map(|_| ())
    }

    fn receive(&mut self, entry: &Entry) -> Result<(), Fault> {
        let mut commit = Commit { id: entry.id, ret: ret::EINVAL, ..Commit::default() };
        if let Some(net) = self.net(entry) {
            let to = self.map.check(entry.data, entry.len.into(), Access::Write)?;
            let room = usize_from(entry.len.into()).min(FRAME_MAX);
            // SAFETY: as in `send`.
            let len = received(unsafe { sys::read(net, to, room) })?;
            commit.ret = if len.is_some() { ret::OK } else { ret::AGAIN };
            commit.len = len.and_then(|len| u32::try_from(len).ok()).unwrap_or(0);
        }
        self.write_slot(offset_of!(Ring, commits), self.answered, commit);
        self.answered = self.answered.wrapping_add(1);
        self.counter(offset_of!(Ring, com_tail)).store(self.answered, Ordering::Release);
        Ok(())
    }

    fn counter(&self, offset: usize) -> &AtomicU32 {
        let at = self.map.pointer(self.ring + offset as u64).cast();
        // SAFETY: within the ring, which is mapped beyond the guest's memory, and aligned. On this side only atomics are used
        // for it.
        unsafe { AtomicU32::from_ptr(at) }
    }

    fn read_slot<T: Copy>(&self, array: usize, count: u32) -> T {
        // SAFETY: `slot` points into the ring. Whatever bits the guest has left there are a `T` of integers.
        unsafe { self.slot::<T>(array, count).read_volatile() }
    }

    fn write_slot<T: Copy>(&self, array: usize, count: u32, value: T) {
        // SAFETY: as above.
        unsafe { self.slot::<T>(array, count).write_volatile(value) }
    }

    /// Where the ring has this slot of the array at this offset.
    fn slot<T>(&self, array: usize, count: u32) -> *mut T {
        let offset = array + usize_from((count % SLOTS).into()) * size_of::<T>();
        self.map.pointer(self.ring + offset as u64).cast()
    }
}
