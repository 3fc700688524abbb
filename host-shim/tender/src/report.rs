//! What the tender says of itself, on standard error.

use std::fmt::{self, Display, Write};

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
            print(USAGE);
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
pub fn warn(text: impl Display) {
    print(format_args!("petrel-tender: {text}\n"));
}

/// Prints text as it is. Never fails and never allocates: a guest's last words are said when the tender is confined
/// already, and a standard error that is closed ends nobody.
pub fn print(text: impl Display) {
    let mut stderr = Stderr { pending: [0; 512], len: 0 };
    let _ = write!(stderr, "{text}");
    stderr.flush();
}

/// Standard error, with a line or so gathered before it is written.
struct Stderr {
    pending: [u8; 512],
    len: usize,
}

impl Stderr {
    fn flush(&mut self) {
        let _ = rustix::io::write(rustix::stdio::stderr(), self.pending.get(..self.len).unwrap_or_default());
        self.len = 0;
    }
}

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.len == self.pending.len() {
                self.flush();
            }
            if let Some(slot) = self.pending.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}
