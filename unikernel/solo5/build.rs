//! Puts the linker script where the linker looks for it.
//!
//! The target specification asks for the script by its bare name, so that it holds no path. A search path
//! given here reaches the link of every guest that depends on this crate. The script is copied into the build's own
//! folder, which Cargo finds again when a checkout has been moved.

use std::env;
use std::fs;
use std::path::PathBuf;

const SCRIPT: &str = "x86_64-solo5-hvt.ld";

fn main() {
    let folder = |variable| PathBuf::from(env::var_os(variable).expect("Cargo sets it"));
    let script = folder("CARGO_MANIFEST_DIR").join("../../target-specs").join(SCRIPT);
    let out = folder("OUT_DIR");
    fs::copy(&script, out.join(SCRIPT)).expect("the linker script can be copied");
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rerun-if-changed={}", script.display());
}
