//! What single instructions become.
#![allow(clippy::unwrap_used, reason = "a failed step should end the test")]

mod support;

use memobuild_plan::PlanErrorKind;
use memobuild_plan::model::{Chmod, Copy, CopySource, MountKind, Network, NewDir, Op, Options, Run, Sharing, Unpack};
use support::*;

fn run(text: &str) -> Run {
    run_with(text, &options())
}

fn run_with(text: &str, options: &Options) -> Run {
    let planned = try_plan(&format!("FROM busybox\n{text}"), options).unwrap_or_else(|e| panic!("{}", render(&e)));
    let last = planned.plan.steps.into_iter().next_back().unwrap();
    match last.op {
        Op::Run(run) => *run,
        other => panic!("{other:?}"),
    }
}

fn copy(text: &str) -> Copy {
    let planned = planned(&format!("FROM busybox\n{text}"));
    match planned.plan.steps.into_iter().next_back().unwrap().op {
        Op::Copy(copy) => *copy,
        other => panic!("{other:?}"),
    }
}

fn bad(text: &str) -> String {
    error(&format!("FROM busybox\n{text}"))
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn variables_of_a_run() {
    let given = [("A", "cli"), ("UNDECLARED", "x"), ("http_proxy", "p"), ("HTTPS_PROXY", "s")];
    let options = Options { build_args: pairs(&given).into_iter().collect(), ..options() };
    let run = run_with("ENV A=env E=1\nARG A=arg\nARG N\nARG D=$E-d\nARG https_proxy\nRUN x\n", &options);
    let path = support::PATH.split_once('=').unwrap();
    assert_eq!(run.env, pairs(&[path, ("E", "1"), ("A", "cli"), ("D", "1-d")]));
    // Declaring a name takes that spelling out of the settings that are no part of the key.
    assert_eq!(run.proxy_env, pairs(&[("HTTP_PROXY", "p"), ("http_proxy", "p"), ("HTTPS_PROXY", "s")]));
}

#[test]
fn args_pass_to_stages_based_on_a_stage_but_env_wins_there() {
    let planned = planned("FROM busybox AS a\nENV X=env\nARG X=arg\nARG Y=y\nRUN one\nFROM a\nRUN two\n");
    let two = step(&planned, "RUN two");
    let Op::Run(run) = &two.op else { panic!() };
    let value = |name: &str| run.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!((value("X"), value("Y")), (Some("env"), Some("y")));
    assert_eq!(history(&planned)[3], "RUN |2 X=arg Y=y /bin/sh -c one # buildkit");
    assert_eq!(history(&planned)[4], "RUN |2 X=env Y=y /bin/sh -c two # buildkit");
}

#[test]
fn heredocs_of_run() {
    let plain = run("RUN <<EOF\necho a\nEOF\n");
    assert_eq!(plain.argv, ["/bin/sh", "-c", "echo a\n"]);
    let script = run("RUN <<-'E'\n\t#!/usr/bin/env python\n\tprint(1)\n\tE\n");
    assert_eq!(script.argv, ["/bin/sh", "-c", "/dev/pipes/E"]);
    assert_eq!(script.mounts[0].target, "/dev/pipes/E");
    assert_eq!(script.mounts[0].kind, MountKind::Script { content: "#!/usr/bin/env python\nprint(1)\n".into() });
    let mixed = run("RUN cat <<-A <<B > /o\n\ta\n\tA\nb\nB\n");
    assert_eq!(mixed.argv[2], "cat <<-A <<B > /o\n\ta\nA\nb\nB");
    let planned = planned("FROM busybox\nRUN <<EOF\necho a\necho b\nEOF\n");
    assert_eq!(labels(&planned)[1], "[2/2] RUN <<EOF (echo a...)");
}

#[test]
fn mounts_of_every_kind() {
    let run = run("ENV T=/t\nWORKDIR /w\nUSER u\nRUN --mount=target=rel,source=../a/b/ \
        --mount=type=cache,target=c,sharing=locked,uid=7,mode=0700 \
        --mount=type=cache,id=i,target=/d,from=busybox,source=etc,ro \
        --mount=type=tmpfs,target=$T,size=1m --mount=type=secret,id=tok,env=TOKEN \
        --mount=type=secret,target=.k,required --mount=type=ssh --mount=type=ssh,id=x,target=/s,required \
        --mount=from=scratch,target=/none,rw --network=none true\n");
    assert_eq!((run.cwd.as_str(), run.user.as_str(), run.network), ("/w", "u", Network::None));
    let targets: Vec<&str> = run.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(
        targets,
        ["/w/rel", "/w/c", "/d", "/t", "/run/secrets/tok", "/w/.k", "/run/buildkit/ssh_agent.0", "/s", "/none"]
    );
    let kinds: Vec<&MountKind> = run.mounts.iter().map(|mount| &mount.kind).collect();
    assert!(matches!(kinds[0], MountKind::Bind { path, writable: false, .. } if path == "/a/b"));
    assert!(
        matches!(kinds[1], MountKind::Cache { id, from: None, sharing: Sharing::Locked, read_only: false, dir: Some(NewDir { uid: 7, gid: 0, mode: 0o700 }) } if id == "c")
    );
    assert!(
        matches!(kinds[2], MountKind::Cache { id, from: Some((_, path)), sharing: Sharing::Shared, read_only: true, dir: None } if id == "i" && path == "/etc")
    );
    assert_eq!(kinds[3], &MountKind::Tmpfs { size: Some(1 << 20), read_only: false });
    assert!(
        matches!(kinds[4], MountKind::Secret { id, env: Some(env), file: false, required: false, mode: 0o400, .. } if id == "tok" && env == "TOKEN")
    );
    assert!(matches!(kinds[5], MountKind::Secret { id, env: None, file: true, required: true, .. } if id == ".k"));
    assert!(matches!(kinds[6], MountKind::Ssh { id, required: false, mode: 0o600, .. } if id == "default"));
    assert!(matches!(kinds[7], MountKind::Ssh { id, required: true, .. } if id == "x"));
    assert!(matches!(kinds[8], MountKind::Bind { writable: true, path, .. } if path == "/"));
}

#[test]
fn labels_mask_secrets_and_keep_quotes() {
    let text = "FROM busybox\nENV A=1\nRUN --mount=type=secret,id=t,env=TOK echo \"$TOK $A $B\"\n";
    assert_eq!(labels(&planned(text))[1], "[2/2] RUN --mount=type=secret,id=t,env=TOK echo \"**** 1 $B\"");
}

#[test]
fn options_of_the_build_reach_the_steps() {
    let options = Options {
        network: Network::None,
        hosts: pairs(&[("h", "1.2.3.4")]),
        shm_size: Some(9),
        ulimits: vec![("nofile".into(), 1, 2)],
        cgroup_parent: Some("/c".into()),
        build_args: pairs(&[("BUILDKIT_SANDBOX_HOSTNAME", "box"), ("BUILDKIT_CACHE_MOUNT_NS", "ns")])
            .into_iter()
            .collect(),
        allow_insecure: true,
        ..options()
    };
    let run = run_with("RUN --security=insecure --mount=type=cache,target=/c x\n", &options);
    assert_eq!((run.network, run.shm_size, run.insecure), (Network::None, Some(9), true));
    assert_eq!((run.hosts.len(), run.ulimits.len(), run.cgroup_parent.as_deref()), (1, 1, Some("/c")));
    assert_eq!(run.hostname.as_deref(), Some("box"));
    assert!(matches!(&run.mounts[0].kind, MountKind::Cache { id, .. } if id == "ns//c"));
    assert_eq!(run_with("RUN --network=host x\n", &options).network, Network::Host);
    let denied = try_plan("FROM busybox\nRUN --security=insecure x\n", &support::options()).unwrap_err();
    assert_eq!(denied.kind, PlanErrorKind::Denied);
}

#[test]
fn cache_is_ignored_for_the_stages_asked_for() {
    let text = "FROM busybox AS a\nRUN 1\nFROM a AS b\nRUN 2\n";
    let ignored = |options: Options| {
        let planned = try_plan(text, &options).unwrap();
        [step(&planned, "RUN 1").ignore_cache, step(&planned, "RUN 2").ignore_cache]
    };
    assert_eq!(ignored(options()), [false, false]);
    assert_eq!(ignored(Options { no_cache: true, ..options() }), [true, true]);
    assert_eq!(ignored(Options { no_cache_filter: vec!["B".into()], ..options() }), [false, true]);
}

#[test]
fn flags_of_copy() {
    let got = copy("ENV U=me D=d\nWORKDIR /w\nCOPY --chown=$U:g --chmod=0640 --exclude=*.o --link a ${D}/\n");
    assert_eq!((got.chown.as_deref(), got.chmod), (Some("me:g"), Some(Chmod::Octal(0o640))));
    assert_eq!((got.dest.as_str(), got.dest_is_dir, got.link), ("/w/d", true, false));
    assert_eq!(got.exclude, ["*.o"]);
    assert!(copy("COPY --link a /b\n").link);
    assert_eq!(copy("COPY --chmod=u+x a /b\n").chmod, Some(Chmod::Symbolic("u+x".into())));
    for (dest, clean, is_dir) in [(".", "/w", true), ("..", "/", true), ("x/.", "/w/x", true), ("/a//b", "/a/b", false)]
    {
        let got = copy(&format!("WORKDIR /w\nCOPY a {dest}\n"));
        assert_eq!((got.dest.as_str(), got.dest_is_dir), (clean, is_dir), "{dest}");
    }
}

#[test]
fn inline_files_and_history_of_copy() {
    let planned = planned("FROM busybox\nENV V=1\nCOPY --chmod=600 <<A <<-'B' f /d/\n$V \"$V\"\nA\n\t$V\nB\n");
    let Op::Copy(copy) = &planned.plan.steps.last().unwrap().op else { panic!() };
    assert_eq!(copy.sources[1], CopySource::Inline { name: "A".into(), content: "1 \"1\"\n".into() });
    assert_eq!(copy.sources[2], CopySource::Inline { name: "B".into(), content: "$V\n".into() });
    assert_eq!(history(&planned)[1], "COPY --chmod=600 f <<A <<B /d/ # buildkit");
}

#[test]
fn remote_sources_of_add() {
    let sum = format!("sha256:{}", "a".repeat(64));
    let planned = planned(&format!(
        "FROM busybox\nADD --checksum={sum} http://h/d/f.tgz?x /a\nADD --unpack=true http://h/f*.tgz /b\n\
         ADD --keep-git-dir=true https://h/r.git#v1:sub /c\nADD a.tar /d\nADD --unpack=false a.tar /e\n"
    ));
    let http: Vec<_> = planned
        .plan
        .steps
        .iter()
        .filter_map(|s| match &s.op {
            Op::Http(h) => Some(h),
            _ => None,
        })
        .collect();
    assert_eq!((http[0].filename.as_str(), http[0].checksum.as_deref()), ("f.tgz", Some(sum.as_str())));
    let git = planned
        .plan
        .steps
        .iter()
        .find_map(|s| match &s.op {
            Op::Git(g) => Some(g),
            _ => None,
        })
        .unwrap();
    assert_eq!(
        (git.remote.as_str(), git.reference.as_deref(), git.subdir.as_deref(), git.keep_git_dir),
        ("https://h/r.git", Some("v1"), Some("sub"), true)
    );
    let copies: Vec<(&str, &str, Unpack)> = planned
        .plan
        .steps
        .iter()
        .filter_map(|s| match &s.op {
            Op::Copy(c) => Some(c),
            _ => None,
        })
        .map(|c| match &c.sources[0] {
            CopySource::Path { pattern, unpack, .. } => (c.dest.as_str(), pattern.as_str(), *unpack),
            CopySource::Inline { .. } => panic!(),
        })
        .collect();
    assert_eq!(
        copies,
        [
            ("/a", "/f.tgz", Unpack::Never),
            ("/b", "/f[*].tgz", Unpack::Archives),
            ("/c", "/", Unpack::Never),
            ("/d", "/a.tar", Unpack::Archives),
            ("/e", "/a.tar", Unpack::Never),
        ]
    );
}

#[test]
fn copies_that_make_no_sense() {
    assert!(bad("COPY http://h/f /x\n").contains("source can't be a URL for COPY"));
    assert!(bad("COPY https://h/r.git /x\n").contains("source can't be a git ref for COPY"));
    assert!(bad("ADD --checksum=sha256:ab f /x\n").contains("checksum requires HTTP(S) or Git sources"));
    assert!(bad("ADD --checksum=sha256:ab http://h/f http://h/g /x/\n").contains("multiple sources"));
    assert!(bad("ADD --checksum=sha256:ab http://h/f /x\n").contains("invalid checksum digest length"));
    assert!(
        bad("ADD --keep-git-dir=false https://h/r.git?keep-git-dir=true /x\n").contains("inconsistent keep-git-dir")
    );
    assert!(bad("ADD https://h/r.git?what=1 /x\n").contains("unexpected query"));
    assert!(bad("COPY --chmod=888 a /x\n").contains("'888'"));
}

#[test]
fn workdirs() {
    let planned = planned("FROM busybox\nWORKDIR a\nWORKDIR ../b/\nUSER me\nWORKDIR /c/../d/\nWORKDIR /\nRUN x\n");
    assert_eq!(&history(&planned)[..5], ["WORKDIR /a", "WORKDIR /b", "USER me", "WORKDIR /c/../d/", "WORKDIR /"]);
    let made: Vec<(&str, &str)> = planned
        .plan
        .steps
        .iter()
        .filter_map(|s| match &s.op {
            Op::Mkdir(m) => Some((m.path.as_str(), m.user.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(made, [("/a", ""), ("/b", ""), ("/d", "me")]);
    assert!(planned.plan.targets[0].history[4].step.is_none());
}

#[test]
fn hints_above_instructions() {
    let planned = planned("FROM busybox\n# memobuild: exact, max-age=1h\nRUN a\nRUN b\n");
    let a = step(&planned, "RUN a");
    assert!(a.hints.exact && a.hints.max_age.is_some());
    assert!(!step(&planned, "RUN b").hints.exact);
    let text = bad("# memobuild: exactly\nRUN a\n");
    assert!(text.contains("unknown hint") && text.contains("Dockerfile:2"), "{text}");
}

#[test]
fn the_epoch_of_the_file_or_of_the_command_line() {
    let epoch = |text: &str, options: &Options| try_plan(text, options).map(|planned| planned.source_date_epoch);
    let given = Options { source_date_epoch: Some(7), ..options() };
    assert_eq!(epoch("FROM busybox\n", &options()).unwrap(), None);
    assert_eq!(epoch("FROM busybox\n", &given).unwrap(), Some(7));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=5\nFROM busybox\n", &options()).unwrap(), Some(5));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=5\nFROM busybox\n", &given).unwrap(), Some(7));
    assert!(
        render(&epoch("ARG SOURCE_DATE_EPOCH=x\nFROM busybox\n", &options()).unwrap_err())
            .contains("SOURCE_DATE_EPOCH: x")
    );
    let seen = try_plan("FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN x\n", &given).unwrap();
    assert_eq!(history(&seen)[0], "ARG SOURCE_DATE_EPOCH=7");
}
