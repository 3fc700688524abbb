//! Orders for the machine itself, where it is an appliance: they are passed on to petrel-init.

use std::{fs, io, io::Write, os::unix::fs::OpenOptionsExt};

use petrel_shim::check::Refusal;
use petrel_wire::{ApplianceOp, shim::Reply};

pub fn pass_on(op: ApplianceOp) -> Result<Reply, Refusal> {
    if op == ApplianceOp::Status {
        let status = fs::read("/run/petrel/status")?;
        let status = petrel_wire::Blob::try_from(&*status);
        return Ok(Reply::Bytes(status.map_err(|_| io::Error::from(rustix::io::Errno::FBIG))?));
    }
    // petrel-init has it open; should it not, this does not wait for it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut orders = fs::File::options().write(true).custom_flags(flags).open("/run/petrel/orders")?;
    orders.write_all(format!("{op}\n").as_bytes())?;
    Ok(Reply::Done)
}
