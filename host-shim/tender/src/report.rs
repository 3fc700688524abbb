//! What the tender says of itself, on standard error.

use crate::cli::USAGE;

/// Why there is no guest, in lines for people.
#[derive(Debug)]
pub struct Failure {
    lines: Vec<String>,
    usage: bool,
}

impl Failure {
    /// A failure that the usage message may help with.
    pub fn with_usage(text: impl Into<String>) -> Self {
        Self { usage: true, ..Self::from(text.into()) }
    }

    /// Prints it.
    pub fn print(&self) {
        for line in &self.lines {
            warn(line);
        }
        if self.usage {
            eprint!("{USAGE}");
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { lines: text.lines().map(Into::into).collect(), usage: false }
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Vec<String>> for Failure {
    fn from(lines: Vec<String>) -> Self {
        Self { lines, usage: false }
    }
}

/// Prints one line.
pub fn warn(text: &str) {
    eprintln!("petrel-tender: {text}");
}
