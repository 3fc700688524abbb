//! A simulator that tries to break the control plane.
//!
//! A seed makes a world: the real engine; a host with the shim's real checks and ledger, whose processes, taps,
//! images and run records are simulated; the link between them; operators; clocks. Step by step something happens
//! that the seed decides: an operator asks, a guest exits, the link breaks, a program is killed in the middle of what
//! it does. After every step the checkers hold what was told and done against a model of what must be. Now
//! and then faults stop, and everything has to come to rest within a bounded time, with nothing left over.
//!
//! The same seed gives the same history. `docs/simulator.md` tells how to read a failure.
//!
//! | room | what it does |
//! |---|---|
//! | `random`, `plan` | chance; how often what happens in a seed's world |
//! | `world` | what happens |
//! | `host` | the simulated host, with the shim's own checks and ledger |
//! | `grants`, `tongue` | what operators' certificates say, and who may do what; names within a scope |
//! | `transfers` | the content of volumes and images on its way |
//! | `operator`, `asked`, `questions`, `images` | operators, what they ask, and what they have to run |
//! | `model` | what must be true: the checkers |
//! | `runner` | many seeds at once; a failure made smaller, and run again with a trace |
#![forbid(unsafe_code)]

mod asked;
mod grants;
mod host;
mod images;
mod model;
mod operator;
mod plan;
mod questions;
mod random;
mod runner;
mod tongue;
mod trace;
mod transfers;
mod world;

pub use plan::Event;
pub use runner::{Failure, History, Options, Summary, run, run_many, shrink, state_after};
pub use world::Counts;
