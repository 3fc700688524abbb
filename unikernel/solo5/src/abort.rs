//! What breaks a guest is told on the console, in Solo5's format, and ends it with status 255.

use crate::lifecycle::{Status, halt};
use crate::println;
use core::fmt::Display;
use core::panic::{Location, PanicInfo};
use hvt_abi::GuestAddr;

/// Ends the guest; see [`halt`] for `cookie`.
pub fn abort(location: &Location<'_>, message: &dyn Display, cookie: GuestAddr) -> ! {
    println!("Solo5: ABORT: {}:{}: {message}", location.file(), location.line());
    halt(Status::ABORT, cookie)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let location = info.location().unwrap_or(Location::caller());
    abort(location, &info.message(), GuestAddr::NULL)
}
