//! Port specifications of `EXPOSE`: `[IP:][HOST:]PORT[-PORT][/PROTOCOL]`.

use std::net::IpAddr;

/// An expanded and parsed port specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// First and last container port.
    pub range: (u16, u16),
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The protocol was not written in lower case (rule `ExposeProtoCasing`).
    pub odd_case: bool,
    /// An IP address or host port was given, which means nothing (rule `ExposeInvalidFormat`).
    pub host_part: bool,
}

impl PortSpec {
    /// The keys for the image config, such as `80/tcp`.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        (self.range.0..=self.range.1).map(|port| format!("{port}/{}", self.protocol))
    }
}

/// Parses an expanded word of `EXPOSE`.
///
/// # Errors
/// BuildKit's wording, such as `invalid containerPort: http`.
pub fn parse_port(text: &str) -> Result<PortSpec, String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let ip = parts.next().unwrap_or_default();
    let (ports, written) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(format!("invalid port: {text:?}: no port specified"));
    }
    let protocol = match written.to_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(format!("invalid port: {text:?}: invalid proto: {written}")),
    };
    let bare_ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && bare_ip.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    let range = port_range(ports).ok_or_else(|| format!("invalid containerPort: {ports}"))?;
    if !host.is_empty() {
        let hosts = port_range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if range.0 != range.1 && range.1 - range.0 != hosts.1 - hosts.0 {
            return Err(format!("invalid ranges specified for container and host Ports: {ports} and {host}"));
        }
    }
    Ok(PortSpec {
        range,
        protocol,
        odd_case: written != written.to_lowercase(),
        host_part: !host.is_empty() || !ip.is_empty(),
    })
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.parse().ok()?, last.parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        parse_port(text).unwrap().keys().collect()
    }

    #[test]
    fn good() {
        assert_eq!(keys("80"), ["80/tcp"]);
        assert_eq!(keys("53/UDP"), ["53/udp"]);
        assert!(parse_port("53/UDP").unwrap().odd_case);
        assert_eq!(keys("8000-8002/sctp"), ["8000/sctp", "8001/sctp", "8002/sctp"]);
        assert_eq!(keys("127.0.0.1:80:8080"), ["8080/tcp"]);
        assert_eq!(keys("[::1]:80:8080"), ["8080/tcp"]);
        assert_eq!(keys("90-91:80"), ["80/tcp"]);
        assert!(parse_port("1:80").unwrap().host_part);
        assert_eq!(keys("0-65535").len(), 65536);
    }

    #[test]
    fn bad() {
        for (text, want) in [
            ("http", "invalid containerPort: http"),
            ("", "invalid port: \"\": no port specified"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("80/http", "invalid port: \"80/http\": invalid proto: http"),
            ("65536", "invalid containerPort: 65536"),
            ("9-8", "invalid containerPort: 9-8"),
            ("x:80", "invalid hostPort: x"),
            ("a:1:80", "invalid IP address: a"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
        ] {
            assert_eq!(parse_port(text).unwrap_err(), want);
        }
    }
}
