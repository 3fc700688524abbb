//! Every bound of this crate.

/// Bytes at the top of memory that the stack may use; half of what is free where less than twice this is.
pub const STACK_BYTES: usize = 1 << 20;

/// Least memory between image and end, heap and stack together, that a guest starts with; as upstream.
pub const FREE_BYTES_MIN: usize = 512 << 10;

/// Bytes of console output handed over in one hypercall: a longer line takes several.
pub const CONSOLE_WRITE_BYTES: usize = 1024;

/// Bytes of each stack that exceptions are handled on.
pub const TRAP_STACK_BYTES: usize = 8 << 10;

/// Bytes of an Ethernet header, which a device's MTU does not count.
pub const ETHERNET_HEADER_BYTES: usize = 14;

/// The least MTU that IPv4 allows a network to have: RFC 791.
#[cfg(feature = "smoltcp")]
pub const MTU_MIN: usize = 576;

/// Tries at each of the CPU's random number instructions before it is taken to be out of order. Intel's guide
/// asks for 10; RDSEED runs dry for longer, under load.
pub const RANDOM_TRIES: u32 = 64;
