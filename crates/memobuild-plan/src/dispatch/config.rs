//! Instructions that only change the image config: CMD, ENTRYPOINT, HEALTHCHECK, MAINTAINER, SHELL, STOPSIGNAL, USER,
//! VOLUME.

use std::time::Duration;

use memobuild_dockerfile::ast::{CommandLine, HealthTest, Healthcheck, Shell, Word};
use memobuild_image::{Empty, Healthcheck as ImageHealthcheck};

use super::Dispatch;
use crate::error::Failure;
use crate::history;
use crate::stages::Command;

impl<'f> Dispatch<'_, 'f> {
    /// Exec form as it is, shell form behind the shell.
    fn command_line(&mut self, command: &Command<'f>, line: &CommandLine) -> Vec<String> {
        let words: Vec<String> = line.args.iter().map(|word| word.text.clone()).collect();
        if line.exec {
            return words;
        }
        if self.state.image.config.shell.is_empty() {
            let name = command.instruction.origin.name.text.clone();
            self.pass.checks.shell_form(command.span, &name);
        }
        self.state.with_shell(words.join(" "))
    }

    pub(super) fn cmd(&mut self, command: &Command<'f>, line: &CommandLine) -> Result<(), Failure> {
        if let Some(earlier) = self.cmd.replace(command.span) {
            self.pass.checks.overridden(earlier, &command.instruction.origin.name);
        }
        let args = self.command_line(command, line);
        self.state.note(format!("CMD {}", history::quote_list(&args)));
        self.state.image.config.cmd = Some(args).filter(|args| !args.is_empty());
        self.state.image.config.args_escaped = true;
        Ok(())
    }

    /// It takes back a CMD that came from the base, not one of the stage's own.
    pub(super) fn entrypoint(&mut self, command: &Command<'f>, line: &CommandLine) -> Result<(), Failure> {
        if let Some(earlier) = self.entrypoint.replace(command.span) {
            self.pass.checks.overridden(earlier, &command.instruction.origin.name);
        }
        let args = self.command_line(command, line);
        self.state.note(format!("ENTRYPOINT {}", history::quote_list(&args)));
        self.state.image.config.entrypoint = Some(args).filter(|args| !args.is_empty());
        if self.cmd.is_none() {
            self.state.image.config.cmd = None;
        }
        Ok(())
    }

    pub(super) fn healthcheck(&mut self, command: &Command<'f>, check: &Healthcheck) -> Result<(), Failure> {
        if let Some(earlier) = self.healthcheck.replace(command.span) {
            self.pass.checks.overridden(earlier, &command.instruction.origin.name);
        }
        let test = match &check.test {
            HealthTest::None => vec!["NONE".to_owned()],
            HealthTest::Cmd(line) => {
                let kind = if line.exec { "CMD" } else { "CMD-SHELL" };
                [kind].into_iter().chain(line.args.iter().map(|word| word.as_str())).map(Into::into).collect()
            }
        };
        let text = |duration: Option<Duration>| history::duration(duration.unwrap_or_default());
        self.state.note(format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            history::list(&test),
            text(check.interval),
            text(check.timeout),
            text(check.start_period),
            text(check.start_interval),
            check.retries
        ));
        let nanos = |d: Option<Duration>| i64::try_from(d.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX);
        self.state.image.config.healthcheck = Some(ImageHealthcheck {
            test,
            interval: nanos(check.interval),
            timeout: nanos(check.timeout),
            start_period: nanos(check.start_period),
            start_interval: nanos(check.start_interval),
            retries: i64::from(check.retries),
        });
        Ok(())
    }

    pub(super) fn maintainer(&mut self, name: &Word) -> Result<(), Failure> {
        self.state.image.author.clone_from(&name.text);
        self.state.note(format!("MAINTAINER {}", name.as_str()));
        Ok(())
    }

    pub(super) fn shell(&mut self, shell: &Shell) -> Result<(), Failure> {
        let args: Vec<String> = shell.args.iter().map(|word| word.text.clone()).collect();
        self.state.note(format!("SHELL {}", history::list(&args)));
        self.state.image.config.shell = args;
        Ok(())
    }

    pub(super) fn stopsignal(&mut self, command: &Command<'f>, signal: &Word) -> Result<(), Failure> {
        let text = self.expand(command, signal)?;
        if !is_signal(&text) {
            return Err(Failure::new(command.place(signal.span), format!("invalid signal: {text}"))
                .expected("a number or a name such as SIGTERM")
                .suggest(
                    &text.to_ascii_uppercase(),
                    ["SIGTERM", "SIGINT", "SIGQUIT", "SIGKILL", "SIGHUP", "SIGUSR1"],
                ));
        }
        self.state.note(format!("STOPSIGNAL {text}"));
        self.state.image.config.stop_signal = text;
        Ok(())
    }

    pub(super) fn user(&mut self, command: &Command<'f>, user: &Word) -> Result<(), Failure> {
        let text = self.expand(command, user)?;
        self.state.note(format!("USER {text}"));
        self.state.image.config.user = text;
        Ok(())
    }

    pub(super) fn volume(&mut self, command: &Command<'f>, paths: &[Word]) -> Result<(), Failure> {
        let mut texts = Vec::with_capacity(paths.len());
        for word in paths {
            let path = self.expand(command, word)?;
            if path.is_empty() {
                return Err(Failure::new(command.place(word.span), "VOLUME specified can not be an empty string")
                    .expected("a path"));
            }
            texts.push(path);
        }
        self.state.note(format!("VOLUME {}", history::list(&texts)));
        self.state.image.config.volumes.extend(texts.into_iter().map(|path| (path, Empty {})));
        Ok(())
    }
}

/// Whether a text names a signal of Linux: any number but 0, or a name with or without `SIG`.
fn is_signal(text: &str) -> bool {
    const NAMES: &str = " ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP \
                         SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX ";
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, most: u32| {
        name.strip_prefix(prefix)
            .is_some_and(|n| !n.starts_with(['0', '+']) && n.parse::<u32>().is_ok_and(|n| (1..=most).contains(&n)))
    };
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    plain && NAMES.contains(&format!(" {name} ")) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn signals() {
        for yes in ["15", "-1", "SIGTERM", "term", "SigUsr1", "RTMIN+15", "SIGRTMAX-14", "RTMAX"] {
            assert!(is_signal(yes), "{yes}");
        }
        for no in ["0", "", "SIG", "SIGFOO", "TERM ", "RTMIN+16", "RTMAX-0", "RTMIN+01", "A B"] {
            assert!(!is_signal(no), "{no}");
        }
    }
}
