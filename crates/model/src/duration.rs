//! Durations as Kubernetes writes them: `5s`, `250ms`, `1m30s`, `1.5h`. Settings are read and dumped so.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// The text was no duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be a duration, for example `5s`, `250ms` or `1m30s`")]
pub struct BadDuration;

/// Reads a duration; every number needs a unit.
///
/// # Errors
/// Where it is none, or longer than ten years.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    parts(text).ok_or(BadDuration)
}

/// Writes a duration, to the microsecond, so that [`parse`] reads it back.
#[must_use]
pub fn format(time: Duration) -> String {
    let mut text = String::new();
    let mut rest = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    for (unit, micros) in [
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ] {
        if rest >= micros {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{unit}", rest / micros);
            rest %= micros;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// For `#[serde(with = "...")]`.
pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*time))
}

/// For `#[serde(with = "...")]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

/// The same where there may be none.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, Duration, Serializer, format, parse};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&format(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

/// Longer than any use, short enough for every clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn parts(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        let seconds = number.parse::<f64>().ok()? * unit;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = after;
    }
    (!text.is_empty() && total <= LONGEST).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("5s", Some(5_000)),
            ("250ms", Some(250)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("0s", Some(0)),
            ("2d", Some(172_800_000)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("5 s", None),
            ("1e3s", None),
            (".s", None),
            ("99999999999999999999h", None),
            ("5sec", None),
        ];
        for (text, millis) in table {
            assert_eq!(parse(text).ok().map(|d| d.as_millis()), millis, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (micros, text) in [
            (0, "0s"),
            (5_000_000, "5s"),
            (90_000_000, "1m30s"),
            (86_400_000_000, "24h"),
            (1_500_250, "1s500ms250us"),
        ] {
            let time = Duration::from_micros(micros);
            assert_eq!(format(time), text);
            assert_eq!(parse(text), Ok(time));
        }
    }
}
