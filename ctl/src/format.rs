//! Numbers in words: sizes, times, counts, and the one thing read back, `--keep-alive`.

use hearth_protocol::KeepAlive;
use std::time::{SystemTime, UNIX_EPOCH};

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// Such as `98.4 MB`; units of 1000, as disks and downloads are sold.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // The precision lost above 2^53 is far below the one decimal shown.
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // What would be rounded to 1000.0 of a unit is 1.0 of the next.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Such as `134,515,008`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The largest unit that fits, such as `3 days`.
pub(crate) fn span(seconds: u64) -> String {
    let (n, unit) = match seconds {
        s if s < MINUTE_S => (s, "second"),
        s if s < HOUR_S => (s / MINUTE_S, "minute"),
        s if s < 2 * DAY_S => (s / HOUR_S, "hour"),
        s if s < 14 * DAY_S => (s / DAY_S, "day"),
        s if s < 60 * DAY_S => (s / (7 * DAY_S), "week"),
        s if s < 730 * DAY_S => (s / (30 * DAY_S), "month"),
        s => (s / (365 * DAY_S), "year"),
    };
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

/// The same for a fraction of seconds, rounded up: what expires in 0.2 s has not expired.
pub(crate) fn span_f64(seconds: f64) -> String {
    // A cast from f64 saturates, and makes 0 of what is not a number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    span(seconds.ceil() as u64)
}

/// Such as `3 days ago`, by this machine's clock.
pub(crate) fn ago(unix_s: u64) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    match now_s.checked_sub(unix_s) {
        Some(0) => "just now".into(),
        Some(seconds) => format!("{} ago", span(seconds)),
        None => "in the future".into(),
    }
}

/// Such as `0.21 s`.
pub(crate) fn seconds(us: u64) -> String {
    format!("{:.2} s", us as f64 / 1e6)
}

/// Such as `43 %`.
pub(crate) fn percent(fraction: f32) -> String {
    format!("{:.0} %", f64::from(fraction.clamp(0.0, 1.0)) * 100.0)
}

/// The first 12 hex digits, as git and Ollama shorten theirs.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// JSON, which is what the daemon is asked in, has no other numbers.
pub(crate) fn parse_number(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| "write such as `0.7`".into())
}

/// `10m`, `1h30m`, `90` (seconds), `0` (not at all), `forever`.
pub(crate) fn parse_keep_alive(text: &str) -> Result<KeepAlive, String> {
    const HELP: &str = "write such as `10m`, `1h30m`, `90s`, `0` or `forever`";
    if text == "forever" || text.starts_with('-') && text[1..].parse::<f64>().is_ok() {
        return Ok(KeepAlive(-1.0));
    }
    let finite = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite());
    if let Some(seconds) = finite(text) {
        return Ok(KeepAlive(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(HELP)?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit_s = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(HELP.into()),
        };
        total += finite(number).ok_or(HELP)? * unit_s;
        rest = after;
    }
    if text.is_empty() { Err(HELP.into()) } else { Ok(KeepAlive(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let texts = [0, 999, 1000, 98_362_432, 999_949_999, 999_950_000, u64::MAX].map(bytes);
        assert_eq!(
            texts,
            ["0 B", "999 B", "1.0 kB", "98.4 MB", "999.9 MB", "1.0 GB", "18446.7 PB"]
        );
        assert_eq!([0, 999, 1000, 134_515_008].map(count), ["0", "999", "1,000", "134,515,008"]);
    }

    #[test]
    fn spans() {
        let texts = [0, 1, 59, 60, 3599, 7200, 172_800, 1_209_600, 5_184_000, 94_608_000].map(span);
        assert_eq!(
            texts,
            [
                "0 seconds",
                "1 second",
                "59 seconds",
                "1 minute",
                "59 minutes",
                "2 hours",
                "2 days",
                "2 weeks",
                "2 months",
                "3 years"
            ]
        );
        assert_eq!(span_f64(0.2), "1 second");
        assert_eq!(span_f64(-3.0), "0 seconds");
    }

    #[test]
    fn numbers() {
        assert_eq!(parse_number("-0.5"), Ok(-0.5));
        for text in ["nan", "inf", "-infinity", "1e99", "hot", ""] {
            assert!(parse_number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keep_alive() {
        for (text, seconds) in [
            ("10m", 600.0),
            ("1h30m", 5400.0),
            ("1.5s", 1.5),
            ("500ms", 0.5),
            ("2d", 172_800.0),
            ("90", 90.0),
            ("0", 0.0),
            ("forever", -1.0),
            ("-1", -1.0),
        ] {
            assert_eq!(parse_keep_alive(text), Ok(KeepAlive(seconds)), "{text}");
        }
        for text in ["", "m", "10x", "1h30", "ten", "1e999", "nan", "-x", "1..5m", "10 m"] {
            assert!(parse_keep_alive(text).is_err(), "{text}");
        }
    }
}
