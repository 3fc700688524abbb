//! What the shim checks, as pure functions of a request, the host and the ledger. The program (`main.rs`) carries out
//! what passes; a simulated host can do the same.
#![forbid(unsafe_code)]

pub mod check;
pub mod ledger;
