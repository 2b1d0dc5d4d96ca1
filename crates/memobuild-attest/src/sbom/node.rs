//! Node packages: `package.json` (docs.npmjs.com, "package.json").

use serde_json::Value;

use super::{Actor, Ecosystem, Found, License, Package};
use crate::purl;

/// Whether a directory is an installed package: `node_modules/name` or `node_modules/@scope/name`. Others that hold a
/// `package.json` are parts of a package.
pub(super) fn is_package(dir: &[u8]) -> bool {
    let mut parts = dir.rsplit(|b| *b == b'/').skip(1);
    match parts.next() {
        Some(b"node_modules") => !dir.rsplit(|b| *b == b'/').next().is_some_and(|n| n.starts_with(b"@")),
        Some(scope) if scope.starts_with(b"@") => parts.next() == Some(b"node_modules"),
        _ => false,
    }
}

/// The package that a `package.json` describes. A project that packages are installed for need have no name or version,
/// nor need parts of itself that a bundle puts below `node_modules`: those are none.
pub(super) fn parse(bytes: &[u8]) -> Found {
    let json: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty());
    let (Some(name), Some(version)) = (text("name"), text("version")) else {
        return Ok(Vec::new());
    };
    let (scope, bare) = name.split_once('/').unwrap_or(("", name));
    let mut package = Package::new(Ecosystem::Npm, name, version, purl::package("npm", scope, bare, version, &[]));
    package.license = license(&json);
    package.originator = match json.get("author") {
        Some(Value::String(author)) => Actor::parse(author.split('(').next().unwrap_or(author)),
        Some(author) => {
            let part = |key: &str| author.get(key).and_then(Value::as_str).unwrap_or_default();
            Actor::parse(&format!("{} <{}>", part("name"), part("email")))
        }
        None => None,
    };
    package.homepage = text("homepage").map(Into::into);
    package.summary = text("description").map(Into::into);
    Ok(vec![package])
}

/// `license` is an expression; packages of old have objects, or a list `licenses` to choose from.
fn license(json: &Value) -> License {
    let one = |value: &Value| {
        let name = value.as_str().or_else(|| value.get("type").and_then(Value::as_str))?;
        Some(License::parse(name))
    };
    if let Some(found) = json.get("license").and_then(one) {
        return found;
    }
    let list = ["license", "licenses"].iter().find_map(|key| json.get(key)?.as_array());
    License::any(list.into_iter().flatten().filter_map(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_from_their_parts() {
        assert!(is_package(b"/app/node_modules/foo"));
        assert!(is_package(b"/app/node_modules/@a/foo"));
        assert!(is_package(b"/node_modules/.pnpm/foo@1/node_modules/foo"));
        assert!(!is_package(b"/app/node_modules/@a"));
        assert!(!is_package(b"/app/node_modules/foo/dist"));
        assert!(!is_package(b"/app"));
    }

    #[test]
    fn old_and_new_fields_are_read() {
        let text = br#"{"name":"@a/foo","version":"1.2.3","license":"(MIT OR ISC)","author":"Ann <a@b.c> (http://x)"}"#;
        let found = parse(text).unwrap();
        let package = found.first().unwrap();
        assert_eq!(package.purl, "pkg:npm/%40a/foo@1.2.3");
        assert_eq!(package.license.expression(), Some("(MIT OR ISC)"));
        assert_eq!(package.originator, Some(Actor::Person("Ann (a@b.c)".into())));
        let old =
            br#"{"name":"x","version":"1","licenses":[{"type":"MIT"},{"type":"BSD-2-Clause"}],"author":{"name":"B"}}"#;
        assert_eq!(parse(old).unwrap()[0].license.expression(), Some("MIT OR BSD-2-Clause"));
        assert_eq!(parse(br#"{"private":true}"#), Ok(Vec::new()));
        assert!(parse(b"{").is_err());
    }
}
