//! Small values as Go reads them: durations, sizes, booleans, CSV fields, quoted strings.
//!
//! Command-line options of the same kinds use these too, so that both read alike.

use std::time::Duration;

/// Reads a Go duration such as `1m30s`, `1.5h`, `-2us` or `0`. The flag says "negative".
///
/// # Errors
/// Go's wording: `time: missing unit in duration "5"` and the like.
pub fn parse_duration(text: &str) -> Result<(bool, Duration), String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok((false, Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => {
                let n = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                after.split_at(n)
            }
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let scale: u128 = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        // More digits than these are below a nanosecond in every unit.
        let fraction = fraction.get(..fraction.len().min(18)).unwrap_or("");
        let parts: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| invalid())? };
        let part = parts * scale / 10u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        total = whole
            .checked_mul(scale)
            .and_then(|n| n.checked_add(part)?.checked_add(total))
            .filter(|&n| n <= i64::MAX as u128)
            .ok_or_else(invalid)?;
        rest = next;
    }
    let total = u64::try_from(total).map_err(|_| invalid())?;
    Ok((negative && total > 0, Duration::from_nanos(total)))
}

/// Reads a size in bytes such as `64m`, `1.5 GiB` or `1024`; units are powers of 1024.
///
/// # Errors
/// Not a size.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let (number, unit) = text.split_at(last + 1);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().map_err(|_| invalid())?;
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(format!("invalid suffix: '{unit}'")),
    };
    let bytes = number * (1u64 << shift) as f64;
    // Exact up to 2^53, which no size here reaches.
    if !(0.0..9.2e18).contains(&bytes) {
        return Err(invalid());
    }
    Ok(bytes as u64)
}

/// Reads a Go boolean: `1`, `t`, `T`, `true`, `True`, `TRUE` and their opposites.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Cuts one line of comma-separated values, with Go's strict rules on quotes.
///
/// # Errors
/// A quote inside a bare field, or a quoted field that does not end.
pub fn csv_fields(line: &str) -> Result<Vec<String>, String> {
    let error = |at: usize, what: &str| format!("parse error on line 1, column {}: {what}", at + 1);
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = &line[at..];
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut from = 0;
            loop {
                let Some(end) = quoted[from..].find('"') else {
                    return Err(error(line.len(), "extraneous or missing \" in quoted-field"));
                };
                field.push_str(&quoted[from..from + end]);
                from += end + 1;
                if !quoted[from..].starts_with('"') {
                    break;
                }
                field.push('"');
                from += 1;
            }
            fields.push(field);
            at += 1 + from;
            match line[at..].chars().next() {
                None => return Ok(fields),
                Some(',') => at += 1,
                Some(_) => return Err(error(at - 1, "extraneous or missing \" in quoted-field")),
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(quote) = rest[..end].find('"') {
                return Err(error(at + quote, "bare \" in non-quoted-field"));
            }
            fields.push(rest[..end].to_owned());
            if end == rest.len() {
                return Ok(fields);
            }
            at += end + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ok = |s: &str| parse_duration(s).unwrap();
        assert_eq!(ok("1m30s"), (false, Duration::from_secs(90)));
        assert_eq!(ok("1.5h"), (false, Duration::from_secs(5400)));
        assert_eq!(ok(".5s"), (false, Duration::from_millis(500)));
        assert_eq!(ok("-2us"), (true, Duration::from_micros(2)));
        assert_eq!(ok("0"), (false, Duration::ZERO));
        assert_eq!(ok("-0s"), (false, Duration::ZERO));
        assert_eq!(ok("0.0000000000000000000000001h"), (false, Duration::ZERO));
        let err = |s: &str| parse_duration(s).unwrap_err();
        assert_eq!(err("5"), "time: missing unit in duration \"5\"");
        assert_eq!(err("5x"), "time: unknown unit \"x\" in duration \"5x\"");
        for bad in ["", "-", "s", ".s", "1s x", "9999999999h", "99999999999999999999999999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1024"), Ok(1024));
        assert_eq!(parse_size("64m"), Ok(64 << 20));
        assert_eq!(parse_size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_size("2KB"), Ok(2048));
        for bad in ["", "m", "-1", "1x", "1ibb", "1e400", "NaN", "1mm"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn csv() {
        assert_eq!(csv_fields("a,b=c,").unwrap(), ["a", "b=c", ""]);
        assert_eq!(csv_fields("\"a,b\",c").unwrap(), ["a,b", "c"]);
        assert_eq!(csv_fields("\"a\"\"b\"").unwrap(), ["a\"b"]);
        assert_eq!(csv_fields("").unwrap(), [""]);
        for bad in ["a\"b", "\"a", "\"a\"b", "x,\"a"] {
            assert!(csv_fields(bad).is_err(), "{bad}");
        }
    }
}
