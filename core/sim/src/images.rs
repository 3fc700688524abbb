//! The images that operators have: small, whole but for code, made once for all worlds.

use std::sync::{Arc, OnceLock};

use petrel_wire::{Digest, operator::DeviceKind};

// The engine's tests build the same.
#[allow(clippy::cast_possible_truncation, missing_docs, unreachable_pub)]
#[path = "../../engine/tests/engine/image.rs"]
mod build;

use build::{BLOCK, NET, Recipe};

/// An image, or what somebody takes for one.
#[derive(Debug)]
pub struct Image {
    /// The whole file.
    pub bytes: Arc<[u8]>,
    /// What it is called.
    pub digest: Digest,
    /// The devices that its manifest declares.
    pub devices: Vec<(&'static str, DeviceKind)>,
    /// Whether a monitor of the hosts runs it.
    pub runs: bool,
    /// It ends as soon as it is started.
    pub crashes: bool,
}

/// How many there are.
pub const COUNT: usize = 30;

/// All of them. The first is the simplest; the first two run.
pub fn all() -> &'static [Image] {
    static ALL: OnceLock<Vec<Image>> = OnceLock::new();
    ALL.get_or_init(|| (0..COUNT).map(image).collect())
}

fn image(number: usize) -> Image {
    let plain = Recipe { padding: 16 * number, ..Recipe::default() };
    let devices: &[(&str, u32)] = match number % 5 {
        1 => &[("net0", NET)],
        2 => &[("net0", NET), ("net1", NET)],
        3 => &[("disk", BLOCK), ("net0", NET)],
        _ => &[],
    };
    let recipe = match number {
        4 => Recipe { target: build::SPT, ..plain },
        5 => Recipe { version: 9, ..plain },
        6 => Recipe { notes_at: 24 * 1024, devices, ..plain },
        7 => Recipe { end: 0x300_0000, devices, ..plain },
        _ => Recipe { devices, ..plain },
    };
    let bytes = if number == 8 { vec![b'#'; 3000] } else { build::build(&recipe) };
    let kind = |kind| if kind == NET { DeviceKind::Net } else { DeviceKind::Block };
    Image {
        digest: build::digest(&bytes),
        bytes: bytes.into(),
        devices: recipe.devices.iter().map(|&(name, number)| (name, kind(number))).collect(),
        runs: !matches!(number, 4 | 5 | 8),
        crashes: number % 7 == 3,
    }
}
