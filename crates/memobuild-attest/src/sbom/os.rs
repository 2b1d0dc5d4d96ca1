//! The distribution: os-release(5).

use std::collections::BTreeMap;

use super::{Actor, Ecosystem, Package};
use crate::purl;

/// What a distribution says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`: `debian`, `alpine`.
    pub id: String,
    /// `VERSION_ID`: `12`, `3.20.1`; empty for one that rolls.
    pub version_id: String,
    /// `PRETTY_NAME`, or else `NAME`.
    pub name: String,
    /// `HOME_URL`.
    pub home_url: String,
    /// The file that says so.
    pub location: String,
}

impl OsRelease {
    /// Reads the text of the file; `None` if it names no `ID`.
    pub(crate) fn parse(location: &str, text: &str) -> Option<Self> {
        let fields: BTreeMap<&str, String> =
            text.lines().filter_map(|l| l.trim().split_once('=')).map(|(k, v)| (k, unquote(v))).collect();
        let get = |key: &str| fields.get(key).cloned().unwrap_or_default();
        let id = get("ID");
        let name = [get("PRETTY_NAME"), get("NAME"), id.clone()].into_iter().find(|n| !n.is_empty())?;
        let (version_id, home_url) = (get("VERSION_ID"), get("HOME_URL"));
        (!id.is_empty()).then(|| Self { id, version_id, name, home_url, location: location.into() })
    }

    /// The qualifier `distro` of package URLs, as scanners look for it: `debian-12`.
    pub(crate) fn distro(&self) -> String {
        match (self.id.is_empty(), self.version_id.is_empty()) {
            (true, _) => String::new(),
            (false, true) => self.id.clone(),
            (false, false) => format!("{}-{}", self.id, self.version_id),
        }
    }

    /// The vendor, by which package URLs name the distribution; `default` if it is not known.
    pub(crate) fn vendor<'a>(&'a self, default: &'a str) -> &'a str {
        match self.id.as_str() {
            "" => default,
            "rhel" => "redhat",
            "sles" | "sled" | "sle-micro" => "suse",
            id if id.starts_with("opensuse") => "opensuse",
            id => id,
        }
    }

    pub(crate) fn package(&self) -> Package {
        let url = purl::package("generic", "", &self.id, &self.version_id, &[]);
        let mut package = Package::new(Ecosystem::Os, &self.id, &self.version_id, url).found_in(&self.location);
        package.summary = Some(self.name.clone());
        package.homepage = (!self.home_url.is_empty()).then(|| self.home_url.clone());
        package.supplier = Some(Actor::Organization(self.name.replace(['(', ')'], "")));
        package
    }
}

/// Values are written as in a shell: quotes, and backslashes before `$ " \ ``.
fn unquote(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote)) {
            let mut out = String::with_capacity(inner.len());
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                out.extend(if c == '\\' && quote == '"' { chars.next() } else { Some(c) });
            }
            return out;
        }
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unquoted_and_vendors_known() {
        let text = "NAME=\"Red \\\"Hat\\\"\"\n# x\nID='rhel'\nVERSION_ID=9.4\nHOME_URL=\"https://x/\"\n";
        let os = OsRelease::parse("/etc/os-release", text).unwrap();
        assert_eq!((os.name.as_str(), os.distro().as_str(), os.vendor("x")), ("Red \"Hat\"", "rhel-9.4", "redhat"));
        assert_eq!(os.package().purl, "pkg:generic/rhel@9.4");
        assert_eq!(OsRelease::parse("x", "NAME=x\n"), None);
        assert_eq!(OsRelease::default().vendor("debian"), "debian");
    }
}
