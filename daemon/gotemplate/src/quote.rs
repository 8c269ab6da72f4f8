//! Quoted texts of Go's source, read and written.

/// What a quoted text or a character constant says, quotes included in `text`.
pub(crate) fn unquote(text: &str) -> Result<String, String> {
    let invalid = || format!("invalid syntax: {text}");
    let quote = text.chars().next().ok_or_else(invalid)?;
    let inner = text.get(1..text.len() - 1).ok_or_else(invalid)?;
    if quote == '`' {
        // As in Go's own source.
        return Ok(inner.replace('\r', ""));
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let escape = chars.next().ok_or_else(invalid)?;
        let (n_digits, radix) = match escape {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (3, 8),
            _ => (0, 0),
        };
        if n_digits > 0 {
            let rest = chars.as_str();
            let octal = if radix == 8 { escape.to_string() } else { String::new() };
            let more = rest.get(..n_digits - octal.len()).ok_or_else(invalid)?;
            let digits = octal + more;
            chars = rest[more.len()..].chars();
            if !digits.chars().all(|digit| digit.is_digit(radix)) {
                return Err(invalid());
            }
            let code = u32::from_str_radix(&digits, radix).map_err(|_| invalid())?;
            if n_digits < 4 {
                let byte = u8::try_from(code).map_err(|_| invalid())?;
                // In a character constant it is a code point.
                if quote == '\'' {
                    bytes.extend(char::from(byte).encode_utf8(&mut [0; 4]).bytes());
                } else {
                    bytes.push(byte);
                }
            } else {
                let c = char::from_u32(code).ok_or_else(invalid)?;
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            }
            continue;
        }
        bytes.push(match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            c if c == quote => u8::try_from(c).map_err(|_| invalid())?,
            _ => return Err(invalid()),
        });
    }
    String::from_utf8(bytes).map_err(|_| format!("not UTF-8: {text}"))
}

/// The text in double quotes. With `ascii`, everything else is escaped.
pub(crate) fn quote(text: &str, quote: char, ascii: bool) -> String {
    let mut quoted = String::from(quote);
    for c in text.chars() {
        match c {
            '\u{7}' => quoted += "\\a",
            '\u{8}' => quoted += "\\b",
            '\u{c}' => quoted += "\\f",
            '\n' => quoted += "\\n",
            '\r' => quoted += "\\r",
            '\t' => quoted += "\\t",
            '\u{b}' => quoted += "\\v",
            c if c == quote || c == '\\' => quoted.extend(['\\', c]),
            c if is_printable(c) && (c.is_ascii() || !ascii) => quoted.push(c),
            c if c < ' ' || c == '\u{7f}' => quoted += &format!("\\x{:02x}", u32::from(c)),
            c if u32::from(c) < 0x10000 => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted += &format!("\\U{:08x}", u32::from(c)),
        }
    }
    quoted.push(quote);
    quoted
}

/// A letter, mark, number, punctuation, symbol, or the ASCII space.
pub(crate) fn is_printable(c: char) -> bool {
    // Marks are printable only after something else.
    matches!(c, '"' | '\'' | '\\') || format!("a{c}").escape_debug().eq(['a', c])
}
