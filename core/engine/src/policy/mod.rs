//! Who may do what. Only this module makes a [`Grant`], and nothing leaves for the shim without one.
//!
//! | file | what it holds |
//! |---|---|
//! | `authority` | what the certificates of a session permit |
//! | `admit` | whether every policy above a name allows what is asked for at it |
//! | `usage` | what there is below each path, kept as it changes |
//! | `settings` | what operators have set and revoked |
//! | `edge` | names on their way in and out of a session |
//! | `requests` | the requests about policies and certificates, and sessions that end by them |
//!
//! Presenting a certificate changes nothing: what a chain allows holds for its session's requests alone, beside what
//! operators have set. So an older certificate that allows more never widens what was narrowed later.

mod admit;
mod authority;
mod edge;
mod requests;
mod settings;
mod usage;

pub(crate) use admit::Asked;
pub(crate) use authority::Authority;
pub(crate) use edge::{Inward, Outward};
pub(crate) use requests::{PolicyListing, RevocationListing, expiry_deadline};
pub(crate) use settings::Settings;
pub(crate) use usage::Usage;

use alloc::sync::Arc;

use petrel_wire::operator::{ImageRequest, Refusal, Request, Right, VolumeRequest, Who};
use petrel_wire::{ApplianceOp, Path};

use crate::planted::{self, Planted};

/// Permission for one request's effects. It cannot be made elsewhere, nor copied.
#[derive(Debug)]
pub(crate) struct Grant(Option<Arc<Authority>>);

impl Grant {
    /// On whose behalf; `None` for the control plane's own.
    pub fn authority(&self) -> Option<&Arc<Authority>> {
        self.0.as_ref()
    }

    /// Who answers for what is done with it.
    pub fn who(&self) -> Who {
        self.0.as_ref().map_or(Who::ControlPlane, |authority| authority.who())
    }

    /// Below what all lies that it is for.
    pub fn scope(&self) -> Path {
        self.0.as_ref().map_or(Path::ROOT, |authority| authority.scope().clone())
    }
}

/// Whether the rights of a session permit `request`. Whether policies do is found out when all is known of it.
pub(crate) fn permit(authority: &Arc<Authority>, request: &Request) -> Result<Grant, Refusal> {
    if let Some(&right) = rights_for(request).iter().find(|right| !authority.rights().has(**right)) {
        return Err(Refusal::RightMissing(right));
    }
    if is_about_the_whole_host(request) && !authority.scope().is_root() {
        return Err(Refusal::OutsideScope);
    }
    Ok(Grant(Some(authority.clone())))
}

/// How full a table of `max` places may get by operators of `scope`: with one, they leave half of it to those without.
pub(crate) fn share(scope: &Path, max: usize) -> usize {
    if scope.is_root() { max } else { max / 2 }
}

/// For what the control plane does of its own accord: asking what there is, and ending what no operator has
/// been promised.
pub(crate) fn upkeep() -> Grant {
    Grant(None)
}

/// A state file holds everybody's names, and takes the place of everybody's policies. The store holds everybody's
/// images.
fn is_about_the_whole_host(request: &Request) -> bool {
    let passes = planted::is(Planted::ExportBeyondScope) && matches!(request, Request::StateExport);
    !passes
        && matches!(
            request,
            Request::Appliance(_)
                | Request::StateExport
                | Request::StateImport { .. }
                | Request::Image(ImageRequest::List | ImageRequest::Remove(_) | ImageRequest::Collect)
        )
}

/// What a request takes. Each is named, so that none is forgotten.
pub(crate) fn rights_for(request: &Request) -> &'static [Right] {
    match request {
        Request::Host
        | Request::Appliance(ApplianceOp::Status | ApplianceOp::Log)
        | Request::List
        | Request::Info(_)
        | Request::Console(_)
        | Request::Consoles
        | Request::Events(_)
        | Request::Stats(_)
        | Request::History(_)
        | Request::PolicyList(_)
        | Request::CertRevocations
        | Request::Image(ImageRequest::List | ImageRequest::Pull(_))
        | Request::Volume(VolumeRequest::List | VolumeRequest::Pull(_))
        | Request::StateExport => &[Right::Read],
        Request::Appliance(
            ApplianceOp::Reboot | ApplianceOp::PowerOff | ApplianceOp::Upgrade(_) | ApplianceOp::Confirm,
        )
        | Request::Create(_)
        | Request::Destroy(_)
        | Request::Start(_)
        | Request::Stop(_)
        | Request::Restart { .. }
        | Request::Update { .. }
        | Request::Rollback { .. }
        | Request::ImagePush { .. }
        | Request::Image(ImageRequest::Remove(_) | ImageRequest::Collect)
        | Request::Volume(
            VolumeRequest::Create { .. }
            | VolumeRequest::Push { .. }
            | VolumeRequest::Snapshot { .. }
            | VolumeRequest::Resize { .. }
            | VolumeRequest::Remove(_),
        ) => &[Right::Operate],
        Request::PolicySet { .. } | Request::PolicyRemove(_) | Request::CertRevoke { .. } => {
            &[Right::Delegate]
        }
        Request::StateImport { .. } => &[Right::Operate, Right::Delegate],
        // The rest of a request that was permitted, or of none.
        Request::Hello(_)
        | Request::ImageChunk(_)
        | Request::StateChunk(_)
        | Request::Volume(VolumeRequest::Chunk { .. } | VolumeRequest::PushEnd)
        | Request::Cancel => &[],
    }
}
