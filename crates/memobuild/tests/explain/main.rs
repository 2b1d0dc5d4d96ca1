//! `explain-cache`, and the reasons that builds give: what a person reads after an edit.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a failure here is a failed test")]

#[path = "../memos/base.rs"]
#[allow(dead_code, reason = "shared with the tests of memos")]
mod base;
#[path = "../common/mod.rs"]
mod common;
#[path = "../memos/support.rs"]
#[allow(dead_code, reason = "shared with the tests of memos")]
mod support;

use support::{Project, traced};

const DOCKERFILE: &str = "\
FROM base
WORKDIR /app
COPY package.json ./
RUN cat package.json >deps
COPY . .
RUN cat src/*.js >out.js; test -e /etc/conf || true
FROM base
COPY --from=0 /app/out.js /srv/
RUN wc -c /srv/out.js >/srv/size
";

const FILES: [(&str, &str); 6] = [
    ("package.json", "{}"),
    ("src/index.js", "a"),
    ("src/other.js", "b"),
    ("README.md", "one"),
    ("docs/a.md", "one"),
    (".env.example", "one"),
];

fn project() -> Project {
    Project::new(DOCKERFILE, &FILES)
}

/// What `explain-cache` prints, without keys and times.
fn explained(project: &Project, args: &[&str]) -> String {
    scrub(&project.place.stdout(&[&["explain-cache"], args].concat()))
}

fn explained_now(project: &Project, args: &[&str]) -> String {
    let base = format!("busybox=oci-layout://{}", project.base().display()).replace("busybox", "base");
    explained(project, &[&["--now", "--build-context", &base], args].concat())
}

fn scrub(shown: &str) -> String {
    let is_hex = |word: &str| word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let is_time = |word: &str| {
        let number = word.strip_suffix("ms").or_else(|| word.strip_suffix('s'));
        number.is_some_and(|n| n.parse::<f64>().is_ok())
    };
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', ';', ':']);
        let end = &word[bare.len()..];
        match bare {
            bare if is_hex(bare) => format!("KEY{end}"),
            bare if is_time(bare) => format!("TIME{end}"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| {
        let line = line.split(' ').map(word).collect::<Vec<_>>().join(" ");
        let seconds = |line: &str| (1..60).any(|n| line.contains(&format!("{n} seconds ago")));
        let mut line = line;
        while seconds(&line) {
            let at = line.find(" seconds ago").unwrap();
            let start = line[..at].rfind(' ').unwrap();
            line.replace_range(start + 1..at + " seconds ago".len(), "just now");
        }
        line
    };
    shown.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// The steps of an explanation as JSON.
fn steps(project: &Project) -> Vec<serde_json::Value> {
    let all: serde_json::Value = serde_json::from_str(&project.place.stdout(&["explain-cache", "--json"])).unwrap();
    all["steps"].as_array().unwrap().clone()
}

/// The sentence about the step with this text.
fn said(project: &Project, command: &str) -> String {
    let steps = steps(project);
    let step = steps.iter().find(|s| s["label"].as_str().unwrap().contains(command)).unwrap();
    scrub(step["said"].as_str().unwrap_or("nothing")).trim_end().to_owned()
}

#[test]
fn an_edit_is_explained() {
    if !traced() {
        return;
    }
    let project = project();
    project.build();
    insta::assert_snapshot!("first_build", explained(&project, &[]));
    project.write("src/index.js", "aa");
    for name in ["README.md", "docs/a.md", ".env.example"] {
        project.write(name, "two");
    }
    // What would happen is what happens.
    insta::assert_snapshot!("would_happen", explained_now(&project, &[]));
    let built = project.build();
    assert_eq!(
        built.reasons["RUN cat src/*.js >out.js; test -e /etc/conf || true"],
        "src/index.js changed (read by the step)"
    );
    insta::assert_snapshot!("edited", explained(&project, &[]));
    insta::assert_snapshot!("edited_one_step", explained(&project, &["0/6"]));
    project.build();
    insta::assert_snapshot!("unchanged", explained(&project, &[]));
}

#[test]
fn each_kind_of_broken_fact_is_said_in_words() {
    if !traced() {
        return;
    }
    let project = project();
    project.build();
    let run = "RUN cat src";
    let after = |change: &dyn Fn()| {
        change();
        project.build();
        said(&project, run)
    };
    let mut all = Vec::new();
    all.push(after(&|| project.write("src/new.js", "c")));
    all.push(after(&|| project.remove("src/other.js")));
    all.push(after(&|| {
        project.write("README.md", "only a reader cares");
    }));
    project.make_base("echo conf >etc/conf");
    project.build();
    all.push(said(&project, run));
    // A file of the base that no step looks at, beside one that the step reads.
    project.make_base("echo conf >etc/conf; echo x >etc/unread");
    project.write("src/index.js", "changed");
    project.build();
    all.push(said(&project, run));
    insta::assert_snapshot!("broken_facts", all.join("\n"));
}

#[test]
fn a_changed_definition_is_named_field_by_field() {
    if !traced() {
        return;
    }
    let project = Project::new(
        "ARG VERSION=1 HIDDEN=1\nENV MODE=a\nRUN echo $VERSION >/v\nUSER root\nWORKDIR /d\nRUN --mount=type=secret,id=token cat /run/secrets/token >/dev/null; pwd >p\n",
        &[("token", "hunter2-very-secret")],
    );
    let secret = ["--secret", "id=token,src=token"];
    let mut all = Vec::new();
    let mut built = |project: &Project, more: &[&str]| {
        project.build_with(&[&secret[..], more].concat());
        all.push(format!("{}\n{}", said(project, "RUN echo"), said(project, "RUN --mount")));
    };
    built(&project, &[]);
    built(&project, &["--build-arg", "HIDDEN=confidential"]);
    let text = "ARG VERSION=1 HIDDEN=1\nENV MODE=a\nRUN echo $VERSION $MODE >/v\nUSER root\nWORKDIR /d\n";
    project.dockerfile(&format!("{text}RUN --mount=type=secret,id=token cat /run/secrets/token >/dev/null; pwd >p\n"));
    built(&project, &[]);
    project.dockerfile(&format!(
        "{text}RUN --mount=type=secret,id=token --mount=type=tmpfs,target=/t cat /run/secrets/token >/dev/null; pwd >p\n"
    ));
    built(&project, &[]);
    insta::assert_snapshot!("definitions", all.join("\n--\n"));

    // No value of a secret or of an argument is in any record, shown or stored.
    let shown = project.place.stdout(&["explain-cache", "--json"]) + &project.place.stdout(&["explain-cache", "2"]);
    assert!(!shown.contains("hunter2") && !shown.contains("confidential"), "{shown}");
    let store = memobuild::Store::open(&project.place.path("../cache")).unwrap();
    for build in memobuild_engine::history::builds(&store).unwrap() {
        let stored = serde_json::to_string(&build).unwrap();
        assert!(!stored.contains("hunter2") && !stored.contains("confidential"), "{stored}");
    }
}

#[test]
fn a_failed_build_is_explained_and_looked_back_past() {
    if !traced() {
        return;
    }
    let project = Project::new(
        "COPY . /src\nRUN cat /src/a; test ! -e /src/bad\nRUN cat /src/b >/b\n",
        &[("a", "1"), ("b", "1")],
    );
    project.build();
    project.write("bad", "");
    project.write("b", "2");
    assert_eq!(project.try_build(&[]).output.status.code(), Some(1));
    insta::assert_snapshot!("failed", explained(&project, &[]));
    project.remove("bad");
    project.write("c", "new");
    project.build();
    // The failed build did not get to the last step: the one before it is what it is compared with.
    insta::assert_snapshot!(said(&project, "RUN cat /src/b"), @"RUN cat /src/b >/b ran again: /src/b changed (read by the step); 1 other change had no effect: /src/c");
}

#[test]
fn what_depends_on_a_path_is_followed_through_copies() {
    if !traced() {
        return;
    }
    let project = Project::new(
        "FROM base\nCOPY . /app\nRUN --mount=type=bind,target=/ctx cat /ctx/src/index.js >/x\nRUN ls /app/docs; [ -e /app/none ] || cat /app/src/index.js >/out\n\
         FROM base\nCOPY --from=0 /app/src /lib/js\nRUN cat /lib/js/index.js >/y\n# memobuild: exact\nRUN true\n",
        &FILES,
    );
    project.build();
    let depends = |path: &str| explained(&project, &["--why-depends", path]);
    let all = ["src/index.js", "docs/a.md", "docs", "none", "/app/none", "/etc/passwd", "nowhere"].map(depends);
    insta::assert_snapshot!("depends", all.join("\n"));
    let json = project.place.stdout(&["explain-cache", "--why-depends", "docs/a.md", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["in"], &json["steps"][0]["touches"][0]["how"]), (&"context".into(), &"copied".into()));
}

#[test]
fn json_has_the_fields_that_the_documentation_names() {
    if !traced() {
        return;
    }
    let project = project();
    project.build();
    project.write("src/index.js", "aa");
    project.build();
    let all: serde_json::Value = serde_json::from_str(&project.place.stdout(&["explain-cache", "--json"])).unwrap();
    let documented = include_str!("../../../../docs/explain.md");
    let mut names: Vec<&String> = all.as_object().unwrap().keys().collect();
    for step in all["steps"].as_array().unwrap() {
        names.extend(step.as_object().unwrap().keys());
        names.extend(step["broken"].as_array().unwrap().iter().flat_map(|b| b.as_object().unwrap().keys()));
    }
    let lacking: Vec<_> = names.into_iter().filter(|name| !documented.contains(&format!("`{name}`"))).collect();
    assert!(lacking.is_empty(), "not in docs/explain.md: {lacking:?}");
    let step = &all["steps"][6];
    assert_eq!((&step["outcome"], &step["again"]), (&"ran".into(), &true.into()), "{step:#}");
    assert_eq!(step["broken"][0]["path"], "/app/src/index.js");
    assert_eq!(step["withoutEffect"], serde_json::json!([]));
}

#[test]
fn nothing_to_explain_is_an_error_with_a_hint() {
    let place = common::Place::with(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    insta::assert_snapshot!("no_build_yet", place.shown(&["explain-cache"]));
    assert!(!place.path("../cache").exists(), "looking makes no cache");
    place.stdout(&["build", "-q", "."]);
    insta::assert_snapshot!("no_such_step", scrub(&place.shown(&["explain-cache", "copy dockrfile"])));
    insta::assert_snapshot!("flags_without_now", place.shown(&["explain-cache", "--build-arg", "A=1"]));
    // A build that ends before any step is one as well.
    place.write("Dockerfile", "FROM\n");
    place.memobuild(&["build", "-q", "."]);
    insta::assert_snapshot!("no_step_at_all", scrub(&place.stdout(&["explain-cache"])));
}
