//! PAX records: `length key=value\n`, over and over (POSIX pax, "pax Extended Header").

/// Key and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The records of one extended header, in order, as slices of it.
pub(super) fn records(mut text: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    const BAD: &str = "damaged PAX record";
    let mut out = Vec::new();
    while !text.is_empty() {
        let blank = text.iter().take(20).position(|b| *b == b' ').ok_or(BAD)?;
        let length = text.get(..blank).and_then(decimal).and_then(|n| usize::try_from(n).ok()).ok_or(BAD)?;
        let record = text.get(blank + 1..length).ok_or(BAD)?;
        text = text.get(length..).ok_or(BAD)?;
        let record = record.strip_suffix(b"\n").ok_or(BAD)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
        let (key, value) = (record.get(..equals).ok_or(BAD)?, record.get(equals + 1..).ok_or(BAD)?);
        let text_value = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
        if key.is_empty() || key.contains(&0) || text_value && value.contains(&0) {
            return Err(BAD);
        }
        out.push((key, value));
    }
    Ok(out)
}

/// A number of digits alone.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// Seconds with an optional sign and fraction, as whole seconds (rounded down) and nanoseconds.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, digits) = match whole.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, whole),
    };
    let secs = i64::try_from(decimal(digits.as_bytes())?).ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{:0<9}", fraction.get(..9.min(fraction.len()))?).parse().ok()?;
    Some(match (negative, nanos) {
        (false, nanos) => (secs, nanos),
        (true, 0) => (-secs, 0),
        (true, nanos) => (-secs - 1, 1_000_000_000 - nanos),
    })
}

/// Appends a record, with the length that counts its own digits.
pub(super) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Blank, equals sign and newline.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() + rest != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_at_every_length() {
        for length in 0..1200 {
            let value = vec![b'v'; length];
            let mut text = Vec::new();
            push_record(&mut text, b"key", &value);
            push_record(&mut text, b"k", b"a=b\nc");
            assert_eq!(records(&text).unwrap(), [(&b"key"[..], value.as_slice()), (b"k", b"a=b\nc")]);
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for bad in
            ["5 a=b", "x a=b\n", "99999 a=b\n", "3 a\n", "0 a=b\n", "6 =bc\n", "99999999999999999999 a=b\n", "7 path\n"]
        {
            assert!(records(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(records(b"10 path=\0\0\n").is_err());
    }

    #[test]
    fn times_with_fractions() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1."), Some((1, 0)));
        assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(time(b".5"), None);
        assert_eq!(time(b"1e3"), None);
    }
}
