//! A step's definition, field by field, so that a later build can say which of them is another.
//!
//! The same fields as in [`crate::keys`], by the names that a person gives them. What could be confidential (values of
//! variables, commands, contents) stands here as a short digest only.

use std::collections::BTreeMap;

use memobuild_plan::model::{
    Chmod, Copy, CopySource, Mkdir, Mount, MountKind, Network, Op, Plan, Run, Sharing, Step, Unpack,
};
use memobuild_tree::KeyHasher;

type Fields = Vec<(String, String)>;

/// The definition of a step; empty for those that have none.
pub(super) fn of(step: &Step, plan: &Plan) -> Fields {
    let mut out = match &step.op {
        Op::Run(run) => of_run(run),
        Op::Copy(copy) => of_copy(copy),
        Op::Mkdir(mkdir) => of_mkdir(mkdir),
        Op::Image(place) => {
            let image = plan.images.get(*place);
            return image.map(|image| vec![field("image", &image.digest)]).unwrap_or_default();
        }
        _ => return Vec::new(),
    };
    out.push(field("platform", &step.platform));
    out.push(field("the comment stat=kind", &step.hints.stat_kind));
    // As usual: not worth a place in each record.
    out.retain(|(_, value)| !matches!(value.as_str(), "" | "false" | "[]" | "None"));
    out
}

