//! Guest bindings for Solo5's hvt interface, in pure Rust.
//!
//! A guest is one program on one CPU without interrupts: it starts, runs, sleeps in [`yield_until`], and ends. This
//! crate holds all the `unsafe` that takes; a guest itself can forbid it:
//!
//! ```ignore
//! #![cfg_attr(target_os = "solo5", no_std, no_main)]
//! #![forbid(unsafe_code)]
//!
//! solo5::manifest! { net "service", block "data" }
//! solo5::main!(run);
//!
//! fn run() {
//!     solo5::println!("hello");
//! }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`] | the command line, and options as MirageOS unikernels take them |
//! | [`console`] | `print!` and `println!` |
//! | [`clock`] | monotonic and wall-clock time |
//! | [`net`], [`block`] | devices, each acquired once by its name |
//! | `ethernet` | a network device as smoltcp's link layer (feature `smoltcp`) |
//! | [`entropy`] | the CPU's random numbers |
//!
//! The heap is the global allocator, so `alloc` works. On a host the crate compiles too, with the same API, so that
//! what depends on it can be checked and its pure parts tested there; whatever needs a tender panics.

#![no_std]

extern crate alloc;
#[cfg(not(target_os = "solo5"))]
extern crate std;

pub mod args;
pub mod block;
pub mod clock;
pub mod console;
mod device;
pub mod entropy;
#[cfg(feature = "smoltcp")]
pub mod ethernet;
mod hypercall;
mod lifecycle;
#[cfg_attr(not(target_os = "solo5"), expect(dead_code, reason = "some bound what only a guest has"))]
mod limits;
mod macros;
pub mod net;
mod note;
mod poll;

#[cfg(target_os = "solo5")]
mod abort;
#[cfg(target_os = "solo5")]
mod boot;
#[cfg(not(target_os = "solo5"))]
#[path = "boot_host.rs"]
mod boot;
#[cfg(target_os = "solo5")]
mod memory;
#[cfg(any(target_os = "solo5", test))]
mod ticks;
#[cfg(target_os = "solo5")]
mod traps;

pub use block::Block;
pub use device::IoError;
pub use lifecycle::{Outcome, Status, exit};
pub use net::Net;
pub use poll::{ReadySet, yield_until};

/// What the macros of this crate expand to. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::lifecycle::finish;
    pub use crate::note::note_words;
    pub use hvt_abi::manifest::Entry;
    pub use hvt_abi::note::Mft1Note;
    #[cfg(not(target_os = "solo5"))]
    pub use std::{eprintln, process::exit};
}
