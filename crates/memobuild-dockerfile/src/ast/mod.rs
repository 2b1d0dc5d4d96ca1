//! The syntax tree: what [`crate::parse`] gives back and `memobuild-plan` reads.
//!
//! All words are as written, with variables unexpanded and quotes in place wherever the builder
//! expands the word later (`ENV`, `LABEL`, `COPY`, ...). Types here only hold data; they are made
//! by the parser and never change afterwards.

mod instruction;
mod mount;
mod word;

pub use instruction::{
    Add, Arg, ArgDecl, CommandLine, Copy, Device, Env, Expose, HealthTest, Healthcheck, InlineFile, Instruction,
    KeyValue, Kind, Label, Network, Onbuild, Origin, Run, Security, Shell,
};
pub use mount::{
    BindMount, CacheMount, FileOwner, Mount, MountError, MountFlag, SecretMount, Sharing, SshMount, TmpfsMount,
};
pub use word::{Heredoc, Word};

use crate::diagnostic::Diagnostic;
use crate::lint::CheckOptions;
use crate::span::{SourceFile, Span};

/// A whole Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// The file it came from, for messages.
    pub source: SourceFile,
    /// Parser directives at the top of the file.
    pub directives: Directives,
    /// `ARG` instructions before the first `FROM`, in order.
    pub meta_args: Vec<MetaArg>,
    /// Build stages in order; never empty.
    pub stages: Vec<Stage>,
    /// What the parser noticed and went on from.
    pub warnings: Vec<Warning>,
}

/// Parser directives (`# syntax=`, `# escape=`, `# check=`).
#[derive(Clone, Debug)]
pub struct Directives {
    /// `# syntax=`: the whole value and where it stands. Informative: there is one frontend.
    pub syntax: Option<Word>,
    /// Escape and continuation character: `\` unless `# escape=` says a backtick.
    pub escape: char,
    /// `# check=`, parsed.
    pub check: CheckOptions,
    /// Where `# check=` stands.
    pub check_span: Option<Span>,
}

/// An `ARG` before the first `FROM`.
#[derive(Clone, Debug)]
pub struct MetaArg {
    /// Source, place and comments.
    pub origin: Origin,
    /// The declarations.
    pub arg: Arg,
}

/// One build stage: its `FROM` and the instructions that follow.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Source, place and comments of the `FROM`.
    pub origin: Origin,
    /// Name behind `AS` in lower case, as stages are looked up without regard to case. Its span
    /// covers the name as written.
    pub name: Option<Word>,
    /// The word `AS` as written.
    pub as_keyword: Option<Word>,
    /// The stage's name as written, in whatever case.
    pub name_as_written: Option<String>,
    /// Base: an image reference, a stage name or `scratch`, with variables unexpanded.
    pub base: Word,
    /// `--platform=`, unexpanded; absent or empty: none.
    pub platform: Option<Word>,
    /// Text of a comment `# NAME text` directly above, if it describes this stage.
    pub doc: Option<String>,
    /// Instructions up to the next `FROM`.
    pub instructions: Vec<Instruction>,
}

/// Something odd that does not stop a build. See [`crate::lint::lint`] for the checks proper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A blank line inside a continued instruction (rule `NoEmptyContinuation`); holds the span
    /// of the instruction's last line.
    EmptyContinuation(Span),
    /// An argument that looks like an exec form but is not valid JSON, so that the shell runs it
    /// as it stands; holds the argument's span.
    MalformedExecForm(Span),
}

impl Warning {
    /// The warning with its place in `source`.
    pub fn diagnostic(&self, source: &SourceFile) -> Diagnostic {
        match *self {
            Warning::EmptyContinuation(span) => Diagnostic::warning(source, span, "Empty continuation line"),
            Warning::MalformedExecForm(span) => {
                Diagnostic::warning(source, span, "not valid JSON, so the shell runs it as it stands")
                    .with_hint("an exec form is an array of strings in double quotes, and nothing behind it")
            }
        }
    }
}
