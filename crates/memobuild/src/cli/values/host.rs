//! `--add-host`.

use std::net::IpAddr;

/// `NAME:IP` or `NAME=IP`; an IPv6 address may stand in brackets. Gives name and address.
pub(crate) fn host(text: &str) -> Result<(String, String), String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| format!("{text:?}: expected NAME:IP, like db:10.0.0.5"))?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("{text:?} names no host: expected NAME:IP, like db:10.0.0.5"));
    }
    if address == "host-gateway" {
        return Err(
            "host-gateway is an address that only Docker's own network has: steps use the host's network here, \
                    so give 127.0.0.1 or the host's address"
                .into(),
        );
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let ip: IpAddr =
        bare.parse().map_err(|_| format!("{address:?} is no IP address: expected NAME:IP, like db:10.0.0.5"))?;
    Ok((name.to_owned(), ip.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_and_both_families() {
        let pair = |n: &str, a: &str| Ok((n.to_owned(), a.to_owned()));
        assert_eq!(host("db:10.0.0.5"), pair("db", "10.0.0.5"));
        assert_eq!(host("db=10.0.0.5"), pair("db", "10.0.0.5"));
        assert_eq!(host("six:::1"), pair("six", "::1"));
        assert_eq!(host("six=[::1]"), pair("six", "::1"));
        assert!(host("x:host-gateway").unwrap_err().contains("host-gateway"));
        for bad in ["", "db", ":1.2.3.4", "db:", "db:1.2.3", "a b:1.2.3.4"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
