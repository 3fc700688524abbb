//! What the appliance is and does, each story on a machine of its own.

mod conformance;
mod faults;
mod fresh;
mod guests;
mod power;
mod upgrade;
mod upstream;
