//! The console: one call of [`print!`](crate::print) or [`println!`](crate::println) is one hypercall, up to
//! 1,024 bytes, so lines stay whole for whoever reads them at the other end.
//!
//! Nothing here allocates or locks: the panic and exception handlers print too.

use crate::limits::CONSOLE_WRITE_BYTES;
use core::fmt::{Arguments, Write};

/// Writes `bytes` as they are, in one hypercall.
#[cfg(target_os = "solo5")]
pub fn write(bytes: &[u8]) {
    use crate::hypercall;
    use hvt_abi::hypercall::Puts;
    let mut puts = Puts { data: hypercall::address_of(bytes), len: bytes.len() as u64 };
    // SAFETY: data and len are those of a slice borrowed for the whole call; the tender only reads it.
    unsafe { hypercall::call(&mut puts) };
}

/// Writes `bytes` to the host program's standard output.
#[cfg(not(target_os = "solo5"))]
pub fn write(bytes: &[u8]) {
    std::print!("{}", alloc::string::String::from_utf8_lossy(bytes));
}

/// Collects what is formatted, and hands it over when full and at the end.
struct Buffer {
    bytes: [u8; CONSOLE_WRITE_BYTES],
    used: usize,
}

impl Buffer {
    fn flush(&mut self) {
        write(&self.bytes[..self.used]);
        self.used = 0;
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            let free = &mut self.bytes[self.used..];
            let (now, later) = rest.split_at(rest.len().min(free.len()));
            free[..now.len()].copy_from_slice(now);
            self.used += now.len();
            rest = later;
        }
        Ok(())
    }
}

/// Prints `text` as it is formatted.
pub fn write_fmt(text: Arguments<'_>) {
    let mut buffer = Buffer { bytes: [0; CONSOLE_WRITE_BYTES], used: 0 };
    // A Display implementation that fails loses the rest of its text; there is nobody to tell.
    let _ = buffer.write_fmt(text);
    if buffer.used > 0 {
        buffer.flush();
    }
}

/// Prints `text` and ends the line.
pub fn write_line(text: Arguments<'_>) {
    write_fmt(format_args!("{text}\n"));
}

/// Prints to the console, in one hypercall up to 1,024 bytes.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::write_fmt(::core::format_args!($($arg)*)) };
}

/// Prints a line to the console, in one hypercall up to 1,024 bytes.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => { $crate::console::write_line(::core::format_args!($($arg)*)) };
}
