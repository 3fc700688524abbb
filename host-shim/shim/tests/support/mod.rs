//! A host in a network namespace of the test's own: a bridge, a real shim, and a peer that plays the control plane.

mod peer;
mod site;

pub use peer::{Keys, Peer, sha256, spawn};
pub use site::{GUEST, Site, inside, interface_exists, interface_index};
