//! WORKDIR.

use memobuild_dockerfile::ast::Word;
use memobuild_dockerfile::lint::Finding;

use super::Dispatch;
use crate::error::Failure;
use crate::model::{Mkdir, Op};
use crate::path;
use crate::stages::Command;

impl<'f> Dispatch<'_, 'f> {
    pub(super) fn workdir(&mut self, command: &Command<'f>, word: &Word) -> Result<(), Failure> {
        let written = self.expand(command, word)?;
        if !self.state.workdir_set && !written.starts_with('/') {
            self.pass.checks.report(Finding::workdir_relative_path(command.span, &written));
        }
        self.state.workdir_set = true;
        // An absolute path stays as it is written in the config; steps get it clean.
        let shown = if written.starts_with('/') { written } else { path::within(&self.state.dir, &written) };
        self.state.dir = path::clean(&shown);
        self.state.image.config.working_dir.clone_from(&shown);
        let text = format!("WORKDIR {shown}");
        if shown == "/" {
            self.state.note(text);
            return Ok(());
        }
        let env = self.state.env.clone();
        let label = self.label_text(command, self.pass.lexer(), "", &env);
        let mkdir =
            Mkdir { parent: self.state.root, path: self.state.dir.clone(), user: self.state.image.config.user.clone() };
        let step = self.step(command, Op::Mkdir(mkdir), label);
        self.state.advance(text, step);
        Ok(())
    }
}
