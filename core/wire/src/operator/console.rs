//! What is asked of consoles, and what is told of them.

use serde::{Deserialize, Serialize};

use crate::Name;

/// Which part of which console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleAsked {
    /// Whose console; the unikernel may be no more.
    pub name: Name,
    /// Whether to go on with what comes, until the unikernel has ended.
    pub follow: bool,
    /// Only what arrived since then.
    pub since: Option<Since>,
    /// Of what is kept, only so many lines at its end.
    pub tail: Option<u32>,
    /// Only what the present start of the unikernel wrote, or the last one.
    pub latest: bool,
}

/// A moment, by the clock of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Since {
    /// So many milliseconds ago.
    Ago(u64),
    /// In milliseconds since 1970.
    At(u64),
}

impl Since {
    /// In milliseconds since 1970, when it is `now_ms`.
    pub fn wall_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(ms) => now_ms.saturating_sub(ms),
            Self::At(wall_ms) => wall_ms,
        }
    }
}

/// A console of which something is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleBrief {
    /// The unikernel's name.
    pub name: Name,
    /// Whether there is a unikernel of this name; it may have ended.
    pub exists: bool,
    /// The bytes that are kept.
    pub bytes: u64,
    /// The lines that end in them.
    pub lines: u64,
    /// When the oldest and the newest of them arrived: the host's clock, in milliseconds since 1970.
    pub arrived_ms: Option<(u64, u64)>,
}
