//! Meaning of `RUN --mount` options.

use crate::ast::{BindMount, CacheMount, FileOwner, Mount, MountError, SecretMount, Sharing, SshMount, TmpfsMount};
use crate::diagnostic::nearest;
use crate::values::{parse_bool, parse_size};

pub(crate) type Expander<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

const TYPES: [&str; 5] = ["bind", "cache", "secret", "ssh", "tmpfs"];
const SHARING: [&str; 3] = ["locked", "private", "shared"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// What can be judged before variables are known: `from` takes none, as it names a stage that
/// the plan must know.
pub(crate) fn check_unexpanded(fields: &[String]) -> Result<(), String> {
    for field in fields {
        let Some((key, value)) = field.split_once('=') else {
            continue;
        };
        let variable = value.find('$').is_some_and(|at| at + 1 != value.len());
        if key.eq_ignore_ascii_case("from") && variable {
            return Err("'from' doesn't support variable expansion, define alias stage instead".into());
        }
    }
    Ok(())
}

/// All options as read, before they are given to a type.
#[derive(Default)]
struct Options {
    kind: String,
    from: Option<String>,
    source: String,
    target: String,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<Sharing>,
    required: bool,
    size: Option<u64>,
    env: Option<String>,
    owner: FileOwner,
}

pub(crate) fn resolve(fields: &[String], expand: Expander<'_>) -> Result<Mount, MountError> {
    let mut options = Options { kind: "bind".into(), ..Options::default() };
    for field in fields {
        match field.split_once('=') {
            Some((key, value)) => {
                let value = expand(value).map_err(MountError::Expand)?;
                options.set(&key.to_lowercase(), value, field)
            }
            None => options.set_bare(field),
        }
        .map_err(MountError::Invalid)?;
    }
    options.mount().map_err(MountError::Invalid)
}

impl Options {
    /// An option without a value.
    fn set_bare(&mut self, field: &str) -> Result<(), String> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            key @ "required" => {
                self.allow(key, &["secret", "ssh"])?;
                self.required = true;
            }
            _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), String> {
        let boolean = |value: &str| parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}"));
        let number = |radix| {
            // Go's parser takes no sign, Rust's would.
            let digits = value.chars().all(|c| c.is_ascii_digit());
            let parsed = u32::from_str_radix(&value, radix).ok().filter(|_| digits);
            parsed.map(Some).ok_or_else(|| format!("invalid value {value} for {key}"))
        };
        match key {
            "type" => {
                let kind = value.to_lowercase();
                if !TYPES.contains(&kind.as_str()) {
                    return Err(format!("unsupported mount type {value:?}{}", hint(&value, &TYPES)));
                }
                self.kind = kind;
            }
            "from" => self.from = Some(value).filter(|v| !v.is_empty()),
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => self.read_only = Some(boolean(&value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(&value)?),
            "required" => {
                self.allow(key, &["secret", "ssh"])?;
                self.required = boolean(&value)?;
            }
            "size" => {
                self.allow(key, &["tmpfs"])?;
                let size = parse_size(&value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.size = Some(size).filter(|&n| n > 0);
            }
            "id" => self.id = Some(value).filter(|v| !v.is_empty()),
            "sharing" => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        return Err(format!("unsupported sharing value {value:?}{}", hint(&value, &SHARING)));
                    }
                });
            }
            "mode" => self.owner.mode = number(8)?,
            "uid" => self.owner.uid = number(10)?,
            "gid" => self.owner.gid = number(10)?,
            "env" => self.env = Some(value),
            _ => return Err(format!("unexpected key '{key}' in '{field}'{}", hint(key, &KEYS))),
        }
        Ok(())
    }

    /// Options that go with some types must follow `type=`.
    fn allow(&self, key: &str, kinds: &[&str]) -> Result<(), String> {
        if kinds.contains(&self.kind.as_str()) {
            return Ok(());
        }
        Err(format!("unexpected key '{key}' for mount type '{}'", self.kind))
    }

    fn mount(self) -> Result<Mount, String> {
        let kind = self.kind.as_str();
        if matches!(kind, "bind" | "tmpfs") {
            let FileOwner { uid, gid, mode } = self.owner;
            for (key, value) in [("mode", mode), ("uid", uid), ("gid", gid)] {
                if value.is_some() {
                    return Err(format!("{key} not allowed for {kind:?} type mounts"));
                }
            }
        }
        if kind == "secret" {
            self.check_secret()?;
        }
        if self.sharing.is_some() && kind != "cache" {
            return Err(format!("invalid cache sharing set for {kind} mount"));
        }
        if kind == "ssh" && !self.source.is_empty() {
            return Err("ssh does not support source".into());
        }
        let target = Some(&self.target).filter(|t| !t.is_empty()).cloned();
        Ok(match kind {
            "cache" => Mount::Cache(CacheMount {
                id: self.id,
                from: self.from,
                source: self.source,
                target: self.target,
                sharing: self.sharing.unwrap_or_default(),
                read_only: self.read_only.unwrap_or(false),
                owner: self.owner,
            }),
            "tmpfs" => Mount::Tmpfs(TmpfsMount {
                target: self.target,
                size: self.size,
                read_only: self.read_only.unwrap_or(false),
            }),
            "secret" => Mount::Secret(SecretMount {
                id: self.id.or(Some(self.source).filter(|s| !s.is_empty())),
                target,
                env: self.env,
                required: self.required,
                owner: self.owner,
            }),
            "ssh" => Mount::Ssh(SshMount { id: self.id, target, required: self.required, owner: self.owner }),
            _ => Mount::Bind(BindMount {
                from: self.from,
                source: self.source,
                target: self.target,
                read_only: self.read_only.unwrap_or(true),
            }),
        })
    }

    fn check_secret(&self) -> Result<(), String> {
        let message = if self.from.is_some() {
            "secret mount should not have a from"
        } else if self.sharing.is_some() {
            "secret mount should not define sharing"
        } else if self.source.is_empty() && self.target.is_empty() && self.id.is_none() {
            "invalid secret mount. one of source, target required"
        } else if !self.source.is_empty() && self.id.is_some() {
            "both source and id can't be set"
        } else {
            return Ok(());
        };
        Err(message.into())
    }
}

