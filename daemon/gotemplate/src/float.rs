//! Floats as Go writes them.

/// Go's `strconv.FormatFloat` for `e`, `f` and `g`. Without a precision it takes as few digits as tell the number apart.
pub(crate) fn format(number: f64, verb: char, precision: Option<usize>) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .into();
    }
    match (verb, precision) {
        ('f', None) => format!("{number}"),
        ('f', Some(precision)) => format!("{number:.precision$}"),
        ('e', None) => two_digits(&format!("{number:e}")),
        ('e', Some(precision)) => two_digits(&format!("{number:.precision$e}")),
        _ => general(number, precision),
    }
}

/// `%g`: whichever of `e` and `f` is shorter for the exponent, without zeros at the end.
fn general(number: f64, precision: Option<usize>) -> String {
    let significant = precision.map(|precision| precision.max(1));
    let scientific = match significant {
        None => format!("{number:e}"),
        Some(digits) => {
            let text = format!("{number:.*e}", digits - 1);
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let mantissa = if mantissa.contains('.') {
                mantissa.trim_end_matches('0').trim_end_matches('.')
            } else {
                mantissa
            };
            format!("{mantissa}e{exponent}")
        }
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let n_digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let has_zeros = i32::try_from(n_digits).is_ok_and(|n_digits| n_digits <= exponent);
    let limit = match significant {
        None => SHORTEST_LIMIT,
        Some(digits) if digits > n_digits && !has_zeros => n_digits,
        Some(digits) => digits,
    };
    if exponent < -4 || usize::try_from(exponent).is_ok_and(|exponent| exponent >= limit) {
        return two_digits(&scientific);
    }
    let n_decimals = i32::try_from(n_digits).unwrap_or(i32::MAX) - 1 - exponent;
    format!("{number:.*}", usize::try_from(n_decimals).unwrap_or(0))
}

/// As many whole digits a number of no certain precision may have.
const SHORTEST_LIMIT: usize = 6;

/// Go's exponents have a sign and at least two digits.
fn two_digits(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}
