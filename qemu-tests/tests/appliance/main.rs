//! What the appliance is and does, each story on a machine of its own.

mod faults;
mod fresh;
mod power;
