//! Who may do what. Only this module makes a [`Grant`], and nothing leaves for the shim without one.
//!
//! Now every operator whose certificate chains to the operators' CA may do everything. The peer's chain and the
//! whole request come in here, so policies that nest along the chain need no other place.

use petrel_wire::operator::{Refusal, Request, Who};

use crate::Peer;

/// Permission for one request's effects, with the name of whoever answers for them. It cannot be made elsewhere, nor
/// copied.
#[derive(Debug)]
pub(crate) struct Grant {
    who: Who,
}

impl Grant {
    /// Who answers for what is done with it.
    pub fn who(&self) -> Who {
        self.who.clone()
    }
}

/// Whether `peer` may have `request` carried out.
pub(crate) fn permit(peer: &Peer, _request: &Request) -> Result<Grant, Refusal> {
    Ok(Grant { who: peer.who() })
}

/// For what the control plane does of its own accord: asking what there is, and ending what no operator has
/// been promised.
pub(crate) fn upkeep() -> Grant {
    Grant { who: Who::ControlPlane }
}
