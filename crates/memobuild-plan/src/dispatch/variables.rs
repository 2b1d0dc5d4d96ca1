//! ENV, ARG and LABEL.

use memobuild_dockerfile::ast::{Arg, Env, KeyValue, Label};

use super::Dispatch;
use crate::args::NO_ENV;
use crate::error::Failure;
use crate::image;
use crate::stages::Command;

impl<'f> Dispatch<'_, 'f> {
    /// Pairs are all expanded before the first one is set: `ENV a=1 b=$a` sees the old `a`.
    fn expand_pairs(&mut self, command: &Command<'f>, pairs: &[KeyValue]) -> Result<Vec<(String, String)>, Failure> {
        let name = command.instruction.origin.name.text.clone();
        let mut out = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let key = self.expand(command, &pair.key)?;
            let value = self.expand(command, &pair.value)?;
            if pair.legacy {
                self.pass.checks.legacy_pair(command.span, &name);
            }
            out.push((key, value));
        }
        Ok(out)
    }

    pub(super) fn env(&mut self, command: &Command<'f>, env: &Env) -> Result<(), Failure> {
        let mut text = "ENV".to_owned();
        for (name, value) in self.expand_pairs(command, &env.pairs)? {
            self.pass.checks.secret_name(command.span, "ENV", &name);
            text.push_str(&format!(" {name}={value}"));
            image::set_env(&mut self.state.image.config.env, &name, &value);
            self.state.env.set(&name, value);
        }
        self.state.note(text);
        Ok(())
    }

    pub(super) fn label(&mut self, command: &Command<'f>, label: &Label) -> Result<(), Failure> {
        let mut text = "LABEL".to_owned();
        for (name, value) in self.expand_pairs(command, &label.pairs)? {
            text.push_str(&format!(" {name}={value}"));
            self.state.image.config.labels.insert(name, value);
        }
        self.state.note(text);
        Ok(())
    }

    /// A build arg wins over the default, and the default over the global ARG of that name.
    pub(super) fn arg(&mut self, command: &Command<'f>, arg: &Arg) -> Result<(), Failure> {
        let mut texts = vec!["ARG".to_owned()];
        for decl in &arg.args {
            let name = decl.key.text.as_str();
            self.pass.checks.secret_name(command.span, "ARG", name);
            let value = match (self.pass.options.build_args.get(name), &decl.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(command, default)?),
                (None, None) => self.pass.globals.env.value(name).map(Into::into),
            };
            if let Some(value) = value.as_ref().filter(|_| !NO_ENV.contains(&name)) {
                self.state.env.set(name, value.clone());
            }
            texts.push(value.as_ref().map_or_else(|| name.to_owned(), |value| format!("{name}={value}")));
            self.state.declared.push((name.to_owned(), value));
        }
        self.state.note(texts.join(" "));
        Ok(())
    }
}
