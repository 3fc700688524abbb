//! The engine, driven from outside by a script: a host that makes the shim's own checks on the one side,
//! operators' clients on the other.
#![expect(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

mod appliance;
mod chain;
mod console;
mod create;
mod destroy;
mod disk;
mod events;
mod garbage;
mod generations;
mod host;
mod image;
mod images;
mod journal;
mod link;
mod order;
mod policy;
mod policy_generations;
mod policy_model;
mod policy_volumes;
mod probes;
mod restart;
mod sessions;
mod state_files;
mod stats;
mod store;
mod transfers;
mod volumes;
mod walk;
mod world;
