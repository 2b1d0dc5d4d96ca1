//! Names to addresses. A push asks one host dozens of times: it is looked up once in a while, not for each request, which
//! would wait for a thread and the network's answer before a connection that is open already.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ureq::{
    Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// How long an address is taken for a name's. Short: whoever moves a server goes by the seconds of its records.
const KEPT: Duration = Duration::from_secs(10);

/// The system's resolver, and what it said lately. One for each agent.
#[derive(Debug, Default)]
pub(super) struct Names {
    system: DefaultResolver,
    found: Mutex<HashMap<Place, (Instant, Vec<SocketAddr>)>>,
}

/// A host and a port.
type Place = (String, u16);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let Some(place) = place(uri) else { return self.system.resolve(uri, config, timeout) };
        if let Some(known) = self.known(&place) {
            let mut addresses = self.empty();
            known.into_iter().for_each(|address| addresses.push(address));
            return Ok(addresses);
        }
        let found = self.system.resolve(uri, config, timeout)?;
        let kept = (Instant::now(), found.to_vec());
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(place, kept);
        Ok(found)
    }
}

impl Names {
    /// Addresses that need no question.
    fn known(&self, place: &Place) -> Option<Vec<SocketAddr>> {
        let (host, port) = place;
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(vec![SocketAddr::new(ip, *port)]);
        }
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, addresses) = found.get(place)?;
        (at.elapsed() < KEPT).then(|| addresses.clone())
    }
}

fn place(uri: &Uri) -> Option<Place> {
    let port = match (uri.port_u16(), uri.scheme_str()) {
        (Some(port), _) => port,
        (None, Some("http")) => 80,
        (None, Some("https")) => 443,
        (None, _) => return None,
    };
    Some((uri.host()?.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_question() {
        let names = Names::default();
        let of = |uri: &str| place(&uri.parse().unwrap());
        let known = |uri: &str| names.known(&of(uri).unwrap());
        assert_eq!(known("http://127.0.0.1:5000/v2/"), Some(vec!["127.0.0.1:5000".parse().unwrap()]));
        assert_eq!(known("https://[::1]/v2/"), Some(vec!["[::1]:443".parse().unwrap()]));
        assert_eq!(known("https://Registry.example/v2/"), None);
        assert_eq!(of("ftp://registry.example/"), None);

        let address: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let keep = |at| names.found.lock().unwrap().insert(("registry.example".into(), 443), (at, vec![address]));
        keep(Instant::now());
        assert_eq!(known("https://Registry.example/v2/"), Some(vec![address]));
        assert_eq!(known("https://registry.example:5000/v2/"), None);
        let Some(before) = Instant::now().checked_sub(KEPT) else { return };
        keep(before);
        assert_eq!(known("https://registry.example/v2/"), None);
    }
}
