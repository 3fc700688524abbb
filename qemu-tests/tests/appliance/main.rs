//! What the appliance is and does, each story on a machine of its own.
//!
//! They are run in the order of their names, two at a time: the longest, `by_uefi`, is the first.

mod by_uefi;
mod conformance;
mod faults;
mod fresh;
mod guests;
mod power;
mod upstream;
