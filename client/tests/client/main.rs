//! The client from outside: the program itself, and sessions with a real TLS peer on loopback that speaks the
//! control plane's side of the protocol.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

mod cert;
mod deploy;
mod init;
mod inspect;
mod peer;
mod session;
mod site;
mod solo5;
mod state;
mod storage;
mod supervise;
mod trust;
mod watch;
