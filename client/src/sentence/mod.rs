//! The sentences for people: what was wrong, what was expected, what to do.

mod policy;
mod refusal;
mod supervise;
mod tls;
mod volume;

use std::fmt;
use std::io;
use std::path::Path;

use petrel_wire::Name;
use petrel_wire::limits::OPERATOR_VERSION;

use crate::error::{Error, ImageProblem, ProfileFault};
pub use refusal::journal_fault;
pub(crate) use refusal::{refusal, shim};
pub(crate) use supervise::setback;
use tls::{not_petrel, tls};

/// A message in the one form that all have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// What was wrong.
    pub wrong: String,
    /// What was expected.
    pub expected: String,
    /// What to do.
    pub advice: String,
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.wrong, self.expected, self.advice)
    }
}

/// What a request was about, for sentences that name it.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The unikernel.
    pub name: Option<&'a Name>,
    /// The image, as the operator gave it.
    pub image: Option<&'a str>,
}

/// Makes a sentence of its three parts.
pub fn say(wrong: impl Into<String>, expected: impl Into<String>, advice: impl Into<String>) -> Sentence {
    Sentence { wrong: wrong.into(), expected: expected.into(), advice: advice.into() }
}

/// The sentence for an error.
pub fn of(error: &Error, about: &About<'_>) -> Sentence {
    match error {
        Error::Profile { path, fault } => profile(path, fault),
        Error::Image { path, fault } => image(path, fault),
        Error::File { path, source } => say(
            format!("{} failed ({source})", path.display()),
            "a local file that can be read or written",
            "correct the path, its owner and mode, or make room, and try again",
        ),
        Error::Digest { asked, received } => say(
            format!("what the host sent of {asked:?} has the digest {received}"),
            "the bytes that were uploaded",
            "try again; if it persists the image is damaged on the host: `petrel image rm` it, and upload it anew",
        ),
        Error::Connect { address, source } => connect(address, source),
        Error::Tls { address, fault } => tls(address, fault),
        Error::NotPetrel { address } => not_petrel(address),
        Error::Lost { address, greeted, source } => lost(address, *greeted, source.as_ref()),
        Error::Silent { address, seconds } => say(
            format!("{address} accepted the connection and then said nothing for {seconds} s"),
            "an answer from the control plane",
            "see whether the host is up and busy (an appliance that has stopped says why on its console), and whether \
             the profile's address is a control plane's; try again",
        ),
        Error::Protocol { address, what } => say(
            format!("{address} sent what no control plane sends: {what}"),
            format!("version {OPERATOR_VERSION} of Petrel's protocol"),
            "use the same release of Petrel on both sides, and report it if it persists",
        ),
        Error::Refused(reason) => refusal(reason, about),
    }
}

fn profile(path: &Path, fault: &ProfileFault) -> Sentence {
    let path = path.display();
    match fault {
        ProfileFault::Missing => say(
            format!("there is no profile file {path}"),
            "a profile as `petrel init` makes it",
            "name another with --profile NAME|PATH or $PETREL_PROFILE, or copy the host's profile there",
        ),
        ProfileFault::Read(error) => say(
            format!("the profile's file {path} cannot be read ({error})"),
            "a readable file",
            "correct its owner and mode, or name another profile with --profile",
        ),
        ProfileFault::TooLarge => say(
            format!("the profile's file {path} is far too large"),
            "a text file of a few hundred bytes",
            "copy the profile again from where `petrel init` made it",
        ),
        ProfileFault::Form(message) => say(
            format!("the profile {path} is not well-formed ({message})"),
            "TOML with address = \"10.0.0.2:1025\" and host = \"alpha\"",
            "correct the file",
        ),
        ProfileFault::Pem { expected } => say(
            format!("the profile's file {path} holds something else"),
            format!("{expected} in PEM"),
            "copy the profile again from where `petrel init` made it",
        ),
        ProfileFault::Identity(error) => say(
            format!("the operator's certificate {path} cannot be used ({error})"),
            "a certificate and the private key that belongs to it",
            "copy both again from where they were made",
        ),
        ProfileFault::NoHome => say(
            format!("there is nowhere to look for the profile {path}"),
            "$XDG_CONFIG_HOME or $HOME to be set",
            "set one of them, or give the profile's path with --profile",
        ),
    }
}

fn image(path: &Path, fault: &ImageProblem) -> Sentence {
    let shown = path.display();
    match fault {
        ImageProblem::Read(error) if error.kind() == io::ErrorKind::NotFound => say(
            format!("there is no file {shown}"),
            "the path of an image, or sha256: and the digest of one that the host has",
            "correct the path",
        ),
        ImageProblem::Read(error) => {
            say(format!("{shown} cannot be read ({error})"), "a readable file", "correct its owner and mode")
        }
        ImageProblem::NotAFile => say(
            format!("{shown} is not a regular file"),
            "an image's file",
            "give the path of the image itself",
        ),
        ImageProblem::Refused { refusal: reason, detail } => {
            let path = shown.to_string();
            let mut sentence = refusal(reason, &About { name: None, image: Some(&path) });
            if !detail.is_empty() {
                sentence.wrong = format!("{} ({detail})", sentence.wrong);
            }
            sentence
        }
    }
}

fn connect(address: &str, error: &io::Error) -> Sentence {
    let expected = "a control plane that listens there";
    match error.kind() {
        io::ErrorKind::ConnectionRefused => say(
            format!("{address} refused the connection"),
            expected,
            "see whether petrel-shim runs on the host and its control plane is up (an appliance says on its console why \
             not), and whether the port is right",
        ),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => say(
            format!("{address} did not answer in time"),
            expected,
            "see whether the host is up (an appliance that has stopped says why on its console) and no filter lies between",
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => say(
            format!("{address} cannot be reached from here ({error})"),
            expected,
            "see whether the host is up and this machine has a route to it",
        ),
        _ => say(
            format!("no connection to {address} ({error})"),
            expected,
            "correct the address in the profile (IPV4:PORT or NAME:PORT)",
        ),
    }
}

fn lost(address: &str, greeted: bool, source: Option<&io::Error>) -> Sentence {
    let how = source.map(|error| format!(" ({error})")).unwrap_or_default();
    if greeted {
        return say(
            format!("the connection to {address} ended early{how}"),
            "the whole answer",
            "see with `petrel ps` what was done, and try again",
        );
    }
    say(
        format!("{address} closed the connection before it greeted{how}"),
        "a greeting",
        "correct the address in the profile; a control plane that is full or starts just now does this too: try \
         again. An appliance that has stopped says why on its console",
    )
}
