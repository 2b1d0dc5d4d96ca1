//! Licences as packages declare them, made SPDX licence expressions where they are such (SPDX 2.3, annex D).

use std::collections::{BTreeMap, BTreeSet};

use memobuild_tree::Sha256Digest;

/// Declarations longer than this, in bytes, are whole licence texts, which are not told apart.
const LONGEST: usize = 200;

/// What a package declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct License {
    expression: Option<String>,
    texts: BTreeMap<String, String>,
}

impl License {
    /// A valid SPDX licence expression, or `None` where nothing is known (`NOASSERTION`).
    pub fn expression(&self) -> Option<&str> {
        self.expression.as_deref()
    }

    /// The `LicenseRef-` names in the expression, each with the words of the package that it stands for.
    pub fn references(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(id, text)| (id.as_str(), text.as_str()))
    }

    /// Reads a declaration. An SPDX expression stays one, with identifiers in the case of the list and without outdated
    /// ones of GNU's; anything else is one reference to its own words.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let nothing = ["", "unknown", "noassertion", "none"].iter().any(|n| text.eq_ignore_ascii_case(n));
        if nothing || text.len() > LONGEST || text.contains('\n') {
            return Self::default();
        }
        Self::expression_of(text).unwrap_or_else(|| Self::reference(text))
    }

    /// A licence that is on no list, by its own words.
    pub(super) fn reference(text: &str) -> Self {
        let mut id = String::from("LicenseRef-");
        for c in text.chars().take(60) {
            let c = if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
            if c != '-' || !id.ends_with('-') {
                id.push(c);
            }
        }
        // Different words never share a name.
        if id.strip_prefix("LicenseRef-") != Some(text) {
            let hex = Sha256Digest::of(text.as_bytes()).hex();
            id = format!("{}-{}", id.trim_end_matches('-'), hex.get(..8).unwrap_or(&hex));
        }
        Self { texts: BTreeMap::from([(id.clone(), text.to_owned())]), expression: Some(id) }
    }

    /// All of these, each once, in an order of their own.
    pub(super) fn all(licenses: impl IntoIterator<Item = Self>) -> Self {
        let mut texts = BTreeMap::new();
        let mut parts = BTreeSet::new();
        for license in licenses {
            texts.extend(license.texts);
            let expression = license.expression.as_deref().unwrap_or_default();
            match outermost(expression, "OR").as_slice() {
                // No choice in it: its parts are parts of the whole.
                [_] => parts.extend(outermost(expression, "AND").into_iter().map(ToOwned::to_owned)),
                [] => {}
                _ => drop(parts.insert(format!("({expression})"))),
            }
        }
        let parts: Vec<String> = parts.into_iter().collect();
        let expression = match parts.as_slice() {
            [] => None,
            [one] => Some(one.strip_prefix('(').and_then(|o| o.strip_suffix(')')).unwrap_or(one).to_owned()),
            _ => Some(parts.join(" AND ")),
        };
        Self { expression, texts }
    }

    /// Either of these: the first is to be chosen, or the next.
    pub(super) fn any(licenses: impl IntoIterator<Item = Self>) -> Self {
        let mut out = Self::default();
        let mut expressions = Vec::new();
        for license in licenses {
            out.texts.extend(license.texts);
            expressions.extend(license.expression);
        }
        out.expression = (!expressions.is_empty()).then(|| expressions.join(" OR "));
        out
    }

    fn expression_of(text: &str) -> Option<Self> {
        let mut license = Self::default();
        let mut words = Vec::new();
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        for word in spaced.split_whitespace() {
            words.push(match word.to_ascii_uppercase().as_str() {
                "(" | ")" => word.to_owned(),
                operator @ ("AND" | "OR" | "WITH") => operator.to_owned(),
                _ if words.last().is_some_and(|w| w == "WITH") => exception(word)?,
                _ if word.starts_with("LicenseRef-") => {
                    license.texts.insert(word.to_owned(), word.to_owned());
                    word.to_owned()
                }
                _ => identifier(word)?,
            });
        }
        let joined = words.join(" ").replace("( ", "(").replace(" )", ")");
        spdx::Expression::parse(&joined).ok()?;
        license.expression = Some(joined);
        Some(license)
    }
}

