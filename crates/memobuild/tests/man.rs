//! The manual's pages: each command has one, and what reads such pages can read it.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use std::{collections::BTreeSet, fs, io::Write as _, process::Stdio};

use common::{Place, text};

/// The commands that `--help` lists, as words; those below commands too.
fn commands(place: &Place, above: &[&str], found: &mut Vec<Vec<String>>) {
    let help = place.stdout(&[above, &["--help"]].concat());
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        let words = [above, &[name]].concat();
        found.push(words.iter().map(|word| (*word).to_owned()).collect());
        commands(place, &words, found);
    }
}

/// The long options that a command's `--help` shows.
fn options(place: &Place, words: &[&str]) -> BTreeSet<String> {
    let help = place.stdout(&[words, &["--help"]].concat());
    let heads = help.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("--").or_else(|| line.get(2..)?.strip_prefix(", --"))
    });
    let name = |rest: &str| rest.split([' ', '[', '=']).next().unwrap_or_default().to_owned();
    heads.map(name).collect()
}

/// The page as a terminal shows it, if a formatter is installed here. It must not find anything wrong.
fn formatted(place: &Place, page: &str) -> Option<String> {
    let formatters: [(&str, &[&str]); 2] =
        [("groff", &["-man", "-Tascii", "-ww", "-P-cbou"]), ("mandoc", &["-Tascii", "-Wwarning"])];
    for (program, args) in formatters {
        let spawned = place
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else { continue };
        let mut stdin = child.stdin.take().unwrap();
        let page = page.to_owned();
        let writing = std::thread::spawn(move || stdin.write_all(page.as_bytes()));
        let out = child.wait_with_output().unwrap();
        writing.join().unwrap().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{program}: {}", text(&out.stderr));
        return Some(text(&out.stdout));
    }
    None
}

#[test]
fn every_command_has_a_page() {
    let place = Place::new();
    let out = place.memobuild(&["man", "--dir", "new/man1"]);
    assert!(out.status.success() && out.stdout.is_empty(), "{}", text(&out.stderr));
    let mut found = vec![vec![]];
    commands(&place, &[], &mut found);
    assert!(found.len() > 20, "{found:?}");
    let mut expected = BTreeSet::new();
    for words in &found {
        let name = [&["memobuild".to_owned()], words.as_slice()].concat().join("-");
        let page = place.read(&format!("new/man1/{name}.1"));
        let lines: Vec<&str> = page.lines().collect();
        let head = format!(".TH {name} 1 ");
        assert!(lines.iter().any(|line| line.starts_with(&head)), "{name}: no {head:?}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "\"SEE ALSO\""] {
            assert_eq!(lines.iter().filter(|line| **line == format!(".SH {section}")).count(), 1, "{name}: {section}");
        }
        // What is said after a name is what a search in all pages finds.
        let about = lines[lines.iter().position(|line| *line == ".SH NAME").unwrap() + 1];
        assert!(about.starts_with(&format!("{} \\- ", name.replace('-', "\\-"))), "{about}");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // One page alone is the same.
        assert_eq!(place.stdout(&[&["man"], words.as_slice()].concat()), page);
        expected.insert(format!("{name}.1"));
    }
    let names = fs::read_dir(place.path("new/man1")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_page_has_what_the_help_has() {
    let place = Place::new();
    for words in [&["build"] as &[&str], &["server"], &["server", "token", "add"], &["man"]] {
        let page = place.stdout(&[&["man"], words].concat());
        let options = options(&place, words);
        assert!(options.contains("help"), "{options:?}");
        for option in &options {
            let shown = format!("\\fB\\-\\-{}\\fR", option.replace('-', "\\-"));
            assert!(page.contains(&shown), "{words:?}: no --{option}");
        }
    }
    assert!(options(&place, &["build"]).len() > 40);
}

#[test]
fn formatters_can_read_the_pages() {
    let place = Place::new();
    let Some(build) = formatted(&place, &place.stdout(&["man", "build"])) else {
        println!("skipped: neither groff nor mandoc is installed");
        return;
    };
    for option in options(&place, &["build"]) {
        assert!(build.contains(&format!("--{option}")), "--{option}: {build}");
    }
    // Examples, and the table of exit codes, keep their lines.
    let program = formatted(&place, &place.stdout(&["man"])).unwrap();
    let help = place.stdout(&["--help"]);
    let table: Vec<&str> = help.lines().skip_while(|line| *line != "Exit codes:").skip(1).collect();
    assert!(table.len() > 3, "{help}");
    for line in table {
        assert!(program.lines().any(|shown| shown.trim_start() == line.trim_start()), "{line:?}: {program}");
    }
    let examples = place.stdout(&["build", "--help"]);
    for line in examples.lines().skip_while(|line| *line != "Examples:").skip(1) {
        assert!(build.lines().any(|shown| shown.trim() == line.trim()), "{line:?}: {build}");
    }
}

#[test]
fn a_command_that_is_none() {
    let out = Place::new().memobuild(&["man", "bild"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("there is no command \"bild\""), "{}", text(&out.stderr));
    assert_eq!(Place::new().memobuild(&["man", "build", "--dir", "x"]).status.code(), Some(2));
}
