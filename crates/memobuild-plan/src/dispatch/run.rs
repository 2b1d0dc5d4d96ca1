//! RUN.

use memobuild_dockerfile::ast::{self, Heredoc, Security};
use memobuild_dockerfile::words::{Env, Lexer};

use super::Dispatch;
use crate::args::{self, EnvList};
use crate::error::{Failure, PlanErrorKind};
use crate::label;
use crate::model::{Mount, MountKind, Network, Op, Run};
use crate::stages::Command;

/// Where the script of a heredoc with a `#!` line appears.
const SCRIPTS: &str = "/dev/pipes";

/// What a RUN runs.
struct Program {
    /// Without shell: the arguments, or one command line.
    args: Vec<String>,
    /// A script that it needs as a file.
    script: Option<Mount>,
    /// Text behind the label.
    addition: String,
}

impl<'f> Dispatch<'_, 'f> {
    pub(super) fn run(&mut self, command: &Command<'f>, run: &ast::Run) -> Result<(), Failure> {
        let Program { args, script, addition } = self.program(run);
        let argv = if run.command.exec { args } else { self.state.with_shell(args.join(" ")) };
        let mut mounts: Vec<Mount> = script.into_iter().collect();
        let mut secrets = EnvList::default();
        self.mounts(command, run, &mut mounts, &mut secrets)?;
        self.check_allowed(command, run)?;
        let options = self.pass.options;
        let scope = self.args_in_scope();
        let proxy_env = args::proxies(&options.build_args)
            .into_iter()
            .filter(|(name, _)| !self.state.declared.iter().any(|(declared, _)| declared == name))
            .collect();
        let op = Run {
            parent: self.state.root,
            argv: argv.clone(),
            env: self.state.env.pairs().to_vec(),
            proxy_env,
            cwd: self.state.dir.clone(),
            user: self.state.image.config.user.clone(),
            mounts,
            network: match run.network {
                ast::Network::Default => options.network,
                ast::Network::Host => Network::Host,
                ast::Network::None => Network::None,
            },
            insecure: run.security == Security::Insecure,
            hosts: options.hosts.clone(),
            shm_size: options.shm_size,
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            hostname: options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").filter(|name| !name.is_empty()).cloned(),
        };
        // A label shows variables that are set, keeps quotes as they are, and masks secrets.
        let lexer = Lexer { raw_quotes: true, skip_unset: true, ..self.pass.lexer() };
        let shown = Masked { base: self.state.env.clone(), secrets };
        let label = self.label_text(command, lexer, &addition, &shown);
        let step = self.step(command, Op::Run(Box::new(op)), label);
        let mut words = Vec::new();
        if !scope.is_empty() {
            words.push(format!("|{}", scope.len()));
            words.extend(scope);
        }
        words.extend(argv);
        self.state.advance(format!("RUN {} # buildkit", words.join(" ")), step);
        Ok(())
    }

    /// The three forms of a heredoc: a script with `#!`, a script for the shell, and redirections that the shell sees.
    fn program(&self, run: &ast::Run) -> Program {
        let args: Vec<String> = run.command.args.iter().map(|word| word.text.clone()).collect();
        let (Some(first), [line]) = (run.command.heredocs.first(), args.as_slice()) else {
            return Program { args, script: None, addition: String::new() };
        };
        if !is_just(line, first) {
            let mut text = line.clone();
            for heredoc in &run.command.heredocs {
                text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
            }
            return Program { args: vec![text], script: None, addition: String::new() };
        }
        let content = first.chomped();
        let addition = format!(" ({})", label::summary(&first.content));
        if content.starts_with("#!") && self.state.image.platform.os != "windows" {
            let target = format!("{SCRIPTS}/{}", first.name);
            let script = Mount { target: target.clone(), kind: MountKind::Script { content } };
            return Program { args: vec![target], script: Some(script), addition };
        }
        Program { args: vec![content], script: None, addition }
    }

    fn check_allowed(&self, command: &Command<'f>, run: &ast::Run) -> Result<(), Failure> {
        if run.security == Security::Insecure && !self.pass.options.allow_insecure {
            return Err(Failure::new(command.span, "security.insecure is not allowed")
                .kind(PlanErrorKind::Denied)
                .hint("allow it with `--allow security.insecure`"));
        }
        match run.devices.iter().find(|device| device.required) {
            Some(device) => Err(Failure::new(
                command.place(device.span),
                format!("device {:?} is required, and there are no CDI devices here", device.name),
            )
            .kind(PlanErrorKind::Denied)),
            None => Ok(()),
        }
    }
}

/// Whether a command line is nothing but the announcement of its heredoc.
fn is_just(line: &str, heredoc: &Heredoc) -> bool {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = rest.strip_prefix("<<") else {
        return false;
    };
    let rest = rest.strip_prefix('-').unwrap_or(rest).trim_start();
    if rest.contains('<') {
        return false;
    }
    let lexer = Lexer { skip_unset: true, ..Lexer::new('\\') };
    lexer
        .expand(rest, &EnvList::default())
        .is_ok_and(|e| e.words.iter().map(String::as_str).eq([heredoc.name.as_str()]))
}

/// Variables with those of secrets masked.
struct Masked {
    base: EnvList,
    secrets: EnvList,
}

impl Env for Masked {
    fn get(&self, name: &str) -> Option<String> {
        self.secrets.get(name).or_else(|| self.base.get(name))
    }

    fn names(&self) -> Vec<String> {
        [self.base.names(), self.secrets.names()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobuild_dockerfile::Span;

    #[test]
    fn a_heredoc_alone() {
        let heredoc = Heredoc {
            name: "EOF".into(),
            fd: 0,
            expand: true,
            chomp: false,
            content: String::new(),
            span: Span::lines(1, 1),
        };
        for yes in ["<<EOF", "<<-EOF", "<<'EOF'", "3<<\"EOF\"", "<< EOF"] {
            assert!(is_just(yes, &heredoc), "{yes}");
        }
        for no in ["cat <<EOF", "<<EOF cat", "<<EOF > /x", "<<A <<EOF", "EOF"] {
            assert!(!is_just(no, &heredoc), "{no}");
        }
    }
}
