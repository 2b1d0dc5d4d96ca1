//! `HEALTHCHECK`, `SHELL` and `VOLUME`.

use std::time::Duration;

use super::{Problem, Result, at_least_one, needs_one, no_flags};
use crate::ast::{CommandLine, HealthTest, Healthcheck, Shell, Word};
use crate::flags::{Flags, Takes};
use crate::raw::{Head, RawInstruction};
use crate::values::parse_duration;

const HEALTH_FLAGS: &[(&str, Takes)] = &[
    ("interval", Takes::Text),
    ("timeout", Takes::Text),
    ("start-period", Takes::Text),
    ("start-interval", Takes::Text),
    ("retries", Takes::Text),
];

pub(super) fn healthcheck(raw: &RawInstruction, words: &[Word]) -> Result<Healthcheck> {
    let Some((kind, args)) = words.split_first() else {
        return Err(needs_one(&raw.head));
    };
    let upper = kind.to_uppercase();
    if upper == "NONE" {
        if let Some(extra) = args.first() {
            return Err(Problem::new("HEALTHCHECK NONE takes no arguments", extra.span));
        }
        return Ok(Healthcheck {
            test: HealthTest::None,
            interval: None,
            timeout: None,
            start_period: None,
            start_interval: None,
            retries: 0,
        });
    }
    let flags = Flags::read(&raw.head.flags, HEALTH_FLAGS)?;
    if upper != "CMD" {
        return Err(
            Problem::new(format!("Unknown type {upper:?} in HEALTHCHECK (try CMD)"), kind.span).expected("CMD or NONE")
        );
    }
    if args.is_empty() {
        return Err(Problem::new("Missing command after HEALTHCHECK CMD", kind.span));
    }
    Ok(Healthcheck {
        test: HealthTest::Cmd(CommandLine { args: args.to_vec(), exec: raw.head.is_json(), heredocs: Vec::new() }),
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<Option<Duration>> {
    let Some(value) = flags.text(name) else {
        return Ok(None);
    };
    let (negative, duration) =
        parse_duration(&value).map_err(|e| Problem::new(e, value.span).expected("a duration such as 1m30s"))?;
    if duration.is_zero() {
        return Ok(None);
    }
    if negative || duration < Duration::from_millis(1) {
        let message = format!("Interval {name:?} cannot be less than 1ms");
        return Err(Problem::new(message, value.span));
    }
    Ok(Some(duration))
}

fn retries(flags: &Flags) -> Result<u32> {
    let Some(value) = flags.text("retries") else {
        return Ok(0);
    };
    let number: i32 = value.parse().map_err(|_| {
        let message = format!("strconv.ParseInt: parsing {:?}: invalid syntax", value.as_str());
        Problem::new(message, value.span).expected("a whole number for --retries")
    })?;
    u32::try_from(number).map_err(|_| Problem::new(format!("--retries cannot be negative ({number})"), value.span))
}

pub(super) fn shell(raw: &RawInstruction, words: &[Word]) -> Result<Shell> {
    no_flags(&raw.head)?;
    at_least_one(&raw.head, words)?;
    if !raw.head.is_json() {
        let message = "SHELL requires the arguments to be in JSON form";
        return Err(Problem::new(message, raw.line.whole()).expected("an array such as [\"/bin/bash\", \"-c\"]"));
    }
    Ok(Shell { args: words.to_vec() })
}

pub(super) fn volume(head: &Head, words: &[Word]) -> Result<Vec<Word>> {
    at_least_one(head, words)?;
    no_flags(head)?;
    words
        .iter()
        .map(|word| match word.trim() {
            "" => Err(Problem::new("VOLUME specified can not be an empty string", word.span)),
            path => Ok(Word::new(path, word.span)),
        })
        .collect()
}
