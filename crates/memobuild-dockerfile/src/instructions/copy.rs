//! `COPY` and `ADD`.

use super::{Problem, Result};
use crate::ast::{Add, Copy, InlineFile, Word};
use crate::flags::{Flags, Takes};
use crate::heredoc;
use crate::raw::RawInstruction;

const COPY_FLAGS: &[(&str, Takes)] = &[
    ("chown", Takes::Text),
    ("from", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("exclude", Takes::List),
    ("parents", Takes::Bool),
];

const ADD_FLAGS: &[(&str, Takes)] = &[
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Text),
    ("unpack", Takes::Bool),
    ("exclude", Takes::List),
];

pub(super) fn copy(raw: &RawInstruction, words: &[Word]) -> Result<Copy> {
    let (paths, dest) = split(raw, words, "COPY")?;
    let flags = Flags::read(&raw.head.flags, COPY_FLAGS)?;
    let (sources, inline_files) = sources(raw, paths, dest, "COPY")?;
    Ok(Copy {
        sources,
        inline_files,
        dest: dest.clone(),
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.list("exclude"),
    })
}

pub(super) fn add(raw: &RawInstruction, words: &[Word]) -> Result<Add> {
    let (paths, dest) = split(raw, words, "ADD")?;
    let flags = Flags::read(&raw.head.flags, ADD_FLAGS)?;
    let (sources, inline_files) = sources(raw, paths, dest, "ADD")?;
    Ok(Add {
        sources,
        inline_files,
        dest: dest.clone(),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        exclude: flags.list("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.bool("keep-git-dir"),
        unpack: flags.bool("unpack"),
    })
}

fn split<'a>(raw: &RawInstruction, words: &'a [Word], name: &str) -> Result<(&'a [Word], &'a Word)> {
    match words {
        [paths @ .., dest] if !paths.is_empty() => Ok((paths, dest)),
        _ => Err(Problem::new(
            format!(
                "{name} requires at least two arguments, but only one was provided. \
                 Destination could not be determined"
            ),
            raw.line.whole(),
        )
        .expected(format!("{name} [--flag...] SOURCE... DESTINATION"))),
    }
}

fn sources(raw: &RawInstruction, paths: &[Word], dest: &Word, name: &str) -> Result<(Vec<Word>, Vec<InlineFile>)> {
    if let Ok(Some(_)) = heredoc::announced_by(dest) {
        let message = format!("{name} cannot accept a heredoc as a destination");
        return Err(Problem::new(message, dest.span));
    }
    let mut plain = Vec::new();
    let mut inline = Vec::new();
    for path in paths {
        let Ok(Some(announced)) = heredoc::announced_by(path) else {
            plain.push(path.clone());
            continue;
        };
        // Of several heredocs with one name the last one counts.
        let doc = raw.heredocs.iter().rfind(|doc| doc.name == announced.name);
        inline.push(InlineFile {
            name: announced.name,
            content: doc.map(|doc| doc.chomped_if(announced.chomp)).unwrap_or_default(),
            expand: announced.expand,
            span: path.span,
        });
    }
    Ok((plain, inline))
}
