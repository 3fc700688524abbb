//! Fills a block device with a pattern, and checks what is on it.

#![cfg_attr(target_os = "solo5", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod pattern;

use alloc::string::String;
use alloc::vec;

use pattern::{SEED_BYTES_MAX, fill};
use solo5::args::{Command, Opt, Usage};
use solo5::{Block, IoError, Status, clock, println, yield_until};

solo5::manifest! { block "data" }
solo5::main!(run);

/// The device did something that disks do not do.
const BROKEN: Status = Status(1);
/// What is on the device is not what was expected.
const DIFFERENT: Status = Status(2);

static COMMAND: Command = Command {
    name: "disk",
    about: "Fills its block device with a pattern, and checks what is on it.",
    options: &[
        Opt {
            long: "check",
            short: None,
            value: "SEED",
            help: "Check that the pattern of this seed is on every block. Exit code 2 if it is not.",
        },
        Opt {
            long: "fill",
            short: None,
            value: "SEED",
            help: "Write the pattern of this seed to every block, and read it back; after --check.",
        },
        Opt {
            long: "stay",
            short: None,
            value: "SECONDS",
            help: "Live on for so long when that is done; 0 when absent.",
        },
    ],
};

fn run() -> Result<Status, Usage> {
    let options = COMMAND.parse()?;
    let (check, fill): (Option<String>, Option<String>) = (options.value("check")?, options.value("fill")?);
    let stay_s: u32 = options.value("stay")?.unwrap_or(0);
    if let Some(seed) = [&check, &fill].into_iter().flatten().find(|seed| seed.len() > SEED_BYTES_MAX) {
        return Err(options.error(alloc::format!("the seed '{seed}' is longer than {SEED_BYTES_MAX} bytes")));
    }
    let mut disk =
        Block::acquire("data").ok_or_else(|| options.error("there is no block device \"data\""))?;
    println!("disk: {} bytes in blocks of {}", disk.capacity(), disk.block_size());
    let done = check_all(&mut disk, check.as_deref()).and_then(|()| fill_all(&mut disk, fill.as_deref()));
    if let Err(status) = done {
        return Ok(status);
    }
    stay(stay_s);
    Ok(Status::SUCCESS)
}

fn check_all(disk: &mut Block, seed: Option<&str>) -> Result<(), Status> {
    let Some(seed) = seed else { return Ok(()) };
    each_block(disk, |disk, offset, expected, found| {
        fill(seed, offset, expected);
        disk.read(offset, found)?;
        Ok(found == expected)
    })?;
    println!("disk: every block has the pattern of {seed}");
    Ok(())
}

fn fill_all(disk: &mut Block, seed: Option<&str>) -> Result<(), Status> {
    let Some(seed) = seed else { return Ok(()) };
    each_block(disk, |disk, offset, written, found| {
        fill(seed, offset, written);
        disk.write(offset, written)?;
        disk.read(offset, found)?;
        Ok(found == written)
    })?;
    println!("disk: every block was given the pattern of {seed}");
    Ok(())
}

/// Visits every block with two buffers of its size, until `visit` says that one is not as it should be.
fn each_block(
    disk: &mut Block,
    mut visit: impl FnMut(&mut Block, u64, &mut [u8], &mut [u8]) -> Result<bool, IoError>,
) -> Result<(), Status> {
    let (mut one, mut other) = (vec![0; disk.block_size()], vec![0; disk.block_size()]);
    for offset in (0..disk.capacity()).step_by(disk.block_size()) {
        match visit(disk, offset, &mut one, &mut other) {
            Ok(true) => {}
            Ok(false) => {
                println!("disk: the block at {offset} has something else");
                return Err(DIFFERENT);
            }
            Err(error) => {
                println!("disk: the block at {offset}: {error}");
                return Err(BROKEN);
            }
        }
    }
    Ok(())
}

fn stay(seconds: u32) {
    let deadline_ns = clock::monotonic_ns() + u64::from(seconds) * 1_000_000_000;
    while clock::monotonic_ns() < deadline_ns {
        yield_until(deadline_ns);
    }
}
