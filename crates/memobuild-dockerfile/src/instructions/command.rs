//! `RUN`, `CMD` and `ENTRYPOINT`.

use super::{Problem, Result, no_flags};
use crate::ast::{CommandLine, Device, MountFlag, Network, Run, Security, Word};
use crate::diagnostic::nearest;
use crate::flags::{Flags, Takes};
use crate::mounts;
use crate::raw::{Body, RawInstruction};
use crate::values::{csv_fields, parse_bool};

const RUN_FLAGS: &[(&str, Takes)] =
    &[("mount", Takes::List), ("network", Takes::Text), ("security", Takes::Text), ("device", Takes::List)];

/// `CMD` and `ENTRYPOINT`
pub(super) fn plain(raw: &RawInstruction) -> Result<CommandLine> {
    no_flags(&raw.head)?;
    Ok(line(raw))
}

fn line(raw: &RawInstruction) -> CommandLine {
    let (args, exec) = match &raw.head.body {
        Body::Words { words, json } => (words.clone(), *json),
        _ => (Vec::new(), false),
    };
    CommandLine { args, exec, heredocs: raw.heredocs.clone() }
}

pub(super) fn run(raw: &RawInstruction) -> Result<Run> {
    let flags = Flags::read(&raw.head.flags, RUN_FLAGS)?;
    let mut run = Run {
        command: line(raw),
        mounts: Vec::new(),
        network: Network::Default,
        security: Security::Sandbox,
        devices: Vec::new(),
    };
    for value in flags.list("device") {
        run.devices.push(device(&value).map_err(|e| Problem::new(e, value.span))?);
    }
    for value in flags.list("mount") {
        run.mounts.push(mount(value)?);
    }
    if let Some(value) = flags.get("network") {
        run.network = match value.as_str() {
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            other => {
                return Err(Problem::new(format!("invalid network mode {other:?}"), value.span)
                    .expected("default, none or host"));
            }
        };
    }
    if let Some(value) = flags.get("security") {
        run.security = match value.as_str() {
            "sandbox" => Security::Sandbox,
            "insecure" => Security::Insecure,
            other => {
                return Err(Problem::new(format!("security {other:?} is not valid"), value.span)
                    .expected("sandbox or insecure"));
            }
        };
    }
    Ok(run)
}

fn mount(value: Word) -> Result<MountFlag> {
    let fields =
        csv_fields(&value).map_err(|e| Problem::new(format!("failed to parse csv mounts: {e}"), value.span))?;
    mounts::check_unexpanded(&fields).map_err(|e| Problem::new(e, value.span))?;
    Ok(MountFlag { value, fields })
}

/// A CDI device: a name, bare or as `name=`, and `required`.
fn device(value: &Word) -> std::result::Result<Device, String> {
    let fields = csv_fields(value).map_err(|e| format!("failed to parse csv devices: {e}"))?;
    let mut name: Option<String> = None;
    let mut required = false;
    for field in fields {
        let (key, option) = match field.split_once('=') {
            Some((key, option)) => (key.to_lowercase(), Some(option)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), option) {
            ("required", None) => required = true,
            ("required", Some(option)) => {
                required = parse_bool(option).ok_or_else(|| format!("invalid value for {key}: {option}"))?;
            }
            ("name", Some(option)) => match name {
                Some(name) => return Err(format!("device name already set to {name}")),
                None => name = Some(option.to_owned()),
            },
            // A bare name may hold `=`, as in `vendor.com/class=name`.
            _ if name.is_none() => name = Some(field),
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
            (_, Some(_)) => {
                let hint = nearest(&key, ["name", "required"], false)
                    .map_or(String::new(), |near| format!(" (did you mean {near}?)"));
                return Err(format!("unexpected key '{key}' in '{field}'{hint}"));
            }
        }
    }
    Ok(Device { name: name.unwrap_or_default(), required, span: value.span })
}
