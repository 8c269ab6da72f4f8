//! Numbers as Go's source has them.

use crate::node::ArgKind;

/// A number, by the rules for constants whose type nothing says.
pub(crate) fn parse(text: &str) -> Result<ArgKind, String> {
    let illegal = || format!("illegal number syntax: {text:?}");
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.ends_with('i') {
        return Err("complex numbers are not supported".into());
    }
    if !underscores_fit(digits) {
        return Err(illegal());
    }
    let plain = digits.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if radix == 16 && body.contains(['.', 'p']) {
        return Err("hexadecimal floats are not supported".into());
    }
    let whole = u64::from_str_radix(body, radix).ok();
    if let Some(magnitude) = whole.filter(|_| !body.starts_with(['+', '-'])) {
        return match i64::try_from(i128::from(magnitude) * if negative { -1 } else { 1 }) {
            Ok(number) => Ok(ArgKind::Int(number)),
            Err(_) if negative => Err(format!("integer overflow: {text:?}")),
            Err(_) => Ok(ArgKind::TooLarge(magnitude)),
        };
    }
    let is_float = lower.bytes().all(|byte| byte.is_ascii_digit() || b".e+-".contains(&byte));
    let number: f64 = lower.parse().ok().filter(|_| is_float).ok_or_else(illegal)?;
    if number.is_infinite() {
        return Err(illegal());
    }
    if !lower.contains(['.', 'e']) {
        return Err(format!("integer overflow: {text:?}"));
    }
    Ok(ArgKind::Float(if negative { -number } else { number }))
}

/// Underscores stand between digits, or between a prefix and a digit.
fn underscores_fit(digits: &str) -> bool {
    let lower = digits.to_ascii_lowercase();
    let hex = lower.starts_with("0x");
    let prefixed = ["0x", "0o", "0b"].iter().any(|prefix| lower.starts_with(prefix));
    let is_digit = |byte: u8| byte.is_ascii_digit() || (hex && byte.is_ascii_hexdigit());
    let bytes = lower.as_bytes();
    (0..bytes.len()).filter(|idx| bytes[*idx] == b'_').all(|idx| {
        let after_prefix = prefixed && idx == 2;
        let before = idx.checked_sub(1).is_some_and(|idx| is_digit(bytes[idx]));
        (before || after_prefix) && bytes.get(idx + 1).copied().is_some_and(is_digit)
    })
}
