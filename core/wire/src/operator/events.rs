//! What happened, and who did it.

use alloc::boxed::Box;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::{ReadOnly, Refusal, Revocable, Setback, Since};
use crate::limits::EVENT_KINDS_ASKED_MAX;
use crate::shim::Fault;
use crate::{CommonName, Digest, ExitStatus, Label, List, Name, Path, Probe};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// One more than that of the event before, over all starts of the control plane.
    pub sequence: u64,
    /// When: the host's clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Who did it.
    pub who: Who,
    /// What happened.
    pub what: What,
    /// The unikernel, volume or path that it happened to; the root if it did to none.
    pub about: Path,
}

/// Who does something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// The control plane of its own accord, or what runs on the host.
    ControlPlane,
    /// An operator.
    Operator {
        /// The certificate's common name.
        name: CommonName,
        /// What the certificate is for. To somebody whose own does not hold it: the root.
        scope: Path,
    },
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAsked {
    /// Whether to go on with what happens.
    pub follow: bool,
    /// Only what is about this path, or below it.
    pub path: Path,
    /// Only what happened since then.
    pub since: Option<Since>,
    /// Only of these [`KINDS`]; of all when empty.
    pub kinds: List<Label, EVENT_KINDS_ASKED_MAX>,
    /// Of what is kept, only so many: the latest.
    pub limit: Option<u32>,
}

/// Makes the enumeration of what can happen, and from it the kinds' words, so that neither is without the other.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $variant:ident $(($($field:ty),*))? = $kind:literal,)*) => {
        /// What happened.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum What {
            $($(#[doc = $doc])* $variant $(($($field),*))?,)*
        }

        /// The kinds of events, in the words that [`EventsAsked::kinds`] takes.
        pub const KINDS: &[&str] = &[$($kind),*];

        impl What {
            /// Its kind, one of [`KINDS`].
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $kind,)* }
            }
        }
    };
}

kinds! {
    /// The control plane has started; its release.
    ControlPlaneStarted([u16; 3]) = "control-plane-started",
    /// The shim is connected and has told what runs; its release.
    ShimConnected([u16; 3]) = "shim-connected",
    /// The link to the shim is gone.
    ShimLost = "shim-lost",
    /// An operator has opened a session.
    SessionOpened = "session-opened",
    /// A session was refused, or ended as its client did not keep to the protocol.
    SessionRefused(Box<Refusal>) = "session-refused",
    /// A unikernel is to be, from this image.
    Created(Digest) = "created",
    /// A unikernel could not be started, and nothing is left of it.
    CreateFailed(Box<Refusal>) = "create-failed",
    /// A unikernel's monitor runs, as this process.
    Started(u32) = "started",
    /// A unikernel could not be started.
    StartFailed(Box<Refusal>) = "start-failed",
    /// A unikernel is ready.
    Ready = "ready",
    /// A unikernel does not answer its liveness probe; how often in a row.
    NotAlive(Box<Probe>, u32) = "not-alive",
    /// A unikernel that has ended is started again, not before so many milliseconds have passed.
    BackOff(u64) = "back-off",
    /// A unikernel is to be started, or started anew.
    Starting = "starting",
    /// A unikernel is to be stopped.
    Stopping = "stopping",
    /// A unikernel is stopped.
    Stopped = "stopped",
    /// This generation of a unikernel is to be.
    Updating(u32) = "updating",
    /// This generation of a unikernel has done well.
    Updated(u32) = "updated",
    /// A generation of a unikernel was given up for another one, and why.
    RolledBack(u32, u32, Setback) = "rolled-back",
    /// A control plane that has lost its memory has found it running.
    Adopted = "adopted",
    /// A unikernel has ended.
    Exited(ExitStatus) = "exited",
    /// A unikernel is to be destroyed.
    Destroying = "destroying",
    /// Nothing is left of a unikernel.
    Destroyed = "destroyed",
    /// A unikernel could not be ended: it stays as it is.
    EndFailed(Fault) = "end-failed",
    /// A unikernel has not ended, so many seconds after it was killed.
    NotEnding(u32) = "not-ending",
    /// The host has got an image.
    ImageStored(Digest) = "image-stored",
    /// An image that was uploaded is not kept.
    ImageRefused(Digest, Box<Refusal>) = "image-refused",
    /// The host has an image no more.
    ImageRemoved(Digest) = "image-removed",
    /// A volume was made, of so many bytes.
    VolumeCreated(u64) = "volume-created",
    /// A volume was made from content that an operator has sent, or got it anew; how many bytes.
    VolumePushed(u64) = "volume-pushed",
    /// A volume was made as a copy of another one.
    VolumeCopied(Option<Name>) = "volume-copied",
    /// A volume has so many bytes now.
    VolumeResized(u64) = "volume-resized",
    /// A volume was removed.
    VolumeRemoved = "volume-removed",
    /// A volume was not changed as it was to be.
    VolumeFailed(Box<Refusal>) = "volume-failed",
    /// A volume's file is not there any more.
    VolumeMissing = "volume-missing",
    /// What all that lies below a path may have was set.
    PolicySet = "policy-set",
    /// What was set for a path was taken back.
    PolicyRemoved = "policy-removed",
    /// Certificates that a CA of a path has signed, or one below, were revoked.
    CertificateRevoked(Revocable) = "certificate-revoked",
    /// The journal can be written no longer: changes are refused from here on.
    JournalFailed(ReadOnly) = "journal-failed",
    /// What is known was replaced by a state file; how many records that holds.
    StateImported(u32) = "state-imported",
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlPlane => f.write_str("the control plane"),
            Self::Operator { name, scope } if scope.is_root() => f.write_str(name),
            Self::Operator { name, scope } => write!(f, "{name} of {scope}"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlPlaneStarted([a, b, c]) => {
                write!(f, "the control plane has started, release {a}.{b}.{c}")
            }
            Self::ShimConnected([a, b, c]) => write!(f, "the shim is connected, release {a}.{b}.{c}"),
            Self::ShimLost => f.write_str("the link to the shim is gone"),
            Self::SessionOpened => f.write_str("session opened"),
            Self::SessionRefused(refusal) => write!(f, "session refused: {refusal:?}"),
            Self::Created(image) => write!(f, "created from {image:?}"),
            Self::CreateFailed(refusal) => write!(f, "not created: {refusal:?}"),
            Self::Started(pid) => write!(f, "started as process {pid}"),
            Self::StartFailed(refusal) => write!(f, "not started: {refusal:?}"),
            Self::Ready => f.write_str("ready"),
            Self::NotAlive(probe, failures) => write!(f, "not alive: {probe} failed {failures} times"),
            Self::BackOff(ms) => write!(f, "to be started again in {ms} ms"),
            Self::Starting => f.write_str("to be started"),
            Self::Stopping => f.write_str("to be stopped"),
            Self::Stopped => f.write_str("stopped"),
            Self::Updating(number) => write!(f, "generation {number} is to be"),
            Self::Updated(number) => write!(f, "generation {number} has done well"),
            Self::RolledBack(failed, from, why) => {
                write!(f, "generation {failed} is given up for {from}: {why:?}")
            }
            Self::Adopted => f.write_str("found running and taken over"),
            Self::Exited(status) => write!(f, "ended: {status}"),
            Self::Destroying => f.write_str("to be destroyed"),
            Self::Destroyed => f.write_str("destroyed"),
            Self::EndFailed(fault) => write!(f, "could not be ended: {fault:?}"),
            Self::NotEnding(seconds) => write!(f, "has not ended {seconds} s after it was killed"),
            Self::ImageStored(digest) => write!(f, "image {digest:?} stored"),
            Self::ImageRefused(digest, refusal) => write!(f, "image {digest:?} not kept: {refusal:?}"),
            Self::ImageRemoved(digest) => write!(f, "image {digest:?} removed"),
            Self::VolumeCreated(bytes) => write!(f, "volume created, {bytes} bytes"),
            Self::VolumePushed(bytes) => write!(f, "volume filled, {bytes} bytes"),
            Self::VolumeCopied(Some(from)) => write!(f, "volume created as a copy of {from}"),
            Self::VolumeCopied(None) => f.write_str("volume created as a copy"),
            Self::VolumeResized(bytes) => write!(f, "volume resized to {bytes} bytes"),
            Self::VolumeRemoved => f.write_str("volume removed"),
            Self::VolumeFailed(refusal) => write!(f, "volume not changed: {refusal:?}"),
            Self::VolumeMissing => f.write_str("the volume's file is missing"),
            Self::PolicySet => f.write_str("policy set"),
            Self::PolicyRemoved => f.write_str("policy removed"),
            Self::CertificateRevoked(what) => write!(f, "certificate revoked: {what:?}"),
            Self::JournalFailed(reason) => {
                write!(f, "the journal cannot be written, changes are refused from here on: {reason:?}")
            }
            Self::StateImported(records) => write!(f, "replaced by a state file with {records} records"),
        }
    }
}

