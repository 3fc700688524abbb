//! Who may do what. Only this module makes a [`Grant`], and nothing leaves for the shim without one.
//!
//! Now every operator whose certificate chains to the operators' CA may do everything. The peer's chain and the
//! whole request come in here, so policies that nest along the chain need no other place.

use petrel_wire::operator::{Refusal, Request};

use crate::Peer;

/// Permission for one request's effects. It cannot be made elsewhere, nor copied.
#[derive(Debug)]
pub(crate) struct Grant(());

/// Whether `peer` may have `request` carried out.
pub(crate) fn permit(_peer: &Peer, _request: &Request) -> Result<Grant, Refusal> {
    Ok(Grant(()))
}

/// For what the control plane does of its own accord: asking what there is, and ending what no operator has
/// been promised.
pub(crate) fn upkeep() -> Grant {
    Grant(())
}
