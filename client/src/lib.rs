//! Petrel's client: everything behind the `petrel` command.
//!
//! A program that wants to talk to a control plane needs three of its modules: [`profile`] says where the host is
//! and who is asking, [`session`] holds the connection, [`error`] tells what went wrong.
//!
//! ```no_run
//! # fn main() -> Result<(), petrel::Error> {
//! use petrel_wire::operator::Request;
//! let profile = petrel::Profile::load("/home/ada/.config/petrel/alpha".as_ref())?;
//! let mut session = petrel::Session::connect(&profile)?;
//! let answer = session.request(Request::Host)?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod appliance;
mod apply;
mod args;
mod cert;
pub mod cli;
pub mod console;
mod create;
pub mod error;
mod failure;
mod help;
pub mod image;
mod init;
mod json;
mod keys;
mod limits;
pub mod manifest;
mod policy;
pub mod profile;
mod progress;
mod seal;
pub mod sentence;
pub mod session;
mod show;
mod state;
mod stats;
mod storage;
mod supervise;
mod time;
mod trust;
mod units;
mod watch;

pub use error::{Error, Exit};
pub use image::Image;
pub use profile::Profile;
pub use session::Session;
