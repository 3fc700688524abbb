//! The command line, split and read as MirageOS unikernels do.

mod cidr;
mod options;
mod split;

pub use cidr::{CidrError, Ipv4Cidr};
pub use options::{Command, Opt, Options, Usage};
pub use split::{SplitError, split};

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The guest's arguments. What is meant for Solo5's own bindings (leading `--solo5:` arguments) is left out.
///
/// # Errors
/// When the command line cannot be split: not UTF-8, or a quote or escape without its end.
pub fn list() -> Result<Vec<String>, Usage> {
    let text = core::str::from_utf8(crate::boot::cmdline());
    let text = text.map_err(|_| Usage::Error("the command line is not UTF-8".to_string()))?;
    let words = split(text).map_err(|error| Usage::Error(error.to_string()))?;
    Ok(words.into_iter().skip_while(|word| word.starts_with("--solo5:")).collect())
}
