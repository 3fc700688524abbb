//! Orders for the machine itself, where it is an appliance: they are passed on to petrel-init.

use std::{fs, io, io::Write, os::unix::fs::OpenOptionsExt};

use petrel_shim::check::Refusal;
use petrel_wire::{ApplianceOp, Blob, shim::Reply};
use rustix::{fs::OFlags, io::Errno};

const STATUS: &str = "/run/petrel/status";
const LOG: &str = "/run/log";
const ORDERS: &str = "/run/petrel/orders";

pub fn pass_on(op: ApplianceOp) -> Result<Reply, Refusal> {
    let told = match op {
        ApplianceOp::Status => Some(STATUS),
        ApplianceOp::Log => Some(LOG),
        _ => None,
    };
    if let Some(file) = told {
        let text = Blob::try_from(&*fs::read(file)?);
        return Ok(Reply::Bytes(text.map_err(|_| io::Error::from(Errno::FBIG))?));
    }
    // petrel-init has it open; should it not, this does not wait for it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut orders = fs::File::options().write(true).custom_flags(flags).open(ORDERS)?;
    orders.write_all(format!("{op}\n").as_bytes())?;
    Ok(Reply::Done)
}
