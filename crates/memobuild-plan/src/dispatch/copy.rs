//! COPY, and what ADD shares with it: destination, owner, mode, sources in a tree and sources in the Dockerfile.

use memobuild_dockerfile::Span;
use memobuild_dockerfile::ast::{self, InlineFile, Word};
use memobuild_dockerfile::lint::Finding;
use memobuild_dockerfile::words::Lexer;

use super::Dispatch;
use crate::chmod;
use crate::error::Failure;
use crate::git::GitRef;
use crate::model::{Copy, CopySource, Op, StepId, Unpack};
use crate::path;
use crate::stages::Command;

/// What COPY and ADD have in common, as written.
pub(super) struct Flags<'a> {
    pub(super) dest: &'a Word,
    pub(super) chown: Option<&'a Word>,
    pub(super) chmod: Option<&'a Word>,
    pub(super) link: bool,
    pub(super) parents: bool,
    pub(super) exclude: &'a [Word],
}

/// A source after expansion.
pub(super) struct Source {
    pub(super) text: String,
    pub(super) span: Span,
}

impl<'f> Dispatch<'_, 'f> {
    pub(super) fn copy_instruction(&mut self, command: &Command<'f>, copy: &ast::Copy) -> Result<(), Failure> {
        let flags = Flags {
            dest: &copy.dest,
            chown: copy.chown.as_ref(),
            chmod: copy.chmod.as_ref(),
            link: copy.link,
            parents: copy.parents,
            exclude: &copy.exclude,
        };
        let (mut op, mut text) = self.copy_frame(command, "COPY", &flags)?;
        let sources = self.copy_sources(command, &copy.sources)?;
        let (dest, dest_text) = self.copy_dest(command, flags.dest)?;
        let inline = self.inline_files(command, &copy.inline_files)?;
        let from = match command.sources.first().copied().flatten() {
            Some(stage) => Some(self.tree_of(stage).ok_or_else(|| {
                let name = copy.from.as_ref().map_or("", |from| from.as_str());
                let this = &self.pass.stages[self.index].label;
                let text =
                    format!("cannot copy from stage {name:?}, it needs to be defined before current stage {this:?}");
                Failure::new(copy.from.as_ref().map_or(command.span, |from| command.place(from.span)), text)
            })?),
            None => None,
        };
        for source in &sources {
            refuse_remote(source)?;
        }
        let label = self.copy_label(command);
        let tree = match from {
            Some(tree) => tree,
            None if sources.is_empty() => self.state.root,
            None => self.context(),
        };
        for source in &sources {
            text.push_str(&format!(" {}", source.text));
            if from.is_none() {
                self.check_ignored(command, "Copy", &source.text);
            }
            op.sources.push(tree_source(tree, &source.text, copy.parents, Unpack::Never));
        }
        text.push_str(&inline_text(&inline));
        op.sources.extend(inline);
        self.finish_copy(command, op, dest, format!("{text} {dest_text}"), label);
        Ok(())
    }

    /// Flags of the instruction: an operation without sources, and the beginning of its history line.
    pub(super) fn copy_frame(
        &mut self,
        command: &Command<'f>,
        name: &str,
        flags: &Flags<'_>,
    ) -> Result<(Copy, String), Failure> {
        let chown = self.expand_flag(command, flags.chown)?;
        let mode = self.expand_flag(command, flags.chmod)?;
        let mut text = name.to_owned();
        if flags.parents {
            text.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &mode)] {
            if let Some(value) = value {
                text.push_str(&format!(" --{flag}={value}"));
            }
        }
        let span = flags.chmod.map_or(command.span, |word| command.place(word.span));
        let chmod = mode.as_deref().map(chmod::parse).transpose().map_err(|error| Failure::new(span, error))?;
        let op = Copy {
            parent: self.state.root,
            sources: Vec::new(),
            dest: String::new(),
            dest_is_dir: false,
            chown,
            // With a mode, the parent's tree decides as without the flag.
            link: flags.link && chmod.is_none(),
            chmod,
            parents: flags.parents,
            exclude: flags.exclude.iter().map(|word| word.text.clone()).collect(),
            unpack: Unpack::Never,
        };
        Ok((op, text))
    }

    pub(super) fn copy_sources(&mut self, command: &Command<'f>, words: &[Word]) -> Result<Vec<Source>, Failure> {
        words
            .iter()
            .map(|word| Ok(Source { text: self.expand(command, word)?, span: command.place(word.span) }))
            .collect()
    }

    /// The destination, and as it is shown.
    pub(super) fn copy_dest(
        &mut self,
        command: &Command<'f>,
        dest: &Word,
    ) -> Result<((String, bool), String), Failure> {
        let text = self.expand(command, dest)?;
        let absolute = path::within(&self.state.dir, &text);
        let is_dir = path::is_dir_form(&text) || absolute == "/";
        Ok(((absolute, is_dir), text))
    }

    /// Heredocs of the instruction. Quotes in their content are just characters.
    pub(super) fn inline_files(
        &mut self,
        command: &Command<'f>,
        files: &[InlineFile],
    ) -> Result<Vec<CopySource>, Failure> {
        let lexer = Lexer { skip_quotes: true, ..Lexer::new('\\') };
        let mut out = Vec::with_capacity(files.len());
        for file in files {
            let content = if file.expand {
                let word = Word::new(file.content.clone(), file.span);
                self.expand_with(lexer, command, &word)?.text
            } else {
                file.content.clone()
            };
            out.push(CopySource::Inline { name: file.name.clone(), content });
        }
        Ok(out)
    }

    pub(super) fn copy_label(&mut self, command: &Command<'f>) -> String {
        let env = self.state.env.clone();
        self.label_text(command, self.pass.lexer(), "", &env)
    }

    pub(super) fn finish_copy(
        &mut self,
        command: &Command<'f>,
        mut op: Copy,
        dest: (String, bool),
        text: String,
        label: String,
    ) {
        (op.dest, op.dest_is_dir) = dest;
        let unpacks = |source: &CopySource| matches!(source, CopySource::Path { unpack: Unpack::Archives, .. });
        if op.sources.iter().any(unpacks) {
            op.unpack = Unpack::Archives;
        }
        let step = self.step(command, Op::Copy(Box::new(op)), label);
        self.state.advance(format!("{text} # buildkit"), step);
    }

    /// A source that the ignore file leaves out of the context. The root is never one.
    pub(super) fn check_ignored(&mut self, command: &Command<'f>, verb: &str, source: &str) {
        let clean = path::clean(source);
        let relative = clean.trim_start_matches('/');
        let ignored = |ignored: &dyn Fn(&str) -> bool| !matches!(relative, "" | ".") && ignored(relative);
        if self.pass.ignored.is_some_and(ignored) {
            self.pass.checks.report(Finding::copy_ignored_file(command.span, verb, &clean));
        }
    }
}

