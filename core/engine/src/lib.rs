//! Petrel's decisions.
//!
//! The [`Engine`] is a pure function of its inputs: it has no socket, no clock, no device, no TLS, no
//! randomness. The driver (the unikernel, a simulator, a fuzzer) calls [`Engine::handle`] with what happened and
//! when, then takes [`Engine::poll_output`] until it is empty, and comes back at [`Engine::poll_at`] at the latest.
//!
//! | room | what it does |
//! |---|---|
//! | `engine` | the tables, and where each input goes |
//! | `session` | operators' sessions: hello, requests, answers |
//! | `stream` | answers in pieces, within each session's credit |
//! | `policy` | who may do what; the only maker of a `Grant`, without which nothing leaves for the shim |
//! | `record`, `state` | what can change, and what there is |
//! | `journal` | what is kept of it through any crash; no output leaves before its records |
//! | `shim_client` | the link: requests, replies, events |
//! | `adopt` | what runs when the link opens |
//! | `upload`, `images`, `store` | images on their way to the host, what is known of those there, and which can go |
//! | `volumes` | what block devices store on |
//! | `download` | volumes and images on their way to a client |
//! | `create` | what is checked before a unikernel, or a new generation of one, is taken in |
//! | `unikernel` | one unikernel: what it shall be, was, and is at the shim |
//! | `supervise` | keeps each at what it is wished to be |
//! | `console`, `consoles` | what is kept of guests' output, and of whose |
//! | `events` | what happened and who did it |
//! | `stats`, `procfs` | what unikernels use, asked of the shim when an operator asks, in the kernel's words |
//! | `inspect`, `planted` | for the simulator: how full the tables are, and faults that its checkers must find |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod adopt;
mod appliance;
mod console;
mod consoles;
mod create;
mod download;
mod engine;
mod events;
mod images;
#[cfg(feature = "inspect")]
mod inspect;
mod io;
mod journal;
mod limits;
mod planted;
mod policy;
mod procfs;
mod record;
mod session;
mod shim_client;
mod state;
mod stats;
mod store;
mod stream;
mod supervise;
mod unikernel;
mod upload;
mod volumes;

pub use engine::Engine;
#[cfg(feature = "inspect")]
pub use inspect::Table;
pub use io::{Config, Input, Level, Now, Output, Peer, ProbeId, ProbeKind, SessionId, StateDevice};
#[cfg(feature = "inspect")]
pub use journal::reseal;
#[cfg(feature = "planted")]
pub use planted::{Planted, plant};
