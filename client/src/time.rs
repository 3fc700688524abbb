//! Moments, as operators type them and want to read them: in the time zone of this machine.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ZonedDateTime};
use petrel_wire::operator::Since;

/// A moment of the past: how long ago, or when.
pub fn since(text: &str) -> Result<Since, String> {
    let expected = "expected how long ago (15m, 2h, 1d) or when (18:00, 2026-11-24, 2026-11-24T18:00:00Z)";
    since_when(text, &ZonedDateTime::now()).ok_or_else(|| expected.into())
}

fn since_when(text: &str, now: &ZonedDateTime) -> Option<Since> {
    let ms = |timestamp: Timestamp| u64::try_from(timestamp.as_millisecond()).unwrap_or(0);
    if let Ok(span) = text.parse::<Span>() {
        let then = now.checked_sub(span.abs()).ok()?;
        return Some(Since::Ago(ms(now.timestamp()).saturating_sub(ms(then.timestamp()))));
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(Since::At(ms(timestamp)));
    }
    let date_and_time = match text.parse::<DateTime>() {
        Ok(date_and_time) => date_and_time,
        // "15" alone could be anything.
        Err(_) => now.date().to_datetime(text.contains(':').then(|| text.parse::<Time>().ok())??),
    };
    Some(Since::At(ms(date_and_time.to_zoned_datetime(now.time_zone().clone()).ok()?.timestamp())))
}

/// A moment for people, to the second: `2026-11-24 18:30:12`.
pub fn shown(wall_ms: u64) -> String {
    shown_in(wall_ms, TimeZone::system())
}

fn shown_in(wall_ms: u64, zone: TimeZone) -> String {
    let timestamp = i64::try_from(wall_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.map_or("(no time)".into(), |it| it.to_zoned_datetime(zone).strftime("%F %T").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> ZonedDateTime {
        "2026-11-24T18:30:00+01:00[+01:00]".parse().unwrap()
    }

    #[test]
    fn a_moment_is_told_by_how_long_ago_it_was() {
        let ago = |text| match since_when(text, &now()) {
            Some(Since::Ago(ms)) => ms / 1000,
            other => panic!("{text}: {other:?}"),
        };
        let told = ["90s", "15m", "2h 30m", "1d", "1 week", "0s"].map(ago);
        assert_eq!(told, [90, 900, 9000, 86_400, 604_800, 0]);
    }

    #[test]
    fn a_moment_is_told_by_date_and_time_in_this_machines_zone_unless_it_says_which() {
        let at = |text| match since_when(text, &now()) {
            Some(Since::At(ms)) => shown_in(ms, TimeZone::UTC),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(at("2026-11-24T18:00:00Z"), "2026-11-24 18:00:00");
        assert_eq!(at("2026-11-24 18:00"), "2026-11-24 17:00:00");
        assert_eq!(at("2026-11-24"), "2026-11-23 23:00:00");
        assert_eq!(at("18:00"), "2026-11-24 17:00:00");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "yesterday", "15", "2026-13-01", "m"] {
            assert_eq!(since_when(text, &now()), None, "{text:?}");
        }
        assert!(since("soon").unwrap_err().starts_with("expected how long ago"));
    }

    #[test]
    fn a_time_that_cannot_be_is_no_panic() {
        assert_eq!(shown_in(u64::MAX, TimeZone::UTC), "(no time)");
    }
}
