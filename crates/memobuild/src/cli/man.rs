//! `memobuild man`: the manual's pages, made from what `--help` is made from.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command, builder::Resettable};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::{CliResult, Failure, text};

/// Print a manual page, or write those of all commands
///
/// To read one: memobuild man build | man -l -
///
/// To install all: memobuild man --dir ~/.local/share/man/man1
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The command that the page is about, like build or server token; without it the program as a whole
    #[arg(conflicts_with = "dir")]
    command: Vec<String>,

    /// Write the page of each command into this directory, which is made if it lacks
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs, program: Command) -> CliResult {
    // Its pages would say what every page does.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    match &args.dir {
        Some(dir) => write_all(&program, dir)?,
        None => text::bytes_to_stdout(&page(find(&program, &args.command)?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(program: &'a Command, words: &[String]) -> Result<&'a Command, Failure> {
    let mut command = program;
    for word in words {
        command = command
            .find_subcommand(word)
            .ok_or_else(|| Failure::usage(format!("there is no command {:?}", words.join(" "))))?;
    }
    Ok(command)
}

fn write_all(program: &Command, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|e| Failure::file(format!("cannot make {}", dir.display()), &e))?;
    let mut left = vec![program];
    let mut count = 0;
    while let Some(command) = left.pop() {
        let path = dir.join(format!("{}.1", name(command)));
        let failed = |e| Failure::file(format!("cannot write {}", path.display()), &e);
        std::fs::write(&path, page(command)?).map_err(failed)?;
        count += 1;
        left.extend(command.get_subcommands().filter(|c| !c.is_hide_set()));
    }
    text::to_stderr(&format!("wrote {count} pages to {}\n", dir.display()));
    Ok(())
}

/// `memobuild-server-token`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    // Texts after the help have lines that must stay as they are, so they are written here.
    let body = command.clone().after_help(Resettable::Reset);
    // A word without a letter would be dropped from the head, and those after it would stand in its place.
    let man = Man::new(body).date(" ").source(concat!("memobuild ", env!("CARGO_PKG_VERSION"))).manual("memobuild");
    let mut out = Vec::new();
    man.render(&mut out).map_err(|e| Failure::file("cannot write a page", &e))?;
    let mut rest = Roff::new();
    if let Some(after) = command.get_after_help() {
        as_sections(&mut rest, &after.to_string());
    }
    see_also(&mut rest, command);
    // A plain quote, as the head of the page has defined it, and no typographic one.
    out.extend_from_slice(rest.to_roff().replace('\'', r"\*(Aq").as_bytes());
    Ok(out)
}

/// A line with a colon at its end, and no space in front, begins a section.
fn as_sections(page: &mut Roff, after: &str) {
    let mut open = false;
    for line in after.lines() {
        match line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            Some(heading) => {
                if open {
                    page.control("fi", []);
                }
                page.control("SH", [heading.to_uppercase().as_str()]);
                page.control("nf", []);
                open = true;
            }
            None => {
                page.text([roman(line)]);
            }
        }
    }
    if open {
        page.control("fi", []);
    }
}

fn see_also(page: &mut Roff, command: &Command) {
    // `memobuild-explain-cache` without its own name.
    let above = name(command).strip_suffix(command.get_name()).and_then(|above| above.strip_suffix('-'));
    let above = above.map_or_else(String::new, |above| format!("{above}(1), "));
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(format!("{above}{}", env!("CARGO_PKG_REPOSITORY")))]);
}
