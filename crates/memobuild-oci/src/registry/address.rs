//! Addresses that registries name: where an upload goes on, where a download lies (RFC 3986, RFC 9110 "Location").

/// `scheme://authority` and the rest, of an absolute address.
pub(super) fn parts(address: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    if scheme.is_empty() || !scheme.bytes().all(word) {
        return None;
    }
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    Some((scheme, host, path))
}

/// Whether two hosts with ports are one, as that scheme has it.
pub(super) fn same_host(scheme: &str, a: &str, b: &str) -> bool {
    let default = if scheme.eq_ignore_ascii_case("http") { ":80" } else { ":443" };
    let bare = |host: &str| host.strip_suffix(default).unwrap_or(host).to_ascii_lowercase();
    bare(a) == bare(b)
}

/// What a `Location` means in an answer from that address, without a fragment; `None` if it means nothing.
pub(super) fn resolve(base: &str, location: &str) -> Option<String> {
    let location = location.trim().split('#').next().unwrap_or_default();
    if parts(location).is_some() {
        return Some(location.to_owned());
    }
    let (scheme, host, path) = parts(base)?;
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let (dir, _) = path.rsplit_once('/').unwrap_or_default();
    Some(match location {
        "" => return None,
        l if l.starts_with("//") => format!("{scheme}:{l}"),
        l if l.starts_with('/') => format!("{scheme}://{host}{l}"),
        l if l.starts_with('?') => format!("{scheme}://{host}{path}{l}"),
        l => {
            let (relative, query) = l.split_at(l.find('?').unwrap_or(l.len()));
            format!("{scheme}://{host}{}{query}", without_dots(&format!("{dir}/{relative}")))
        }
    })
}

fn without_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let last = path.split('/').count() - 1;
    for (at, part) in path.split('/').enumerate() {
        match part {
            "." | ".." => {
                // The empty part before the first slash stays.
                if part == ".." && out.len() > 1 {
                    out.pop();
                }
                if at == last {
                    out.push("");
                }
            }
            part => out.push(part),
        }
    }
    out.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let base = "https://a.io:5000/v2/x/blobs/uploads/?mount=sha256:1";
        let resolved = |location| resolve(base, location).unwrap_or_default();
        assert_eq!(resolved("https://b.io/u?x=1#f"), "https://b.io/u?x=1");
        assert_eq!(resolved("//b.io/u"), "https://b.io/u");
        assert_eq!(resolved("/v2/x/u?_state=http://z"), "https://a.io:5000/v2/x/u?_state=http://z");
        assert_eq!(resolved("uuid?a=../b"), "https://a.io:5000/v2/x/blobs/uploads/uuid?a=../b");
        assert_eq!(resolved("../u/./v"), "https://a.io:5000/v2/x/blobs/u/v");
        assert_eq!(resolved("../../../../../.."), "https://a.io:5000/");
        assert_eq!(resolved("?s=1"), "https://a.io:5000/v2/x/blobs/uploads/?s=1");
        assert_eq!(resolved(""), "");
        assert_eq!(resolve("nonsense", "u"), None);
    }

    #[test]
    fn hosts_with_and_without_their_default_port() {
        assert!(same_host("https", "A.io:443", "a.io") && same_host("http", "a.io", "a.io:80"));
        assert!(!same_host("https", "a.io:80", "a.io") && !same_host("https", "a.io", "b.io"));
        assert_eq!(parts("https://a.io?x"), Some(("https", "a.io", "?x")));
        assert_eq!(parts("/v2/?a=b://c"), None);
    }
}