/// What differs, as a person calls it.
pub(super) fn differing(old: &[(String, String)], new: &[(String, String)]) -> Vec<String> {
    // Of these there are any number; of all others one, which is left out where it is as usual.
    let counted = |name: &str| ["environment variable", "the mount", "the text"].iter().any(|c| name.starts_with(c));
    let (was, is): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (old.iter().map(|(n, v)| (n, v)).collect(), new.iter().map(|(n, v)| (n, v)).collect());
    let mut out = Vec::new();
    for (name, value) in new {
        match was.get(name) {
            None if counted(name) => out.push(format!("{name} is new")),
            None => out.push(format!("{name} changed")),
            Some(before) if *before != value => out.push(format!("{name} changed")),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|(name, _)| !is.contains_key(name));
    out.extend(gone.map(|(name, _)| format!("{name} {}", if counted(name) { "is gone" } else { "changed" })));
    if out.is_empty() && old != new {
        out.push("the order of its variables or mounts changed".into());
    }
    out
}

fn field(name: impl Into<String>, value: &dyn std::fmt::Display) -> (String, String) {
    (name.into(), value.to_string())
}

fn digest(parts: &[&str]) -> String {
    let mut h = KeyHasher::new("memobuild.history.field.v1");
    parts.iter().for_each(|part| {
        h.value(*part);
    });
    h.finish().hex().chars().take(12).collect()
}

fn of_run(run: &Run) -> Fields {
    // Taken apart, so that a new field can't be forgotten here.
    let Run {
        parent: _,
        argv,
        env,
        proxy_env: _,
        cwd,
        user,
        mounts,
        network,
        insecure,
        hosts,
        shm_size,
        ulimits,
        cgroup_parent,
        hostname,
    } = run;
    let mut out = Vec::new();
    match argv.as_slice() {
        [shell, flag, command] if flag.starts_with('-') => {
            out.push(field("the command", &digest(&[command])));
            out.push(field("the shell", &digest(&[shell, flag])));
        }
        argv => {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            out.push(field("the command", &digest(&argv)));
        }
    }
    out.push(field("the working directory", cwd));
    out.push(field("the user", user));
    out.extend(env.iter().map(|(name, value)| field(format!("environment variable {name}"), &digest(&[value]))));
    let mut seen = BTreeMap::new();
    for mount in mounts {
        let (name, value) = of_mount(mount);
        // Several may stand at one place: the upper one hides the lower.
        let count = seen.entry(name.clone()).or_insert(0);
        *count += 1;
        out.push(if *count > 1 { (format!("{name} ({count})"), value) } else { (name, value) });
    }
    let network = match network {
        Network::Default | Network::Host => "",
        Network::None => "none",
    };
    out.push(field("the network mode", &network));
    out.push(field("the security mode", insecure));
    out.push(field("an added host", &format!("{hosts:?}")));
    out.push(field("the size of /dev/shm", &format!("{shm_size:?}")));
    out.push(field("a limit", &format!("{ulimits:?}")));
    out.push(field("the control group", &format!("{cgroup_parent:?}")));
    out.push(field("the host name", &format!("{hostname:?}")));
    out
}

fn of_mount(mount: &Mount) -> (String, String) {
    let Mount { target, kind } = mount;
    let (kind, value) = match kind {
        MountKind::Bind { from: _, path, writable } => ("bind", format!("{path} {writable}")),
        MountKind::Script { content } => return field("the command", &digest(&[content])),
        MountKind::Cache { id, from, sharing, read_only, dir } => {
            let sharing = match sharing {
                Sharing::Shared => "shared",
                Sharing::Private => "private",
                Sharing::Locked => "locked",
            };
            let from = from.as_ref().map(|(_, path)| path);
            ("cache", format!("{id} {from:?} {sharing} {read_only} {dir:?}"))
        }
        MountKind::Tmpfs { size, read_only } => ("tmpfs", format!("{size:?} {read_only}")),
        MountKind::Secret { id, env, file, required, uid, gid, mode } => {
            ("secret", format!("{id} {env:?} {file} {required} {uid} {gid} {mode}"))
        }
        MountKind::Ssh { id, required, uid, gid, mode } => ("ssh", format!("{id} {required} {uid} {gid} {mode}")),
    };
    (format!("the mount at {target}"), format!("{kind} {value}"))
}

fn of_copy(copy: &Copy) -> Fields {
    let Copy { parent: _, sources, dest, dest_is_dir, chown, chmod, link, parents, exclude, unpack } = copy;
    let unpacked = |unpack: &Unpack| match unpack {
        Unpack::Never => "",
        Unpack::Archives => " unpacked",
    };
    let mut out = Vec::new();
    let mut from = String::new();
    for source in sources {
        match source {
            CopySource::Path { from: _, pattern, pivot, may_be_empty, unpack: this } => {
                from.push_str(&format!("{pattern} {pivot:?} {may_be_empty}{}\n", unpacked(this)));
            }
            CopySource::Inline { name, content } => {
                out.push(field(format!("the text of {name}"), &digest(&[content])));
            }
        }
    }
    let chmod = match chmod {
        None => String::new(),
        Some(Chmod::Octal(mode)) => format!("{mode:o}"),
        Some(Chmod::Symbolic(text)) => text.clone(),
    };
    out.push(field("the list of sources", &digest(&[&from])));
    out.push(field("the destination", &format!("{dest} {dest_is_dir}")));
    out.push(field("--chown", &chown.as_deref().unwrap_or_default()));
    out.push(field("--chmod", &chmod));
    out.push(field("--link", link));
    out.push(field("--parents", parents));
    out.push(field("--exclude", &format!("{exclude:?}")));
    out.push(field("--unpack", &unpacked(unpack)));
    out
}

fn of_mkdir(mkdir: &Mkdir) -> Fields {
    let Mkdir { parent: _, path, user } = mkdir;
    vec![field("the path", path), field("the user", user)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[&str], env: &[(&str, &str)]) -> Run {
        Run {
            parent: memobuild_plan::model::StepId(0),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            env: env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            proxy_env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
            mounts: Vec::new(),
            network: Network::Default,
            insecure: false,
            hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            hostname: None,
        }
    }

    #[test]
    fn what_differs_is_named_and_values_are_not() {
        let old = of_run(&run(&["/bin/sh", "-c", "make"], &[("A", "1"), ("TOKEN", "hunter2"), ("GONE", "")]));
        let mut new = run(&["/bin/sh", "-c", "make all"], &[("A", "2"), ("TOKEN", "hunter3"), ("NEW", "")]);
        new.mounts.push(Mount { target: "/c".into(), kind: MountKind::Tmpfs { size: None, read_only: false } });
        let new = of_run(&new);
        insta::assert_snapshot!(differing(&old, &new).join("\n"), @r"
        the command changed
        environment variable A changed
        environment variable TOKEN changed
        environment variable NEW is new
        the mount at /c is new
        environment variable GONE is gone
        ");
        assert!(!format!("{old:?}{new:?}").contains("hunter"));
        assert!(differing(&old, &old).is_empty());
        let swapped = of_run(&run(&["/bin/sh", "-c", "make"], &[("TOKEN", "hunter2"), ("A", "1"), ("GONE", "")]));
        assert_eq!(differing(&old, &swapped), ["the order of its variables or mounts changed"]);
    }

    #[test]
    fn a_changed_shell_is_no_changed_command() {
        let (sh, bash) = (run(&["/bin/sh", "-c", "x"], &[]), run(&["/bin/bash", "-c", "x"], &[]));
        assert_eq!(differing(&of_run(&sh), &of_run(&bash)), ["the shell changed"]);
    }
}
