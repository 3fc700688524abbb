//! What happened lately, for people: written down only when a failure is run again.

use std::collections::VecDeque;

/// The lines that are kept.
const LINES_MAX: usize = 100_000;

/// The latest events.
#[derive(Default)]
pub struct Trace {
    on: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// A trace that is written, or not.
    pub fn new(on: bool) -> Self {
        Self { on, lines: VecDeque::new() }
    }

    /// Notes a line, which is made only if it is wanted.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(shortened(&line()));
    }

    /// The lines, the oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

/// Long lists of bytes say little.
pub fn shortened(line: &str) -> String {
    const LIST_MAX: usize = 80;
    let mut parts = line.split("Blob([");
    let mut short = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.split_once("])") {
            Some((bytes, rest)) if bytes.len() > LIST_MAX => {
                short += &format!("Blob({} bytes){rest}", bytes.split(',').count());
            }
            _ => short += &format!("Blob([{part}"),
        }
    }
    short
}
