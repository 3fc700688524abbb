//! A host has no tender that could tell anything: no devices, and no command line.

use hvt_abi::manifest::Entry;

/// No devices.
pub fn manifest() -> &'static [Entry] {
    &[]
}

/// No arguments.
pub fn cmdline() -> &'static [u8] {
    &[]
}
