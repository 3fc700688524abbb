//! A machine's serial console.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// What is put behind the last line of a machine that is off.
pub const OFF: &str = "(the machine is off)";

/// All that a machine has written, and when.
#[derive(Clone, Default)]
pub struct Console(Arc<Mutex<Vec<(Instant, String)>>>);

impl Console {
    /// Reads until the machine is off.
    pub fn of(output: impl Read + Send + 'static) -> Self {
        let console = Self::default();
        let lines = console.clone();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.0.lock().expect("no reader panics").push((Instant::now(), text));
                line.clear();
            }
            lines.0.lock().expect("no reader panics").push((Instant::now(), OFF.into()));
        });
        console
    }

    /// All of it, so far.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.0.lock().expect("no reader panics");
        lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The first line that holds `text`, and when it came, if it has.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<(Instant, String)> {
        let lines = self.0.lock().expect("no reader panics");
        lines.iter().find(|(_, line)| line.contains(text)).cloned()
    }

    /// All lines that hold `text`, each from there on.
    #[must_use]
    pub fn after(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock().expect("no reader panics");
        lines.iter().filter_map(|(_, line)| Some(line.split_once(text)?.1.to_owned())).collect()
    }

    /// Waits for a line that holds `text`.
    #[track_caller]
    #[must_use]
    pub fn until(&self, text: &str) -> (Instant, String) {
        let start = Instant::now();
        loop {
            if let Some(found) = self.find(text) {
                return found;
            }
            let is_over = self.find(OFF).is_some() || start.elapsed() > PATIENCE;
            assert!(!is_over, "the console never said {text:?}:\n{}", self.text());
            sleep(Duration::from_millis(20));
        }
    }
}
