//! The log, as MirageOS's Logs prints it: `2026-11-24T04:00:00-00:00: [INFO] [application] …`.

use core::fmt;

use petrel_engine::Level;

/// The name that our lines bear, and that `-l NAME:LEVEL` selects: MirageOS's name for a unikernel's own.
pub const SOURCE: &str = "application";

/// Where the lines go, and which.
#[derive(Clone, Copy)]
pub struct Log {
    threshold: Option<Level>,
    print: fn(fmt::Arguments<'_>),
}

impl Log {
    /// A log that gives its lines, without a newline, to `print`. With no threshold it is silent.
    pub fn new(threshold: Option<Level>, print: fn(fmt::Arguments<'_>)) -> Self {
        Self { threshold, print }
    }

    /// Writes a line if it matters enough.
    pub fn write(&self, level: Level, wall_ms: u64, line: fmt::Arguments<'_>) {
        if self.threshold.is_some_and(|threshold| level <= threshold) {
            let name = match level {
                Level::Error => "ERROR",
                Level::Warning => "WARNING",
                Level::Info => "INFO",
                Level::Debug => "DEBUG",
            };
            (self.print)(format_args!("{}: [{name}] [{SOURCE}] {line}", Timestamp(wall_ms / 1000)));
        }
    }
}

/// Seconds since 1970, shown as RFC 3339 with an unknown local offset.
struct Timestamp(u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil_date(days);
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}-00:00")
    }
}

/// The Gregorian date so many days after 1970-01-01. Counts in eras of 400 years, each year from March on, so
/// that the leap day is the last of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468; // since 0000-03-01
    let days = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use std::{cell::RefCell, string::String, thread_local};

    use super::*;

    #[test]
    fn timestamps_are_the_dates_that_everybody_else_sees() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00-00:00"),
            (951_782_400, "2000-02-29T00:00:00-00:00"),
            (951_868_800, "2000-03-01T00:00:00-00:00"),
            (1_795_492_800, "2026-11-24T04:00:00-00:00"),
            (4_107_542_399, "2100-02-28T23:59:59-00:00"),
            (4_107_542_400, "2100-03-01T00:00:00-00:00"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), expected);
        }
    }

    #[test]
    fn a_line_is_written_when_it_matters_enough() {
        thread_local!(static LINES: RefCell<String> = const { RefCell::new(String::new()) });
        let print =
            |line: fmt::Arguments<'_>| LINES.with_borrow_mut(|lines| *lines += &(line.to_string() + "\n"));
        for (threshold, expected) in
            [(None, ""), (Some(Level::Warning), "1970-01-01T00:00:01-00:00: [WARNING] [application] two\n")]
        {
            let log = Log::new(threshold, print);
            log.write(Level::Info, 1000, format_args!("one"));
            log.write(Level::Warning, 1000, format_args!("two"));
            assert_eq!(LINES.take(), expected);
        }
    }
}