/// As a line of a log, which has the time already.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.about.is_root() {
            write!(f, "{}: ", self.about)?;
        }
        write!(f, "{}", self.what)?;
        match self.who {
            Who::ControlPlane => Ok(()),
            Who::Operator { .. } => write!(f, ", by {}", self.who),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString, vec, vec::Vec};

    use super::*;
    use crate::{
        frame,
        limits::{BRIDGES_MAX, EVENTS_PAGE_MAX},
        operator::{Response, ServerMessage},
    };

    #[test]
    fn a_kind_is_a_label_and_none_is_there_twice() {
        let mut sorted = KINDS.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), KINDS.len());
        assert!(KINDS.iter().all(|kind| kind.parse::<Label>().is_ok()));
        assert_eq!(What::Exited(ExitStatus::Unknown).kind(), "exited");
    }

    #[test]
    fn an_event_is_a_line_of_the_log() {
        let mut event = Event {
            sequence: 1,
            wall_ms: 0,
            who: Who::Operator { name: CommonName::lossy("ada"), scope: "acme".parse().unwrap() },
            what: What::Destroying,
            about: "acme:web".parse().unwrap(),
        };
        assert_eq!(event.to_string(), "acme:web: to be destroyed, by ada of acme");
        (event.who, event.about) = (Who::ControlPlane, Path::ROOT);
        assert_eq!(event.to_string(), "to be destroyed");
    }

    #[test]
    fn the_largest_page_of_events_fits_a_frame() {
        let long = |length: usize| -> Path {
            format!("{}:{}", "n".repeat(63), "n".repeat(length - 64)).parse().unwrap()
        };
        let known: Vec<_> = (0..BRIDGES_MAX).map(|i| format!("b{i:014}").parse().unwrap()).collect();
        let refusal = Refusal::BridgeUnknown {
            bridge: "b".repeat(15).parse().unwrap(),
            known: known.try_into().unwrap(),
        };
        let event = Event {
            sequence: u64::MAX,
            wall_ms: u64::MAX,
            who: Who::Operator { name: CommonName::lossy(&"a".repeat(64)), scope: long(127) },
            what: What::ImageRefused(Digest([0xff; 32]), refusal.into()),
            about: long(127),
        };
        let page = vec![event; EVENTS_PAGE_MAX].try_into().unwrap();
        let message = ServerMessage { id: u32::MAX, response: Response::Events(page) };
        assert_eq!(frame::encode(&message, &mut Vec::new()), Ok(()));
    }
}
