//! A host in a network namespace of the test's own: a bridge, a real shim, and a peer that plays the control plane.

#![allow(dead_code, unused_imports, reason = "each program of tests uses a part of it")]

mod peer;
mod site;

pub use peer::{Keys, Peer, sha256, spawn};
pub use site::{GUEST, Site, inside, interface_exists, interface_index};
