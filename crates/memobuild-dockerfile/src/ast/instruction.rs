//! One type per instruction.

use std::time::Duration;

use super::mount::MountFlag;
use super::word::{Heredoc, Word};
use crate::span::Span;

/// Where an instruction comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The instruction's name as written (`RUN`, `run`, ...).
    pub name: Word,
    /// The instruction's text with continuation lines joined, trimmed; without heredoc contents.
    pub original: String,
    /// From the name's first byte to the end of the last line, heredocs included.
    pub span: Span,
    /// Comments directly above, in order, without `#` and outer blanks. A blank comment line
    /// starts the list anew; parser directives are not in it.
    pub comments: Vec<String>,
}

/// An instruction inside a stage.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Source, place and comments.
    pub origin: Origin,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says. `FROM` is a [`super::Stage`], not a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Arg),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Env),
    /// `EXPOSE`
    Expose(Expose),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Label),
    /// `MAINTAINER`: the name as written, never expanded.
    Maintainer(Word),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Shell),
    /// `STOPSIGNAL`: unexpanded.
    Stopsignal(Word),
    /// `USER`: unexpanded.
    User(Word),
    /// `VOLUME`: paths, unexpanded, each non-empty.
    Volume(Vec<Word>),
    /// `WORKDIR`: unexpanded.
    Workdir(Word),
}

impl Kind {
    /// The instruction's name in upper case, such as `RUN`.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Add(_) => "ADD",
            Kind::Arg(_) => "ARG",
            Kind::Cmd(_) => "CMD",
            Kind::Copy(_) => "COPY",
            Kind::Entrypoint(_) => "ENTRYPOINT",
            Kind::Env(_) => "ENV",
            Kind::Expose(_) => "EXPOSE",
            Kind::Healthcheck(_) => "HEALTHCHECK",
            Kind::Label(_) => "LABEL",
            Kind::Maintainer(_) => "MAINTAINER",
            Kind::Onbuild(_) => "ONBUILD",
            Kind::Run(_) => "RUN",
            Kind::Shell(_) => "SHELL",
            Kind::Stopsignal(_) => "STOPSIGNAL",
            Kind::User(_) => "USER",
            Kind::Volume(_) => "VOLUME",
            Kind::Workdir(_) => "WORKDIR",
        }
    }
}

/// A command in exec form (`["a", "b"]`) or shell form (`a b`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Exec form: the arguments. Shell form: one word, the command line; none if it is empty.
    pub args: Vec<Word>,
    /// Exec form: run as it is. Otherwise the stage's shell goes in front.
    pub exec: bool,
    /// Heredocs of a `RUN` in shell form, in order.
    pub heredocs: Vec<Heredoc>,
}

/// `NAME=value` or the old `NAME value` of `ENV` and `LABEL`; both words unexpanded, quotes in
/// place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The name; never empty.
    pub key: Word,
    /// The value; may be empty.
    pub value: Word,
    /// Written the old way, with a blank in place of `=` (rule `LegacyKeyValueFormat`).
    pub legacy: bool,
}

/// `ENV`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    /// Pairs in order; at least one.
    pub pairs: Vec<KeyValue>,
}

/// `LABEL`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Pairs in order; at least one.
    pub pairs: Vec<KeyValue>,
}

/// `ARG`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Declarations in order; at least one.
    pub args: Vec<ArgDecl>,
}

/// One declaration of `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDecl {
    /// The name, unexpanded.
    pub key: Word,
    /// The default, unexpanded; none when there is no `=`.
    pub value: Option<Word>,
    /// Text of a comment `# NAME text` directly above.
    pub doc: Option<String>,
}

/// A file whose content stands in the Dockerfile (a heredoc of `COPY` or `ADD`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// File name: the heredoc's delimiter.
    pub name: String,
    /// Content, leading tabs already removed for `<<-`.
    pub content: String,
    /// Whether variables in the content are expanded (with quotes left in place).
    pub expand: bool,
    /// The word `<<NAME` in the instruction.
    pub span: Span,
}

/// `COPY`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Source paths or patterns in order, unexpanded.
    pub sources: Vec<Word>,
    /// Heredoc sources in order.
    pub inline_files: Vec<InlineFile>,
    /// Destination, unexpanded.
    pub dest: Word,
    /// `--from`: a stage name or number, named context, or image. Plan expands it.
    pub from: Option<Word>,
    /// `--chown`, unexpanded.
    pub chown: Option<Word>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude` patterns, unexpanded.
    pub exclude: Vec<Word>,
}

/// `ADD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Source paths, patterns, URLs or git references in order, unexpanded.
    pub sources: Vec<Word>,
    /// Heredoc sources in order.
    pub inline_files: Vec<InlineFile>,
    /// Destination, unexpanded.
    pub dest: Word,
    /// `--chown`, unexpanded.
    pub chown: Option<Word>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--exclude` patterns, unexpanded.
    pub exclude: Vec<Word>,
    /// `--checksum`, unexpanded.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`; none when not given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`; none when not given.
    pub unpack: Option<bool>,
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// `--mount` flags in order; see [`MountFlag::resolve`].
    pub mounts: Vec<MountFlag>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device` flags in order.
    pub devices: Vec<Device>,
}

/// `RUN --network=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// The builder's default.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's network.
    Host,
}

/// `RUN --security=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// The ordinary sandbox.
    #[default]
    Sandbox,
    /// Privileged; the caller must have allowed it.
    Insecure,
}

/// `RUN --device=`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// CDI device name.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The flag.
    pub span: Span,
}

/// `EXPOSE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expose {
    /// Port specifications in source order, unexpanded; at least one. Each may expand to several.
    pub ports: Vec<Word>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// What to run.
    pub test: HealthTest,
    /// `--interval`; zero or not given: none.
    pub interval: Option<Duration>,
    /// `--timeout`; zero or not given: none.
    pub timeout: Option<Duration>,
    /// `--start-period`; zero or not given: none.
    pub start_period: Option<Duration>,
    /// `--start-interval`; zero or not given: none.
    pub start_interval: Option<Duration>,
    /// `--retries`; 0 when not given.
    pub retries: u32,
}

/// What a `HEALTHCHECK` runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthTest {
    /// `HEALTHCHECK NONE`: switch an inherited check off.
    None,
    /// `HEALTHCHECK CMD`: image config `CMD` in exec form, `CMD-SHELL` in shell form.
    Cmd(CommandLine),
}

/// `ONBUILD`: kept as text, as it is recorded in the image and parsed by the build that uses it
/// (see [`crate::parse_trigger`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The text to record: the trigger with heredocs, if any, put back.
    pub expression: String,
    /// The trigger's name as written.
    pub trigger: Word,
    /// Heredocs of the trigger.
    pub heredocs: Vec<Heredoc>,
}

/// `SHELL`: the arguments in exec form; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// Program and arguments.
    pub args: Vec<Word>,
}
