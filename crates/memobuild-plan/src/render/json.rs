//! The plan as JSON, for other programs. No secret is in it: a plan knows their names only.

use memobuild_dockerfile::Span;
use serde_json::{Map, Value, json};

use super::{States, needs, number, state};
use crate::model::{Copy, CopySource, Mount, MountKind, Op, Plan, Run, Step};

/// An object with `steps`, `images`, `locals` and `targets`; steps are numbered from 1, and have `state` and `why` where
/// states are given.
pub fn json(plan: &Plan, states: States<'_>) -> Value {
    json!({
        "steps": plan.steps.iter().map(|step| step_json(plan, step, states)).collect::<Vec<_>>(),
        "images": plan.images.iter().map(|image| json!({
            "name": image.name,
            "platform": image.platform.to_string(),
            "digest": image.digest,
        })).collect::<Vec<_>>(),
        "locals": plan.locals.iter().map(|local| json!({
            "name": local.name,
            "paths": local.paths,
        })).collect::<Vec<_>>(),
        "targets": plan.targets.iter().map(|target| json!({
            "stage": target.stage,
            "platform": target.platform.to_string(),
            "step": number(target.root),
        })).collect::<Vec<_>>(),
    })
}

fn step_json(plan: &Plan, step: &Step, states: States<'_>) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("step", number(step.id).into());
    put("label", step.label.as_str().into());
    put("stage", step.stage.as_str().into());
    put("platform", step.platform.to_string().into());
    put("kind", step.op.name().into());
    put("needs", needs(&step.op).into_iter().map(number).collect::<Vec<_>>().into());
    if let Some(Span { start, end }) = step.span {
        put("lines", json!([start.line, end.line]));
    }
    if let Some(state) = state(states, step.id) {
        put("state", state.kind.word().into());
        put("why", state.why.as_deref().into());
    }
    put("detail", detail(plan, &step.op));
    Value::Object(out)
}

fn detail(plan: &Plan, op: &Op) -> Value {
    match op {
        Op::Scratch => Value::Null,
        Op::Image(place) => plan.images.get(*place).map(|image| image.name.as_str()).into(),
        Op::Local(place) => plan.locals.get(*place).and_then(|local| local.name.as_deref()).into(),
        Op::Http(http) => json!({"url": http.url, "checksum": http.checksum}),
        Op::Git(git) => json!({"remote": git.remote, "ref": git.reference, "subdir": git.subdir}),
        Op::Run(run) => run_json(run),
        Op::Copy(copy) => copy_json(copy),
        Op::Mkdir(mkdir) => json!({"path": mkdir.path, "user": mkdir.user}),
    }
}

fn run_json(run: &Run) -> Value {
    json!({
        "argv": run.argv,
        "cwd": run.cwd,
        "user": run.user,
        "mounts": run.mounts.iter().map(mount_json).collect::<Vec<_>>(),
    })
}

fn mount_json(mount: &Mount) -> Value {
    let (kind, detail) = match &mount.kind {
        MountKind::Bind { from, path, writable } => {
            ("bind", json!({"from": number(*from), "path": path, "writable": writable}))
        }
        MountKind::Script { .. } => ("script", Value::Null),
        MountKind::Cache { id, .. } => ("cache", json!({"id": id})),
        MountKind::Tmpfs { size, read_only } => ("tmpfs", json!({"size": size, "read_only": read_only})),
        MountKind::Secret { id, env, .. } => ("secret", json!({"id": id, "env": env})),
        MountKind::Ssh { id, .. } => ("ssh", json!({"id": id})),
    };
    json!({"target": mount.target, "type": kind, "detail": detail})
}

fn copy_json(copy: &Copy) -> Value {
    let sources = copy.sources.iter().map(|source| match source {
        CopySource::Path { from, pattern, .. } => json!({"from": number(*from), "path": pattern}),
        CopySource::Inline { name, .. } => json!({"inline": name}),
    });
    json!({"sources": sources.collect::<Vec<_>>(), "dest": copy.dest, "link": copy.link, "chown": copy.chown})
}
