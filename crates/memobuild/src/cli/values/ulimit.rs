//! `--ulimit`.

const NAMES: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `NAME=SOFT[:HARD]`, -1 for no limit. Gives name, soft and hard limit.
pub(crate) fn ulimit(text: &str) -> Result<(String, i64, i64), String> {
    let (name, limits) =
        text.split_once('=').ok_or_else(|| format!("{text:?}: expected NAME=SOFT[:HARD], like nofile=1024:2048"))?;
    if !NAMES.contains(&name) {
        return Err(format!("{name:?} is no limit: expected one of {}", NAMES.join(", ")));
    }
    let number = |part: &str| {
        part.parse::<i64>()
            .ok()
            .filter(|n| *n >= -1)
            .ok_or_else(|| format!("{part:?} is no limit: expected a number, or -1 for none"))
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("{name}: the soft limit ({soft}) is above the hard one ({hard})"));
    }
    Ok((name.to_owned(), soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_and_hard() {
        assert_eq!(ulimit("nofile=1024:2048"), Ok(("nofile".into(), 1024, 2048)));
        assert_eq!(ulimit("nproc=64"), Ok(("nproc".into(), 64, 64)));
        assert_eq!(ulimit("core=0:-1"), Ok(("core".into(), 0, -1)));
        for bad in ["nofile", "files=1", "nofile=x", "nofile=2:1", "nofile=-2", "nofile=-1:5", "nofile=1:2:3"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
