//! What is fed with anything.
//!
//! Each of [`TARGETS`] takes any bytes and must neither panic nor break what it promises. libFuzzer feeds them without
//! end (`make fuzz`), the test of this crate a little and always the same.
#![forbid(unsafe_code)]

mod certificate;
mod console;
mod frame;
mod journal;
mod manifest;

/// Something that takes any bytes.
pub struct Target {
    /// What it is called; the program in `fuzz/fuzz_targets` has the same name.
    pub name: &'static str,
    /// Takes them.
    pub feed: fn(&[u8]),
    /// Real ones, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target { name: "certificate", feed: certificate::feed, seeds: certificate::seeds },
    Target { name: "console", feed: console::feed, seeds: console::seeds },
    Target { name: "frame", feed: frame::feed, seeds: frame::seeds },
    Target { name: "journal", feed: journal::feed, seeds: journal::seeds },
    Target { name: "manifest", feed: manifest::feed, seeds: manifest::seeds },
];

/// Feeds the target of this name.
///
/// # Panics
/// If there is none, and if the target is found at fault.
pub fn feed(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("one of the targets");
    (target.feed)(bytes);
}
