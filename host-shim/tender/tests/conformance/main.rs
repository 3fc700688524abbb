//! `petrel-tender` held against Solo5 itself: upstream's test guests with the outcomes that upstream's tests.bats
//! expects, our images in upstream's own tools, bad input, and guests that mean harm.

mod guests;
mod hostile;
mod options;
mod reference;
mod refusals;
mod spt_guests;
mod support;
