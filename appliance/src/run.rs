//! Other programs.

use std::process::{Command, Stdio};

/// Where programs are looked for: an ordinary user's path has no `sbin`.
pub fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// Runs a program to its end; what it wrote to its standard output.
pub fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let hint = "`make setup-appliance` installs what is needed";
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error} ({hint})"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