/// History's words for heredocs.
pub(super) fn inline_text(files: &[CopySource]) -> String {
    files
        .iter()
        .filter_map(|file| match file {
            CopySource::Inline { name, .. } => Some(format!(" <<{name}")),
            CopySource::Path { .. } => None,
        })
        .collect()
}

/// What only ADD can fetch.
fn refuse_remote(source: &Source) -> Result<(), Failure> {
    let refuse = |what| Err(Failure::new(source.span, what).hint("ADD fetches it"));
    match GitRef::parse(&source.text) {
        Some(Err(error)) => Err(Failure::new(source.span, error)),
        Some(Ok(git)) if !git.like_a_path => refuse("source can't be a git ref for COPY"),
        _ if source.text.starts_with("http://") || source.text.starts_with("https://") => {
            refuse("source can't be a URL for COPY")
        }
        _ => Ok(()),
    }
}

/// A path or pattern in a tree. With `--parents`, what stands in front of `/./` is not kept in the destination.
pub(super) fn tree_source(from: StepId, text: &str, parents: bool, unpack: Unpack) -> CopySource {
    let (pattern, pivot) = match text.split_once("/./").filter(|_| parents) {
        Some((front, rest)) => {
            let front = path::absolute(front);
            let depth = front.split('/').filter(|part| !part.is_empty()).count();
            (path::absolute(&format!("{front}{}", path::absolute(rest))), Some(depth))
        }
        None => (path::absolute(text), None),
    };
    let may_be_empty = path::has_wildcards(&pattern);
    CopySource::Path { from, pattern, pivot, may_be_empty, unpack }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str, parents: bool) -> (String, Option<usize>, bool) {
        match tree_source(StepId(0), text, parents, Unpack::Never) {
            CopySource::Path { pattern, pivot, may_be_empty, .. } => (pattern, pivot, may_be_empty),
            CopySource::Inline { .. } => unreachable!(),
        }
    }

    #[test]
    fn patterns_start_at_the_root() {
        assert_eq!(source("../a/", false), ("/a".into(), None, false));
        assert_eq!(source(".", false), ("/".into(), None, false));
        assert_eq!(source("a/./b", false), ("/a/b".into(), None, false));
        assert_eq!(source("*.txt", false), ("/*.txt".into(), None, true));
    }

    #[test]
    fn a_pivot_counts_components() {
        assert_eq!(source("a/b/./c/*", true), ("/a/b/c/*".into(), Some(2), true));
        assert_eq!(source("./x", true), ("/x".into(), None, false));
        assert_eq!(source("/./x", true), ("/x".into(), Some(0), false));
        assert_eq!(source("a/./../../x", true), ("/a/x".into(), Some(1), false));
    }
}
