//! Go's `fmt`: how values print, and `printf`.

use crate::value::Value;
use crate::{float, quote};
use std::fmt::{self, Write};

/// Text of which at most so many bytes may be written.
pub(crate) struct Out<'a> {
    pub(crate) text: String,
    pub(crate) left: &'a mut usize,
}

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        *self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

/// What stands between `%` and the end of a directive.
#[derive(Debug, Clone, Copy)]
struct Spec {
    verb: char,
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    /// `%+v`: with names of fields.
    names: bool,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn new(verb: char) -> Self {
        Self {
            verb,
            plus: false,
            minus: false,
            sharp: false,
            space: false,
            zero: false,
            names: false,
            width: 0,
            precision: None,
        }
    }
}

/// Wider or more precise is a mistake, to Go as well.
const MAX_WIDTH: usize = 1_000_000;

/// A value as `%v` prints it.
pub(crate) fn print(out: &mut Out<'_>, value: &Value) -> fmt::Result {
    write_value(out, value, Spec::new('v'), true)
}

/// Go's `fmt.Sprint`: spaces only between values of which neither is text.
pub(crate) fn print_all(out: &mut Out<'_>, values: &[Value]) -> fmt::Result {
    let is_text = |value: &Value| matches!(value.plain(), Value::Text(_));
    for (idx, value) in values.iter().enumerate() {
        if idx > 0 && !is_text(value) && !is_text(&values[idx - 1]) {
            out.write_char(' ')?;
        }
        print(out, value)?;
    }
    Ok(())
}

/// Go's `fmt.Sprintln`.
pub(crate) fn print_line(out: &mut Out<'_>, values: &[Value]) -> fmt::Result {
    for (idx, value) in values.iter().enumerate() {
        if idx > 0 {
            out.write_char(' ')?;
        }
        print(out, value)?;
    }
    out.write_char('\n')
}

/// Go's `fmt.Sprintf`. The inner error is a directive that is not supported.
pub(crate) fn print_format(
    out: &mut Out<'_>,
    format: &str,
    values: &[Value],
) -> Result<Result<(), String>, fmt::Error> {
    let mut rest = format;
    let mut values = values.iter();
    while let Some((text, directive)) = rest.split_once('%') {
        out.write_str(text)?;
        let (spec, after) = match directive_of(directive) {
            Ok(Some(found)) => found,
            Ok(None) => {
                out.write_str("%!(NOVERB)")?;
                rest = "";
                break;
            }
            Err(message) => return Ok(Err(message)),
        };
        rest = after;
        if spec.verb == '%' {
            out.write_char('%')?;
            continue;
        }
        match values.next() {
            None => write!(out, "%!{}(MISSING)", spec.verb)?,
            Some(value) if spec.verb == 'T' => pad(out, go_type(value), spec)?,
            Some(value) => write_value(out, value, spec, true)?,
        }
    }
    out.write_str(rest)?;
    let extra = values.as_slice();
    if !extra.is_empty() {
        out.write_str("%!(EXTRA ")?;
        for (idx, value) in extra.iter().enumerate() {
            if idx > 0 {
                out.write_str(", ")?;
            }
            if value.is_nil() {
                out.write_str("<nil>")?;
            } else {
                write!(out, "{}=", value.type_name())?;
                print(out, value)?;
            }
        }
        out.write_char(')')?;
    }
    Ok(Ok(()))
}

fn go_type(value: &Value) -> &'static str {
    if value.is_nil() { "<nil>" } else { value.type_name() }
}