fn hint(value: &str, options: &[&str]) -> String {
    nearest(value, options.iter().copied(), false).map_or(String::new(), |near| format!(" (did you mean {near}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Result<Mount, String> {
        let fields = crate::values::csv_fields(text).unwrap();
        check_unexpanded(&fields)?;
        resolve(&fields, &mut |word| Ok(word.replace("$T", "/t"))).map_err(|e| e.to_string())
    }

    #[test]
    fn every_type() {
        assert_eq!(
            mount("target=$T,from=base,src=/a"),
            Ok(Mount::Bind(BindMount {
                from: Some("base".into()),
                source: "/a".into(),
                target: "/t".into(),
                read_only: true,
            }))
        );
        assert_eq!(
            mount("type=cache,dst=c,id=i,sharing=LOCKED,mode=0755,uid=1,gid=2"),
            Ok(Mount::Cache(CacheMount {
                id: Some("i".into()),
                from: None,
                source: String::new(),
                target: "c".into(),
                sharing: Sharing::Locked,
                read_only: false,
                owner: FileOwner { uid: Some(1), gid: Some(2), mode: Some(0o755) },
            }))
        );
        assert_eq!(
            mount("type=tmpfs,target=/t,size=1k,ro"),
            Ok(Mount::Tmpfs(TmpfsMount { target: "/t".into(), size: Some(1024), read_only: true }))
        );
        assert_eq!(
            mount("type=secret,source=s,env=,required=1"),
            Ok(Mount::Secret(SecretMount {
                id: Some("s".into()),
                target: None,
                env: Some(String::new()),
                required: true,
                owner: FileOwner::default(),
            }))
        );
        assert_eq!(
            mount("type=ssh,required"),
            Ok(Mount::Ssh(SshMount { id: None, target: None, required: true, owner: FileOwner::default() }))
        );
        assert!(matches!(mount("target=/a,rw"), Ok(Mount::Bind(BindMount { read_only: false, .. }))));
        assert!(matches!(mount("target=/a,readwrite=false"), Ok(Mount::Bind(BindMount { read_only: true, .. }))));
    }

    #[test]
    fn errors() {
        for (text, want) in [
            ("type=cahce", "unsupported mount type \"cahce\" (did you mean cache?)"),
            ("type=cache,sharing=lock", "unsupported sharing value \"lock\" (did you mean locked?)"),
            ("tagret=/x", "unexpected key 'tagret' in 'tagret=/x' (did you mean target?)"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("from=$X", "'from' doesn't support variable expansion, define alias stage instead"),
            ("required", "unexpected key 'required' for mount type 'bind'"),
            ("size=1,type=tmpfs", "unexpected key 'size' for mount type 'bind'"),
            ("type=tmpfs,size=x", "invalid value for size: x"),
            ("type=tmpfs,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
            ("mode=0700", "mode not allowed for \"bind\" type mounts"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,uid=+1", "invalid value +1 for uid"),
            ("ro=maybe", "invalid value for ro: maybe"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
            ("sharing=shared", "invalid cache sharing set for bind mount"),
            ("type=ssh,source=a", "ssh does not support source"),
        ] {
            assert_eq!(mount(text).unwrap_err(), want, "{text}");
        }
    }
}
