//! Sizes and times for people.

use std::time::{SystemTime, UNIX_EPOCH};

const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];

/// A size with one decimal and a binary unit: `4.2 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Whole tenths of the unit, so that rounding never makes 1024.0 of a unit. The first shift leaves KiB.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A size as [`parse_size`] reads it, and exactly: `1G`, `1536M`, `513`.
pub fn exact(bytes: u64) -> String {
    let suffixes = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    match suffixes.into_iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, suffix)) => format!("{}{suffix}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Reads a size: bytes, or with a binary suffix as `512K`, `10M`, `4G`, `1T`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let expected =
        || "expected bytes, or a number with K, M, G or T, as 512M (1M is 1048576 bytes)".to_string();
    let (digits, shift) = match text.chars().last().map(|suffix| suffix.to_ascii_uppercase()) {
        Some('K') => (&text[..text.len() - 1], 10),
        Some('M') => (&text[..text.len() - 1], 20),
        Some('G') => (&text[..text.len() - 1], 30),
        Some('T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let digits = Some(digits).filter(|digits| digits.chars().all(|digit| digit.is_ascii_digit()));
    let number: u64 = digits.ok_or_else(expected)?.parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).ok_or_else(|| "more than any disk has".into())
}

/// A span of time by its largest unit: `42s`, `3m`, `5h`, `12d`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// How long ago `then_ms` was; clocks that differ make it no less than nothing.
pub fn age(then_ms: u64, now_ms: u64) -> String {
    span(now_ms.saturating_sub(then_ms))
}

/// A moment of UTC, to the second: `2026-11-24T18:49:12Z`.
pub fn date(ms: u64) -> String {
    let date = x509_cert::der::DateTime::from_unix_duration(std::time::Duration::from_secs(ms / 1000));
    date.map_or_else(|_| "after the year 9999".into(), |date| date.to_string())
}

/// Milliseconds since 1970 by this machine's clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        let told = [0, 1023, 1024, 4_404_019, 1 << 30, u64::MAX].map(size);
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "4.1 MiB", "1.0 GiB", "16777215.9 TiB"]);
    }

    #[test]
    fn sizes_are_read_with_binary_suffixes() {
        let read = ["0", "512", "1K", "10m", "4G", "16T"].map(parse_size);
        assert_eq!(read, [0, 512, 1024, 10 << 20, 4 << 30, 16 << 40].map(Ok));
        for bad in ["", "K", "1.5G", "-1", "+1", "1KB", "1 K", "0x10", "99999999999T", "1é"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn exact_sizes_are_read_as_what_they_were() {
        let sizes = [0, 512, 513, 1 << 10, 1536 << 20, 1 << 30, (1 << 30) + 512, 16 << 40];
        let told = sizes.map(exact);
        assert_eq!(told, ["0", "512", "513", "1K", "1536M", "1G", "1073742336", "16T"]);
        assert_eq!(told.map(|told| parse_size(&told)), sizes.map(Ok));
    }

    #[test]
    fn moments_are_told_as_dates() {
        assert_eq!(date(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(date(u64::MAX), "after the year 9999");
    }

    #[test]
    fn ages_are_told_in_the_unit_that_fits() {
        let told = [0, 59_999, 60_000, 3_599_999, 86_400_000].map(|ms| age(1000, 1000 + ms));
        assert_eq!(told, ["0s", "59s", "1m", "59m", "1d"]);
        assert_eq!(age(2000, 1000), "0s");
    }
}
