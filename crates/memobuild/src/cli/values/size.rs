//! Sizes (`64m`) and ages (`24h`).

use std::time::Duration;

/// Bytes, as docker reads them: a number, perhaps with a fraction, and a unit `b`, `k`, `m`, `g`, `t` or `p` (powers of
/// 1024, any case, `kb` and `kib` alike).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size: expected a number with a unit, like 64m or 1.5g");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is more bytes than there can be"));
    }
    if number.starts_with('.') || number.ends_with('.') {
        return Err(bad());
    }
    let value =
        number.parse::<f64>().map_err(|_| bad())? * f64::from(1u32 << (shift / 2)) * f64::from(1u32 << (shift / 2));
    if value < 9e18 { Ok(value as u64) } else { Err(format!("{text:?} is more bytes than there can be")) }
}

/// A time span: numbers with `s`, `m`, `h`, `d` or `w`, added up (`1d12h`).
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time span: expected a number with a unit, like 90m, 24h or 7d");
    let mut rest = text.trim();
    let mut total = 0u64;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
        rest = tail.get(1..).unwrap_or_default();
    }
    Ok(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_does() {
        assert_eq!(size("64m"), Ok(64 << 20));
        assert_eq!(size("64MB"), Ok(64 << 20));
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        assert_eq!(size("1.5g"), Ok(3 << 29));
        assert_eq!(size("1024"), Ok(1024));
        assert_eq!(size("7b"), Ok(7));
        for bad in ["", "m", "-1", "1x", "1..5g", "1.g", ".5g", "99999999999p", "9999999999.5p", "ib"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages_add_up() {
        assert_eq!(age("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(age("1d12h"), Ok(Duration::from_secs(129_600)));
        assert_eq!(age("2w"), Ok(Duration::from_secs(1_209_600)));
        for bad in ["", "5", "h", "5x", "99999999999999999999h", "1é"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}
