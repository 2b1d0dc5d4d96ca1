//! Times as images and HTTP write them: RFC 3339 and RFC 1123, always in UTC. Proleptic Gregorian calendar, years 0 to
//! 9999.

/// Seconds in a day.
const DAY: i64 = 86_400;

/// A point in time as RFC 3339 with as many digits of the fraction as are needed, as Go's `RFC3339Nano` writes it.
pub fn rfc3339(secs: i64, nanos: u32) -> String {
    let (days, second) = (secs.div_euclid(DAY), secs.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let clock = (second / 3600, second / 60 % 60, second % 60);
    let mut out = format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", clock.0, clock.1, clock.2);
    if nanos != 0 {
        let fraction = format!("{nanos:09}");
        out.push('.');
        out.push_str(fraction.trim_end_matches('0'));
    }
    out.push('Z');
    out
}

/// Reads RFC 3339, with any offset; `None` if it is not that.
pub fn parse_rfc3339(text: &str) -> Option<(i64, u32)> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let secs = at(year, month, day, clock)?;
    let (nanos, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            let (digits, zone) = rest.split_at_checked(end)?;
            let digits = digits.get(..9.min(digits.len()))?;
            (format!("{digits:0<9}").parse().ok()?, zone)
        }
        None => (0, rest),
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            sign * (number(hours, 2)? * 3600 + number(minutes, 2)? * 60)
        }
    };
    Some((secs - offset, nanos))
}

/// Reads an HTTP date (RFC 9110, `Sun, 06 Nov 1994 08:49:37 GMT`); `None` if it is not that.
pub fn parse_http(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let day = number(words.next()?, 2)?;
    let month = words.next()?;
    let month = 1 + MONTHS.iter().position(|m| *m == month)? as i64;
    let year = number(words.next()?, 4)?;
    let secs = at(year, month, day, words.next()?)?;
    (words.next()? == "GMT" && words.next().is_none()).then_some(secs)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn at(year: i64, month: i64, day: i64, clock: &str) -> Option<i64> {
    let mut clock = clock.split(':');
    let (h, m, s) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && h < 24 && m < 60 && s <= 60;
    (valid && clock.next().is_none()).then(|| days(year, month, day) * DAY + h * 3600 + m * 60 + s)
}

/// Days since 1970-01-01, by the usual reckoning in eras of 400 years with the year begun in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (secs, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, 0, "2023-11-14T22:13:20Z"),
            (-1, 500_000_000, "1969-12-31T23:59:59.5Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
        ] {
            assert_eq!(rfc3339(secs, nanos), text);
            assert_eq!(parse_rfc3339(text), Some((secs, nanos)));
        }
        assert_eq!(parse_rfc3339("2023-11-14T23:13:20+01:00"), Some((1_700_000_000, 0)));
        assert_eq!(parse_http("Sat, 05 Apr 2003 06:07:08 GMT"), Some(1_049_522_828));
    }

    #[test]
    fn nonsense_is_no_time() {
        for bad in ["", "now", "2023-13-01T00:00:00Z", "2023-11-14T22:13:20", "2023-11-14T22:13:20.Z0", "é023-11-14T1"]
        {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
        assert_eq!(parse_http("Sat, 05 Foo 2003 06:07:08 GMT"), None);
    }

    proptest::proptest! {
        #[test]
        fn every_second_survives(secs in -62_135_596_800i64..253_402_300_800) {
            proptest::prop_assert_eq!(parse_rfc3339(&rfc3339(secs, 0)), Some((secs, 0)));
        }
    }
}
