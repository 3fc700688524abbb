//! What can go wrong with a profile, an image or a session, and the exit codes it leads to.

use std::io;
use std::path::PathBuf;

use petrel_wire::operator::Refusal;

/// How the program ends; `petrel --help` documents the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The host refused, or failed at it.
    Refused = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No connection, or one of the two sides does not trust the other.
    Connection = 3,
    /// A local file, profile or image is the problem.
    Local = 4,
}

/// Why something was not done.
#[derive(Debug)]
pub enum Error {
    /// The profile cannot be used.
    Profile {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong with it.
        fault: ProfileFault,
    },
    /// The local file given as an image cannot be used.
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: ImageProblem,
    },
    /// A local file that is read or written on the way to or from a host failed.
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// What arrived is not the image that was asked for.
    Digest {
        /// The image that was asked for.
        asked: petrel_wire::Digest,
        /// The digest of what arrived.
        received: petrel_wire::Digest,
    },
    /// No connection came about.
    Connect {
        /// The host's address, as in the profile.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// TLS failed: at the handshake, or later by an alert.
    Tls {
        /// The host's address, as in the profile.
        address: String,
        /// Why.
        fault: rustls::Error,
    },
    /// The peer is a TLS server, but no control plane.
    NotPetrel {
        /// The host's address, as in the profile.
        address: String,
    },
    /// The connection ended early.
    Lost {
        /// The host's address, as in the profile.
        address: String,
        /// Whether the host had greeted before.
        greeted: bool,
        /// What the operating system says, if anything.
        source: Option<io::Error>,
    },
    /// The host kept silent for too long.
    Silent {
        /// The host's address, as in the profile.
        address: String,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The host sent what the protocol does not allow.
    Protocol {
        /// The host's address, as in the profile.
        address: String,
        /// What it sent.
        what: String,
    },
    /// The host refused the request.
    Refused(Refusal),
}

/// What is wrong with a profile.
#[derive(Debug)]
pub enum ProfileFault {
    /// It has not been found where it was looked for.
    Missing,
    /// A file cannot be read.
    Read(io::Error),
    /// A file is larger than any such file.
    TooLarge,
    /// `profile.toml` has another form.
    Form(String),
    /// A file does not hold the PEM that it should.
    Pem {
        /// What it should hold.
        expected: &'static str,
    },
    /// Certificate and key are unusable, or do not belong together.
    Identity(rustls::Error),
    /// Neither `$XDG_CONFIG_HOME` nor `$HOME` is set, so there is no folder to look in.
    NoHome,
}

/// What is wrong with a local image.
#[derive(Debug)]
pub enum ImageProblem {
    /// It cannot be read.
    Read(io::Error),
    /// It is a folder, a device or a pipe.
    NotAFile,
    /// The control plane would refuse it too, with these words.
    Refused {
        /// The control plane's words.
        refusal: Refusal,
        /// More about it than the wire carries; may be empty.
        detail: String,
    },
}

impl Error {
    /// The exit code that it leads to.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Profile { .. } | Self::Image { .. } | Self::File { .. } => Exit::Local,
            Self::Refused(_) | Self::Digest { .. } => Exit::Refused,
            Self::Connect { .. }
            | Self::Tls { .. }
            | Self::NotPetrel { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Protocol { .. } => Exit::Connection,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::sentence::of(self, &crate::sentence::About::default()).fmt(f)
    }
}

impl std::error::Error for Error {}
