//! EXPOSE: one word may become several ports, after its variables are replaced.

use memobuild_dockerfile::ast::{Expose, Word};
use memobuild_dockerfile::lint::Finding;
use memobuild_dockerfile::ports::parse_port;
use memobuild_image::Empty;

use super::Dispatch;
use crate::error::Failure;
use crate::history;
use crate::stages::Command;

impl<'f> Dispatch<'_, 'f> {
    pub(super) fn expose(&mut self, command: &Command<'f>, expose: &Expose) -> Result<(), Failure> {
        let mut all = Vec::new();
        // BuildKit sorts the words as they are written: it shows in the history.
        let mut words: Vec<&Word> = expose.ports.iter().collect();
        words.sort_by(|a, b| a.text.cmp(&b.text));
        for word in words {
            let place = command.place(word.span);
            let lexer = self.pass.lexer();
            let expansion = lexer.expand(word, &self.state.env).map_err(|e| Failure::expand(place, &e))?;
            for text in expansion.words {
                let port = parse_port(&text).map_err(|error| {
                    Failure::new(place, error).expected("a port such as 80, 80/udp or 8000-8010/tcp")
                })?;
                if port.odd_case {
                    self.pass.checks.report(Finding::expose_proto_casing(command.span, &text));
                }
                if port.host_part {
                    self.pass.checks.report(Finding::expose_invalid_format(command.span, &text));
                }
                all.extend(port.keys());
            }
        }
        self.state.note(format!("EXPOSE {}", history::list(&all)));
        self.state.image.config.exposed_ports.extend(all.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }
}