/// The parts of an expression between the operators of that name that are in no brackets; none of an empty one.
fn outermost<'e>(expression: &'e str, operator: &str) -> Vec<&'e str> {
    let separator = format!(" {operator} ");
    let (mut parts, mut rest, mut from) = (Vec::new(), expression, 0);
    while let Some(at) = rest.get(from..).and_then(|r| r.find(&separator)).map(|at| from + at) {
        let Some((part, tail)) = rest.split_at_checked(at) else { break };
        if part.matches('(').count() == part.matches(')').count() {
            parts.push(part);
            (rest, from) = (tail.get(separator.len()..).unwrap_or_default(), 0);
        } else {
            from = at + separator.len();
        }
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// The identifier as the licence list writes it.
fn identifier(word: &str) -> Option<String> {
    let (base, later) = word.strip_suffix('+').map_or((word, false), |base| (base, true));
    let id = spdx::identifiers::LICENSES.iter().map(|l| l.name).find(|name| name.eq_ignore_ascii_case(base))?;
    if let Some(id) = spdx::license_id(id).filter(|id| id.is_gnu()).and_then(|id| spdx::gnu_license_id(id.name, later))
    {
        return Some(id.name.to_owned());
    }
    Some(if later { format!("{id}+") } else { id.to_owned() })
}

fn exception(word: &str) -> Option<String> {
    spdx::identifiers::EXCEPTIONS.iter().find(|e| e.name.eq_ignore_ascii_case(word)).map(|e| e.name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        License::parse(text).expression().unwrap_or("NOASSERTION").to_owned()
    }

    #[test]
    fn expressions_stay_what_they_are() {
        for (text, expected) in [
            ("MIT", "MIT"),
            ("(mit or Apache-2.0)", "(MIT OR Apache-2.0)"),
            ("GPL-2.0", "GPL-2.0-only"),
            ("GPL-2.0+ AND LGPL-2.1-only", "GPL-2.0-or-later AND LGPL-2.1-only"),
            ("Apache-2.0 WITH llvm-exception", "Apache-2.0 WITH LLVM-exception"),
            ("MIT AND LicenseRef-Fedora-Public-Domain", "MIT AND LicenseRef-Fedora-Public-Domain"),
            ("", "NOASSERTION"),
            ("UNKNOWN", "NOASSERTION"),
            ("custom", "LicenseRef-custom"),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_a_reference_to_its_words() {
        for text in ["GPLv2+ and MIT", "BSD style", "MIT OR", "(MIT", "SEE LICENSE IN LICENSE"] {
            let license = License::parse(text);
            let expression = license.expression().unwrap();
            assert!(expression.starts_with("LicenseRef-"), "{expression}");
            assert_eq!(license.references().collect::<Vec<_>>(), [(expression, text)]);
            spdx::Expression::parse(expression).unwrap();
        }
        assert_ne!(parse("BSD style"), parse("BSD-style"));
        assert_eq!(parse(&"x ".repeat(200)), "NOASSERTION");
    }

    #[test]
    fn alternatives_keep_their_brackets() {
        let either = License::any([License::parse("MIT"), License::parse("ISC")]);
        let all = License::all([License::parse("Zlib"), either.clone(), either]);
        assert_eq!(all.expression(), Some("(MIT OR ISC) AND Zlib"));
        let nested = License::all([all.clone(), License::parse("ISC AND (X11 OR MIT)"), License::parse("Zlib")]);
        assert_eq!(nested.expression(), Some("(MIT OR ISC) AND (X11 OR MIT) AND ISC AND Zlib"));
        assert_eq!(License::all([License::default()]), License::default());
        assert_eq!(License::all([License::parse("(MIT OR ISC)")]).expression(), Some("MIT OR ISC"));
    }
}
