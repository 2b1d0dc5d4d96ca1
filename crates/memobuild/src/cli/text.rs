//! Text for people: colours, sizes, ages, tables, and writing where the reader may have gone.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, SystemTime},
};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Whether the terminal can't move its cursor.
pub(crate) fn terminal_is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|t| t == "dumb")
}

/// Whether the environment allows colours: `NO_COLOR` (set and not empty) and a dumb terminal forbid them.
pub(crate) fn colours_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && !terminal_is_dumb()
}

/// Whether standard error shows colours.
pub(crate) fn stderr_colour() -> bool {
    io::stderr().is_terminal() && colours_allowed()
}

/// Whether standard output shows colours.
pub(crate) fn stdout_colour() -> bool {
    io::stdout().is_terminal() && colours_allowed()
}

/// The text in a colour (an ANSI code such as `1;31`), or as it is.
pub(crate) fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Writes to standard error. A reader that has gone away is no failure of ours.
pub(crate) fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes to standard output; `Ok` also when the reader has gone away (`memobuild images | head -1`).
pub(crate) fn to_stdout(text: &str) -> Result<(), super::Failure> {
    bytes_to_stdout(text.as_bytes())
}

/// As [`to_stdout`], for what may be no text.
pub(crate) fn bytes_to_stdout(bytes: &[u8]) -> Result<(), super::Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(super::Failure::file("cannot write to standard output", &e))
        }
        _ => Ok(()),
    }
}

/// Bytes in decimal units, as registries and docker show them: `812B`, `1.25MB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n}B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}{}", UNITS.get(unit).unwrap_or(&"B"))
}

/// How long ago, in the largest unit that fits: `5 minutes ago`.
pub(crate) fn ago(then: SystemTime, now: SystemTime) -> String {
    let Ok(age) = now.duration_since(then) else { return "just now".into() };
    let (n, unit) = match age.as_secs() {
        0..=4 => return "just now".into(),
        s @ ..60 => (s, "second"),
        s @ ..3600 => (s / 60, "minute"),
        s @ ..86_400 => (s / 3600, "hour"),
        s @ ..2_592_000 => (s / 86_400, "day"),
        s @ ..31_536_000 => (s / 2_592_000, "month"),
        s => (s / 31_536_000, "year"),
    };
    format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" })
}

/// An address without the name and password that may be in it.
pub(crate) fn without_password(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.split_once('/').map_or(rest, |(host, _)| host).rsplit_once('@') {
            Some((login, _)) => format!("{scheme}://{}", rest.get(login.len() + 1..).unwrap_or_default()),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

/// A duration as progress shows it: `0.2s`, `75.3s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Rows in columns two blanks apart, the last column ragged. The first row is the head.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell}{}  ", " ".repeat(width - cell.width()));
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// The text in at most that many columns, with an ellipsis where something was cut off.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut width = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if width + w + 1 > columns {
            break;
        }
        width += w;
        out.push(c);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_three_digits() {
        let all = [0, 999, 1000, 1254, 12_540, 125_400, 999_499, 999_500, 1_250_000, 3_000_000_000];
        let shown: Vec<String> = all.into_iter().map(bytes).collect();
        assert_eq!(shown.join(" "), "0B 999B 1.00kB 1.25kB 12.5kB 125kB 999kB 1.00MB 1.25MB 3.00GB");
    }

    #[test]
    fn ages_take_the_largest_unit() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let shown: Vec<String> =
            [1, 59, 60, 7200, 86_400, 5_000_000].into_iter().map(|s| ago(now - Duration::from_secs(s), now)).collect();
        assert_eq!(shown.join(", "), "just now, 59 seconds ago, 1 minute ago, 2 hours ago, 1 day ago, 1 month ago");
        assert_eq!(ago(now + Duration::from_secs(9), now), "just now");
    }

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        assert_eq!(without_password("https://me:secret@c.example/x"), "https://c.example/x");
        assert_eq!(without_password("http://me@secret@c.example"), "http://c.example");
        assert_eq!(without_password("http://c.example/a@b"), "http://c.example/a@b");
        assert_eq!(without_password("c.example"), "c.example");
    }

    #[test]
    fn tables_align() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(table(&[row("NAME", "SIZE"), row("日本", "1B"), row("x", "")]), "NAME  SIZE\n日本  1B\nx\n");
    }
}
