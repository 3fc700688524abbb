//! Puts the linker script where the linker looks for it.
//!
//! The target specification asks for the script by its bare name, so that it holds no path. A search path
//! given here reaches the link of every guest that depends on this crate.

use std::path::Path;

fn main() {
    let specs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target-specs");
    println!("cargo::rustc-link-search=native={}", specs.display());
    println!("cargo::rerun-if-changed={}", specs.join("x86_64-solo5-hvt.ld").display());
}
