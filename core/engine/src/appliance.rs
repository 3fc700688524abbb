//! What operators ask of the machine itself, where the host is an appliance. The control plane passes it on: the machine
//! does it, and remembers it.

use alloc::vec::Vec;

use petrel_wire::operator::{Refusal, Response, Table};
use petrel_wire::shim::{Fault, Op, Reply};
use petrel_wire::{ApplianceOp, Blob};

use crate::Engine;
use crate::policy::Grant;
use crate::session::Asker;
use crate::shim_client::{Handled, Nonsense, Waiting};

impl Engine {
    pub(crate) fn appliance(&mut self, asker: Asker, grant: &Grant, op: ApplianceOp) {
        if !self.shim.is_ready() {
            return self.refuse(asker, Refusal::ShimAway);
        }
        if !self.shim.has_room(1) {
            return self.refuse(asker, Refusal::Full(Table::ShimRequests));
        }
        self.ask(grant, Op::Appliance(op), Waiting::Appliance(asker));
    }

    pub(crate) fn appliance_told(&mut self, asker: Asker, result: Result<Reply, Fault>) -> Handled {
        let response = match result {
            Ok(Reply::Done) => Response::Appliance(Blob::default()),
            Ok(Reply::Bytes(text)) => match Blob::try_from(&*text) {
                Ok(text) => Response::Appliance(text),
                Err(_) => return Err(Nonsense("a longer text of the machine than any")),
            },
            Ok(_) => return Err(Nonsense("another reply than one of the machine to what it was asked")),
            Err(Fault::NotFound) => Response::Refused(Refusal::NotAnAppliance),
            Err(fault) => Response::Refused(Refusal::Shim(fault)),
        };
        self.answer(asker, response);
        Ok(())
    }

    /// The link is lost: whoever waits for an answer of the machine gets none.
    pub(crate) fn appliance_lost(&mut self) {
        let askers: Vec<_> = self.shim.appliance_askers().collect();
        askers.into_iter().for_each(|asker| self.refuse(asker, Refusal::ShimAway));
    }
}
