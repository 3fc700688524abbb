//! petrel.hvt without its hypercalls: everything here compiles and is tested on the host as well.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plane`] | one turn of the loop: devices, sessions, link and engine |
//! | [`link`], [`session`], [`table`] | the connection to the shim, an operator's connection, all of those |
//! | [`probe`] | whether unikernels answer |
//! | [`conversation`] | frames in TLS in TCP, for both |
//! | [`tls`] | one TLS connection, bytes in and bytes out; no other module knows which library does it |
//! | [`net`] | one network device with its TCP sockets; no other module knows smoltcp's interface |
//! | [`disk`] | the block device that the engine's state is kept on |
//! | [`options`], [`boot`] | the arguments; from arguments and seal to a control plane |
//! | [`log`], [`limits`], [`queue`] | the log's format, this program's bounds, a queue of bytes |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
pub mod conversation;
pub mod disk;
pub mod limits;
pub mod link;
pub mod log;
pub mod net;
pub mod options;
pub mod plane;
pub mod probe;
pub mod queue;
pub mod session;
pub mod table;
pub mod tls;

#[cfg(test)]
mod tests;
