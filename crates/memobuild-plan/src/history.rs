//! Text as Go prints it: history entries are compared byte for byte with those of other builders.

use std::time::Duration;

/// Go's `%q` of a string.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if printable(c) => out.push(c),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Behind a letter, the standard library escapes just those characters that can't be shown.
fn printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    !format!("a{c}").escape_debug().any(|c| c == '\\')
}

/// Go's `%q` of a list: `["a" "b"]`.
pub(crate) fn quote_list(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|text| quote(text)).collect::<Vec<_>>().join(" "))
}

/// Go's `%v` of a list: `[a b]`.
pub(crate) fn list(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}

/// Go's text of a duration: `1m30s`, `250ms`, `0s`.
pub(crate) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |whole: u128, unit: u128, suffix: &str| {
        let rest = whole % unit;
        let digits = format!("{:0width$}", rest, width = unit.ilog10() as usize);
        let digits = digits.trim_end_matches('0');
        let point = if rest == 0 || digits.is_empty() { "" } else { "." };
        let digits = if rest == 0 { "" } else { digits };
        format!("{}{point}{digits}{suffix}", whole / unit)
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(
            quote("a\"b\\c\n\u{1}\u{7f}é日\u{301}\u{a0}\u{200b}"),
            "\"a\\\"b\\\\c\\n\\x01\\x7fé日\u{301}\\u00a0\\u200b\""
        );
        assert_eq!(quote("\u{e0001}"), "\"\\U000e0001\"");
        assert_eq!(quote_list(&["a".into(), String::new()]), "[\"a\" \"\"]");
        assert_eq!(quote_list(&[]), "[]");
    }

    #[test]
    fn durations() {
        let text = |ns: u64| duration(Duration::from_nanos(ns));
        assert_eq!(text(0), "0s");
        assert_eq!(text(15), "15ns");
        assert_eq!(text(1_500), "1.5µs");
        assert_eq!(text(250_000_000), "250ms");
        assert_eq!(text(1_050_000_000), "1.05s");
        assert_eq!(text(300_000_000_000), "5m0s");
        assert_eq!(text(3_661_500_000_000), "1h1m1.5s");
    }
}
