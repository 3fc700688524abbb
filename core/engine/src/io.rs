//! What goes into the [`Engine`](crate::Engine) and what comes out of it.

use alloc::{string::String, vec::Vec};

use core::net::Ipv4Addr;

use petrel_wire::{
    HttpPath, Label,
    operator::{Address, ServerMessage},
    shim,
};

/// What does not change while the engine lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the host is called.
    pub host: Label,
    /// The release of the control plane (major, minor, patch).
    pub release: [u16; 3],
}

/// The block device "state", on which the engine keeps what it knows.
#[derive(Clone, Copy, Debug)]
pub struct StateDevice {
    /// Its size.
    pub bytes: u64,
    /// What is read and written at once, or a multiple of it.
    pub block_bytes: usize,
    /// A random number that is new at each start.
    pub seed: u64,
}

/// The time, as the driver tells it with each input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since some fixed moment; never goes back.
    pub monotonic_ns: u64,
    /// The wall clock, in milliseconds since 1970; may jump.
    pub wall_ms: u64,
}

/// An operator's connection. Chosen by the driver; not used again before [`Input::SessionClosed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// Whom the TLS layer authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The certificate's common name, for the log.
    pub name: String,
    /// The certificates from the peer's own upwards, DER.
    pub chain: Vec<Vec<u8>>,
}

/// A probe that the driver carries out. Chosen by the engine, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId(pub u64);

/// What a probe tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A TCP connection: it succeeds when it is established.
    Tcp,
    /// An HTTP GET: it succeeds with a status of 200 to 399.
    Http {
        /// For what.
        path: HttpPath,
    },
}

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// An operator's TLS handshake is complete.
    SessionOpened {
        /// Which connection.
        session: SessionId,
        /// Who it is.
        peer: Peer,
    },
    /// An operator's client sent a frame.
    SessionFrame {
        /// Which connection.
        session: SessionId,
        /// The frame's payload, not yet decoded.
        payload: &'a [u8],
    },
    /// An operator's client sent a frame's header over the cap; nothing after it can be read.
    SessionFrameTooLong {
        /// Which connection.
        session: SessionId,
        /// What the header said, in bytes.
        claimed: u32,
    },
    /// Bytes towards an operator's client have left: streams that waited may go on.
    SessionDrained {
        /// Which connection.
        session: SessionId,
        /// The bytes that are still queued.
        queued: usize,
    },
    /// A connection is over, whoever ended it.
    SessionClosed {
        /// Which.
        session: SessionId,
    },
    /// The TLS handshake with the shim is complete.
    LinkOpened,
    /// The link to the shim is over.
    LinkClosed,
    /// The shim sent a frame.
    LinkFrame {
        /// The frame's payload, not yet decoded.
        payload: &'a [u8],
    },
    /// A probe has come to its end.
    Probed {
        /// Which.
        id: ProbeId,
        /// Whether it succeeded.
        passed: bool,
    },
    /// The control plane has this address on the operators' network from now on, or none.
    Addressed(Option<Address>),
    /// The last [`Output::Persist`] could not be carried out. To be told before any later output is taken.
    StateFailed,
}

/// Something to be done outside. In order, per connection; and nothing before an earlier [`Output::Persist`] is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to an operator's client.
    ToSession {
        /// Over which connection.
        session: SessionId,
        /// What.
        message: ServerMessage,
    },
    /// Close an operator's connection after what is queued for it has been sent. The engine has forgotten it.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// Send this to the shim.
    ToShim(shim::Request),
    /// The shim fell silent or answered nonsense: close the link at once and open another.
    /// The engine has forgotten it and ignores what still comes over it.
    ResetLink,
    /// Try whether something answers on net "service", and tell by [`Input::Probed`] once, when the time is over at
    /// the latest.
    Probe {
        /// Which probe.
        id: ProbeId,
        /// What to try.
        kind: ProbeKind,
        /// Where.
        address: Ipv4Addr,
        /// At which TCP port.
        port: u16,
        /// How long it may take, in milliseconds.
        timeout_ms: u32,
    },
    /// Write this to the block device "state". It is done when it is on the disk: with any part of it there, a power
    /// cut does no harm, but only then may the outputs behind it leave.
    Persist {
        /// Where, in bytes from the device's beginning; a multiple of its block size.
        offset: u64,
        /// What: whole blocks.
        data: Vec<u8>,
    },
    /// Something for the log.
    Log {
        /// How much it matters.
        level: Level,
        /// What happened, on one line.
        line: String,
    },
}

/// How much a line of the log matters; the names are those of MirageOS's Logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something that should not happen, and that somebody has to look at.
    Error,
    /// Something unexpected that Petrel copes with.
    Warning,
    /// What an operator wants to read later.
    Info,
    /// What helps to understand Petrel.
    Debug,
}
