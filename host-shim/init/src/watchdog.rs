//! The machine's watchdog: it resets the machine when this process does not come round any more.

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::log;

const DEVICE: &str = "/dev/watchdog";

/// It is fed until it is dropped, and bites if that was no orderly end.
#[derive(Default)]
pub struct Watchdog(Option<File>);

impl Watchdog {
    pub fn open() -> Self {
        let device = OpenOptions::new().write(true).open(DEVICE);
        match &device {
            Ok(_) => log(format_args!("watchdog: armed")),
            Err(error) => log(format_args!("watchdog: none ({error})")),
        }
        Self(device.ok())
    }

    pub fn feed(&mut self) {
        if let Some(device) = &mut self.0 {
            let _ = device.write_all(b"\0");
        }
    }
}