/// Reads what follows a `%`; `None` if no verb does.
fn directive_of(text: &str) -> Result<Option<(Spec, &str)>, String> {
    let mut spec = Spec::new('v');
    let mut rest = text;
    loop {
        match rest.chars().next() {
            Some('+') => spec.plus = true,
            Some('-') => spec.minus = true,
            Some('#') => spec.sharp = true,
            Some(' ') => spec.space = true,
            Some('0') => spec.zero = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let number = |rest: &mut &str| {
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(len);
        *rest = after;
        if digits.is_empty() { Some(0) } else { digits.parse().ok().filter(|n| *n <= MAX_WIDTH) }
    };
    let Some(width) = number(&mut rest) else { return Ok(None) };
    spec.width = width;
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        let Some(precision) = number(&mut rest) else { return Ok(None) };
        spec.precision = Some(precision);
    }
    let Some(verb) = rest.chars().next() else { return Ok(None) };
    if matches!(verb, '[' | '*') {
        return Err("`printf` with `%[` and `%*` is not supported".into());
    }
    spec.verb = verb;
    if verb == 'v' {
        if spec.sharp {
            return Err("`printf` with `%#v` is not supported".into());
        }
        spec.names = std::mem::take(&mut spec.plus);
    }
    Ok(Some((spec, &rest[verb.len_utf8()..])))
}

fn write_value(out: &mut Out<'_>, value: &Value, spec: Spec, outermost: bool) -> fmt::Result {
    let verb = spec.verb;
    match value {
        Value::Typed(typed) => match typed.methods.string {
            Some(string) if matches!(verb, 'v' | 's' | 'x' | 'X' | 'q') => {
                write_text(out, &string(&typed.value), spec)
            }
            _ => write_value(out, &typed.value, spec, outermost),
        },
        Value::Absent | Value::Nil if verb == 'v' || !outermost => pad(out, "<nil>", spec),
        Value::Absent | Value::Nil => write!(out, "%!{verb}(<nil>)"),
        Value::Bool(truth) if matches!(verb, 't' | 'v') => {
            pad(out, if *truth { "true" } else { "false" }, spec)
        }
        Value::Int(number) if "vdboOxXcqU".contains(verb) => write_int(out, *number, spec),
        Value::Float(number) if "veEfFgG".contains(verb) => write_float(out, *number, spec),
        Value::Text(text) if "vsxXq".contains(verb) => write_text(out, text, spec),
        Value::List(list) => {
            out.write_char('[')?;
            for (idx, item) in list.items().iter().enumerate() {
                if idx > 0 {
                    out.write_char(' ')?;
                }
                write_value(out, item, spec, false)?;
            }
            out.write_char(']')
        }
        Value::Map(map) => {
            out.write_str("map[")?;
            for (idx, (key, item)) in map.iter().enumerate() {
                if idx > 0 {
                    out.write_char(' ')?;
                }
                write_value(out, &Value::Text(key.clone()), spec, false)?;
                out.write_char(':')?;
                write_value(out, item, spec, false)?;
            }
            out.write_char(']')
        }
        Value::Struct(fields) => {
            out.write_char('{')?;
            for (idx, field) in fields.fields.iter().enumerate() {
                if idx > 0 {
                    out.write_char(' ')?;
                }
                if spec.names {
                    write!(out, "{}:", field.name)?;
                }
                write_value(out, &field.value, spec, false)?;
            }
            out.write_char('}')
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
            write!(out, "%!{verb}({}=", value.type_name())?;
            write_value(out, value, Spec { verb: 'v', ..spec }, true)?;
            out.write_char(')')
        }
    }
}

fn write_int(out: &mut Out<'_>, number: i64, spec: Spec) -> fmt::Result {
    let magnitude = number.unsigned_abs();
    let character = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let digits = match spec.verb {
        'c' => return pad(out, character.encode_utf8(&mut [0; 4]), spec),
        'q' => {
            let mut text = [0; 4];
            let text = character.encode_utf8(&mut text);
            return pad(out, &quote::quote(text, '\'', spec.plus), spec);
        }
        'U' => {
            let mut text = format!("U+{magnitude:04X}");
            if spec.sharp && quote::is_printable(character) {
                text += &format!(" '{character}'");
            }
            return pad(out, &text, Spec { zero: false, ..spec });
        }
        'b' => format!("{magnitude:b}"),
        'o' | 'O' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        _ => magnitude.to_string(),
    };
    let sign = match (number < 0, spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    let n_least = match spec.precision {
        Some(0) if number == 0 => return pad(out, "", Spec { zero: false, ..spec }),
        Some(precision) => precision,
        None if spec.zero && !spec.minus => spec.width.saturating_sub(sign.len()),
        None => 0,
    };
    let digits = format!("{digits:0>n_least$}");
    let prefix = match (spec.verb, spec.sharp) {
        ('O', _) => "0o",
        ('b', true) => "0b",
        ('o', true) if !digits.starts_with('0') => "0",
        ('x', true) => "0x",
        ('X', true) => "0X",
        _ => "",
    };
    pad(out, &format!("{sign}{prefix}{digits}"), Spec { zero: false, ..spec })
}

fn write_float(out: &mut Out<'_>, number: f64, spec: Spec) -> fmt::Result {
    let (verb, default) = match spec.verb {
        'e' | 'E' => ('e', Some(6)),
        'f' | 'F' => ('f', Some(6)),
        _ => ('g', None),
    };
    let mut text = float::format(number, verb, spec.precision.or(default));
    if matches!(spec.verb, 'E' | 'G') {
        text = text.to_uppercase();
    }
    if spec.plus && !text.starts_with(['-', '+']) {
        text.insert(0, '+');
    } else if spec.space && !text.starts_with(['-', '+']) {
        text.insert(0, ' ');
    } else if text.starts_with('+') && !spec.plus {
        text.remove(0);
    }
    let zero = spec.zero && !spec.minus && number.is_finite();
    if zero && text.starts_with(['-', '+', ' ']) && spec.width > text.len() {
        let (sign, digits) = text.split_at(1);
        let width = spec.width - 1;
        return write!(out, "{sign}{digits:0>width$}");
    }
    pad(out, &text, Spec { zero, ..spec })
}

fn write_text(out: &mut Out<'_>, text: &str, spec: Spec) -> fmt::Result {
    let n_chars = spec.precision.unwrap_or(usize::MAX);
    let end = text.char_indices().nth(n_chars).map_or(text.len(), |(idx, _)| idx);
    match spec.verb {
        'q' if spec.sharp && can_stand_raw(&text[..end]) => {
            pad(out, &format!("`{}`", &text[..end]), spec)
        }
        'q' => pad(out, &quote::quote(&text[..end], '"', spec.plus), spec),
        'x' | 'X' => {
            let bytes = &text.as_bytes()[..n_chars.min(text.len())];
            let mut digits = String::new();
            for (idx, byte) in bytes.iter().enumerate() {
                if spec.space && idx > 0 {
                    digits.push(' ');
                }
                if spec.sharp && (idx == 0 || spec.space) {
                    digits += if spec.verb == 'x' { "0x" } else { "0X" };
                }
                digits +=
                    &if spec.verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") };
            }
            pad(out, &digits, spec)
        }
        _ => pad(out, &text[..end], spec),
    }
}

fn can_stand_raw(text: &str) -> bool {
    text.chars().all(|c| c == '\t' || (c >= ' ' && !matches!(c, '`' | '\u{7f}' | '\u{feff}')))
}

fn pad(out: &mut Out<'_>, text: &str, spec: Spec) -> fmt::Result {
    if spec.width == 0 {
        return out.write_str(text);
    }
    let n_missing = spec.width.saturating_sub(text.chars().count());
    if spec.minus {
        out.write_str(text)?;
        return out.write_str(&" ".repeat(n_missing));
    }
    out.write_str(&if spec.zero { "0" } else { " " }.repeat(n_missing))?;
    out.write_str(text)
}
