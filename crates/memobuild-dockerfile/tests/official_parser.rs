//! Compares this parser with the official one on every Dockerfile of the repository.
//!
//! Needs a Python with PyPI's `dockerfile` module; `PYTHON` may name the interpreter. Without it
//! the test says that it is skipped. `MEMOBUILD_DOCKERFILES` may name one more folder to search.

#![allow(clippy::unwrap_used, reason = "a failed step should end the test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use memobuild_dockerfile::dump::{Dumped, dump};
use serde_json::{Value, json};

/// The script's exit status when the module is missing.
const NO_MODULE: i32 = 77;

/// Where the module holds an older BuildKit than the one that the conformance cases were measured on, and the two
/// differ: these must differ here too, so that a module that caught up is noticed.
const OLDER_MODULE: &[(&str, &str)] =
    &[("cases/parse-json-trailing/Dockerfile", "text behind a JSON array was ignored; now it makes the shell form")];

#[test]
fn agrees_with_the_official_parser() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.join("../..");
    let mut files = Vec::new();
    for folder in ["conformance/cases", "examples", "crates/memobuild-dockerfile/tests/dockerfiles"] {
        find(&root.join(folder), &mut files);
    }
    if let Some(more) = std::env::var_os("MEMOBUILD_DOCKERFILES") {
        find(Path::new(&more), &mut files);
    }
    files.sort();
    assert!(files.len() > 100, "only {} Dockerfiles found", files.len());
    let Some(theirs) = official(&here.join("tests/official_parser.py"), &files) else {
        return;
    };
    let mut differences = Vec::new();
    for file in &files {
        let text = std::fs::read(file).unwrap();
        let name = file.to_str().unwrap();
        let ours = match dump(&text, name) {
            Ok(all) => Value::Array(all.iter().map(listed).collect()),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let older = OLDER_MODULE.iter().find(|(path, _)| file.ends_with(path));
        if let Some((path, why)) = older {
            assert!(!same(&ours, &theirs[name]), "{path} is no difference any more ({why}): take it off the list");
        } else if !same(&ours, &theirs[name]) {
            differences.push(format!("{name}\n{}", first_difference(&ours, &theirs[name])));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    println!("{} Dockerfiles, no difference but {} named ones", files.len(), OLDER_MODULE.len());
}

fn first_difference(ours: &Value, theirs: &Value) -> String {
    let (mut a, mut b) = (ours, theirs);
    if let (Some(all), Some(others)) = (ours.as_array(), theirs.as_array()) {
        let at = (0..).find(|&i| all.get(i) != others.get(i)).unwrap_or(0);
        (a, b) = (&ours[at], &theirs[at]);
    }
    format!("  ours   {a}\n  theirs {b}")
}

/// Errors are equal whatever they say.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours.get("error"), theirs.get("error")) {
        (Some(_), Some(_)) => true,
        (None, None) => ours == theirs,
        _ => false,
    }
}

/// An instruction as the wrapper lists it: its text has the heredocs put back, and heredocs of an
/// `ONBUILD` trigger are not listed.
fn listed(one: &Dumped) -> Value {
    let onbuild = one.cmd == "onbuild";
    let mut original = one.original.clone();
    if !onbuild && !one.heredocs.is_empty() {
        original.push('\n');
        for (name, _, content) in &one.heredocs {
            original.push_str(&format!("{content}{name}\n"));
        }
    }
    json!({
        "cmd": one.cmd,
        "sub_cmd": one.sub_cmd,
        "json": one.json,
        "original": original,
        "start_line": one.start_line,
        "end_line": one.end_line,
        "flags": one.flags,
        "value": one.value,
        "heredocs": if onbuild { json!([]) } else { json!(one.heredocs) },
    })
}

fn official(script: &Path, files: &[PathBuf]) -> Option<Value> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let started = Command::new(&python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = started else {
        println!("skipped: {} can't be run", python.display());
        return None;
    };
    let paths: Vec<&str> = files.iter().map(|f| f.to_str().unwrap()).collect();
    // A script that ended early takes no input; its status says why.
    let _ = child.stdin.take().unwrap().write_all(paths.join("\n").as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(NO_MODULE) {
        println!("skipped: {} has no `dockerfile` module", python.display());
        return None;
    }
    assert!(output.status.success(), "the script failed: {}", output.status);
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().to_lowercase();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            find(&path, files);
        } else if kind.is_file()
            && name.contains("dockerfile")
            && path.to_str().is_some()
            && !name.ends_with(".dockerignore")
        {
            files.push(path);
        }
    }
}
