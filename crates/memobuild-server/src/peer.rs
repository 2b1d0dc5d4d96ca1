//! Whom a connection is with: an address, and the name in a client's certificate where there is one.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, LazyLock},
};

/// The other side of a connection; each of its requests has it among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// The name in a certificate that was checked.
    pub(crate) certificate: Option<String>,
}

/// How a client said who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// By a token, whose name is the client's.
    Token,
    /// By a certificate.
    Certificate,
    /// Not at all, where none is needed.
    Anonymous,
    /// Not at all, or not in a way that is known.
    Unknown,
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Of its token or certificate; `-` without one.
    pub(crate) name: Arc<str>,
    pub(crate) how: How,
}

impl Client {
    pub(crate) fn unknown() -> Self {
        Self { name: nameless(), how: How::Unknown }
    }

    /// One who need not say who it is.
    pub(crate) fn anonymous() -> Self {
        Self { name: nameless(), how: How::Anonymous }
    }

    /// Under which name its requests are counted together.
    pub(crate) fn key(&self, peer: Option<&Peer>) -> String {
        match self.how {
            How::Token => format!("token:{}", self.name),
            How::Certificate => format!("certificate:{}", self.name),
            How::Anonymous | How::Unknown => format!("address:{}", peer.map_or_else(String::new, |p| network(p.addr))),
        }
    }
}

fn nameless() -> Arc<str> {
    static NAME: LazyLock<Arc<str>> = LazyLock::new(|| "-".into());
    NAME.clone()
}

/// An address, or for IPv6 its first 64 bits: whoever has one address of a network there has all of them.
fn network(addr: SocketAddr) -> String {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (addr, expected) in [
            ("192.0.2.7:80", "192.0.2.7"),
            ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
            ("[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::"),
            ("[2001:db8:1:2:9::]:80", "2001:db8:1:2::"),
        ] {
            assert_eq!(addr.parse().map(network), Ok(expected.to_owned()));
        }
    }
}
