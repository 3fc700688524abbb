//! A progress bar on stderr, only where that is a terminal.

use std::io::{IsTerminal, Write};

use crate::units;

const WIDTH: usize = 30;

/// How far an upload or a download is.
pub struct Progress {
    verb: &'static str,
    total: u64,
    shown_percent: Option<u64>,
    visible: bool,
}

impl Progress {
    /// A bar for so many bytes that are being `verb`, which appears with its first update.
    pub fn new(verb: &'static str, total: u64) -> Self {
        Self { verb, total, shown_percent: None, visible: std::io::stderr().is_terminal() }
    }

    /// So many bytes are done. Drawn only when the percentage has changed: a terminal is slower than a network.
    pub fn update(&mut self, done: u64) {
        let percent = percent(done, self.total);
        if self.visible && self.shown_percent != Some(percent) {
            self.shown_percent = Some(percent);
            // A terminal that cannot be written to is no reason to give an upload up.
            let _ = write!(std::io::stderr(), "\r{}\x1b[K", line(self.verb, done, self.total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown_percent.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn percent(done: u64, total: u64) -> u64 {
    done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100)
}

fn line(verb: &str, done: u64, total: u64) -> String {
    let percent = percent(done, total);
    let bar = "#".repeat(usize::try_from(percent).unwrap_or(100) * WIDTH / 100);
    let (done, total) = (units::size(done), units::size(total));
    format!("{verb} [{bar:<WIDTH$}] {percent:>3} %  {done} of {total}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_how_much_of_how_much() {
        let half = line("uploading", 1024, 2048);
        assert_eq!(
            half,
            format!("uploading [{}{}]  50 %  1.0 KiB of 2.0 KiB", "#".repeat(15), " ".repeat(15))
        );
        assert!(line("uploading", 0, 0).contains("100 %"));
    }
}
