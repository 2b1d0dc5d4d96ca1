//! What `--help` says, of each command.

mod common;

use common::Place;

#[test]
fn help_of_the_program() {
    insta::assert_snapshot!(Place::new().stdout(&["--help"]));
}

#[test]
fn help_of_each_command() {
    let place = Place::new();
    let help = place.stdout(&["--help"]);
    let commands = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let mut seen = 0;
    for command in commands.filter_map(|l| l.split_whitespace().next()).filter(|c| *c != "help") {
        insta::assert_snapshot!(format!("help_{command}"), place.stdout(&[command, "--help"]));
        seen += 1;
    }
    assert!(seen >= 8, "{help}");
}

#[test]
fn the_version_is_the_crates() {
    assert_eq!(Place::new().stdout(&["--version"]), format!("memobuild {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Place::new().stdout(&["completions", shell]);
        for command in ["build", "check", "prune"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}
