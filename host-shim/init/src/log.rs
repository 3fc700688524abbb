//! What is said: on the console, and in a file for operators, who ask for it through the shim. It tells of this boot only.

use std::fmt::{Arguments, Display};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use petrel_wire::limits::APPLIANCE_TEXT_BYTES_MAX;
use rustix::time::{ClockId, clock_gettime};

use crate::limits::{KERNEL_RECORD_BYTES_MAX, LOG_LINE_BYTES_MAX};

const FILE: &str = "/run/log";
const KERNEL: &str = "/dev/kmsg";
/// What the kernel says of this severity and above is kept: warnings.
const KERNEL_LEVEL: u32 = 4;

/// One line at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Says one line of our own.
pub fn log(line: Arguments<'_>) {
    let line = format!("petrel-init: {line}");
    let _ = writeln!(io::stderr(), "{line}");
    keep(now_ms(), &line);
}

/// Passes on what another program says, line by line, until it ends.
pub fn pass_on(output: impl Read + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // One that never ends is passed on in parts.
        while (&mut output).take(LOG_LINE_BYTES_MAX).read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0)
        {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            let _ = writeln!(io::stderr(), "{text}");
            keep(now_ms(), text);
            line.clear();
        }
    })
}

/// Keeps the kernel's warnings from now on, and those since power on. It says them on the console itself.
pub fn keep_kernels() -> io::Result<JoinHandle<()>> {
    let mut records = File::open(KERNEL)?;
    Builder::new().spawn(move || {
        let mut bytes = [0; KERNEL_RECORD_BYTES_MAX];
        loop {
            match records.read(&mut bytes) {
                Ok(count) => {
                    if let Some((ms, text)) = kernels_warning(&String::from_utf8_lossy(&bytes[..count])) {
                        keep(ms, &format!("kernel: {text}"));
                    }
                }
                // Some were overwritten before we came to read them.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(_) => return,
            }
        }
    })
}

/// When the kernel said something that matters, and what. A record is `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`.
fn kernels_warning(record: &str) -> Option<(u64, &str)> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let us: u64 = fields.nth(1)?.parse().ok()?;
    // The rest of the number is who says it.
    let said = text.lines().next()?;
    // It writes the ends of its own lines so.
    let said = said.split("\\x0a").next().unwrap_or(said);
    (priority % 8 <= KERNEL_LEVEL).then_some((us / 1000, said))
}

/// Milliseconds since power on.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Keeps a line. That there is no room for it is no reason to say less on the console.
fn keep(ms: u64, text: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = append(Path::new(FILE), &line(ms, text), APPLIANCE_TEXT_BYTES_MAX);
}

/// It is shown on terminals, so it holds nothing that steers them.
fn line(ms: u64, text: &(impl Display + ?Sized)) -> String {
    let text = text.to_string().replace(char::is_control, " ");
    format!("[{:6}.{:03}] {text}\n", ms / 1000, ms % 1000)
}

/// Writes to the end of a file, whose older half goes when it would be longer than `bytes_max`. Who reads it meanwhile reads
/// whole lines, of the one or the other.
fn append(path: &Path, line: &str, bytes_max: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let bytes = file.metadata()?.len().saturating_add(line.len() as u64);
    if bytes > bytes_max as u64 {
        let text = fs::read(path)?;
        let newer = &text[text.len().saturating_sub(bytes_max / 2)..];
        let whole = newer.iter().position(|&byte| byte == b'\n').map_or(newer.len(), |end| end + 1);
        let new = path.with_extension("new");
        fs::write(&new, &newer[whole..])?;
        fs::rename(&new, path)?;
        file = OpenOptions::new().append(true).open(path)?;
    }
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_warnings_are_told_from_the_rest() {
        let record = "4,339,5140900,-;e1000e: Link is Down\n SUBSYSTEM=net\n DEVICE=n2\n";
        assert_eq!(kernels_warning(record), Some((5140, "e1000e: Link is Down")));
        // A driver's error has another facility in its upper bits.
        assert_eq!(kernels_warning("27,1,2000,-;udev"), Some((2, "udev")));
        assert_eq!(kernels_warning("4,2,3000,-;Unstable clock\\x0aIf you want"), Some((3, "Unstable clock")));
        assert_eq!(kernels_warning("6,340,5140900,-;random: crng init done"), None);
        for bad in ["", "4", "4;text", "a,b,c;text", "4,1,2000,-;"] {
            assert_eq!(kernels_warning(bad), None, "{bad}");
        }
    }

    #[test]
    fn lines_bear_their_time_and_steer_no_terminal() {
        assert_eq!(line(12_045, "petrel-init: \u{1b}[2Jgone\tso"), "[    12.045] petrel-init:  [2Jgone so\n");
    }

    #[test]
    fn the_last_lines_are_kept_whole() {
        let folder = std::env::temp_dir().join(format!("petrel-init-log-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("log");
        for number in 0..1000 {
            append(&file, &format!("line {number}\n"), 1000).unwrap();
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.len() <= 1000 && text.ends_with(&format!("line {number}\n")), "{text}");
            assert!(text.lines().all(|line| line.starts_with("line ")), "{text}");
        }
        assert!(fs::metadata(&file).unwrap().len() >= 490);
        fs::remove_dir_all(folder).unwrap();
    }
}
