//! EXPOSE: `[[ip:]hostport:]port[-port][/protocol]`, of which only ports and protocol are kept.

use std::net::IpAddr;

use memobuild_dockerfile::ast::Expose;
use memobuild_dockerfile::lint::Rule;
use memobuild_image::Empty;

use super::Dispatch;
use crate::error::Failure;
use crate::history;
use crate::stages::Command;

/// A port specification, read.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
    protocol: String,
    /// An address or host port stands in front.
    mapped: bool,
}

impl<'f> Dispatch<'_, 'f> {
    pub(super) fn expose(&mut self, command: &Command<'f>, expose: &Expose) -> Result<(), Failure> {
        let mut all = Vec::new();
        for word in &expose.ports {
            let place = command.place(word.span);
            let lexer = self.pass.lexer();
            let expansion = lexer.expand(word, &self.state.env).map_err(|e| Failure::expand(place, &e))?;
            for text in expansion.words {
                let ports = parse(&text).map_err(|error| {
                    Failure::new(place, error).expected("a port such as 80, 80/udp or 8000-8010/tcp")
                })?;
                let lower = ports.protocol.to_lowercase();
                if lower != ports.protocol {
                    let message = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
                    self.pass.checks.report(Rule::ExposeProtoCasing, command.span, message);
                }
                if ports.mapped {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
                    );
                    self.pass.checks.report(Rule::ExposeInvalidFormat, command.span, message);
                }
                all.extend((ports.first..=ports.last).map(|port| format!("{port}/{lower}")));
            }
        }
        self.state.note(format!("EXPOSE {}", history::list(&all)));
        self.state.image.config.exposed_ports.extend(all.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }
}

fn parse(text: &str) -> Result<Ports, String> {
    let (front, container) = text.rsplit_once(':').map_or((None, text), |(front, port)| (Some(front), port));
    let (ip, host) = match front.map(|front| front.rsplit_once(':').unwrap_or(("", front))) {
        Some((ip, host)) => (ip, host),
        None => ("", ""),
    };
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(format!("invalid port: {text:?}: no port specified"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => protocol,
        _ => return Err(format!("invalid port: {text:?}: invalid proto: {protocol}")),
    };
    let address = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    let (first, last) = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    if !host.is_empty() {
        let (from, to) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if last - first != to - from && first != last {
            return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
        }
    }
    Ok(Ports { first, last, protocol: protocol.to_owned(), mapped: !ip.is_empty() || !host.is_empty() })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        let ok = |text: &str| parse(text).map(|p| (p.first, p.last, p.protocol, p.mapped)).unwrap();
        assert_eq!(ok("80"), (80, 80, "tcp".into(), false));
        assert_eq!(ok("80-82/UDP"), (80, 82, "UDP".into(), false));
        assert_eq!(ok("80/"), (80, 80, "tcp".into(), false));
        assert_eq!(ok("8080:80"), (80, 80, "tcp".into(), true));
        assert_eq!(ok("1.2.3.4:8080:80"), (80, 80, "tcp".into(), true));
        assert_eq!(ok("[::1]:8080-8090:80/sctp"), (80, 80, "sctp".into(), true));
        assert_eq!(ok("0-65535").1, 65535);
    }

    #[test]
    fn what_is_none() {
        assert_eq!(parse("http").unwrap_err(), "invalid containerPort: http");
        assert_eq!(parse("80/ftp").unwrap_err(), "invalid port: \"80/ftp\": invalid proto: ftp");
        assert_eq!(parse("").unwrap_err(), "invalid port: \"\": no port specified");
        assert_eq!(parse("x:1:80").unwrap_err(), "invalid IP address: x");
        assert_eq!(parse("x:80").unwrap_err(), "invalid hostPort: x");
        assert!(parse("1-2:80-85").unwrap_err().starts_with("invalid ranges"));
        assert!(parse("65536").is_err() && parse("9-8").is_err() && parse("-1").is_err());
    }
}
