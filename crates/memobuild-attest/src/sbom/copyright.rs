//! Licences of Debian packages: copyright files in the machine-readable format
//! (<https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>, known as DEP-5).

use super::{License, stanza};

/// What all files of a package declare together; nothing where the file is in no machine-readable format.
pub(super) fn license(text: &str) -> License {
    let mut stanzas = stanza::stanzas(text).peekable();
    if !stanzas
        .peek()
        .and_then(|s| s.line("Format"))
        .is_some_and(|f| f.contains("copyright-format") || f.contains("dep5"))
    {
        return License::default();
    }
    // A paragraph with neither holds the text of a licence that others name.
    let declares = |s: &stanza::Stanza<'_>| s.get("Files").is_some() || s.get("Format").is_some();
    let synopses = stanzas.filter(declares).filter_map(|s| s.line("License").map(synopsis));
    License::all(synopses.collect::<Vec<_>>())
}

/// The first line of a licence field: short names, `and`, `or`, `with ... exception`. A comma makes a weaker `and`/`or`.
fn synopsis(text: &str) -> License {
    let any = |text: &str| License::any(split(text, "or").into_iter().map(|t| all(&t)));
    fn all(text: &str) -> License {
        License::all(split(text, "and").into_iter().map(|t| short_name(&t)))
    }
    let text = text.replace('|', " or ");
    if text.contains(',') {
        // `A or B, and C`: the comma binds weakest.
        let parts: Vec<_> = text.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
        if parts.iter().skip(1).all(|p| p.starts_with("and ")) {
            return License::all(parts.iter().map(|p| any(p.strip_prefix("and ").unwrap_or(p))));
        }
        return License::reference(&text);
    }
    any(&text)
}

/// The parts between the words `word`; a name that follows `with` keeps what belongs to it.
fn split(text: &str, word: &str) -> Vec<String> {
    let mut parts = vec![Vec::new()];
    for token in text.split_whitespace() {
        if token.eq_ignore_ascii_case(word) {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(token);
        }
    }
    parts.into_iter().filter(|p| !p.is_empty()).map(|p| p.join(" ")).collect()
}

/// A short name of the format ("License short name"), which are mostly not SPDX's.
fn short_name(name: &str) -> License {
    let lower = name.to_ascii_lowercase();
    let known = match lower.as_str() {
        "expat" => "MIT",
        "artistic" => "Artistic-1.0",
        "artistic-2" => "Artistic-2.0",
        "perl" => return License::any([License::parse("Artistic-1.0"), License::parse("GPL-1.0-or-later")]),
        "cc0" => "CC0-1.0",
        "freetype" => "FTL",
        "w3c-software" => "W3C",
        "psf-2" => "PSF-2.0",
        "apache-2" => "Apache-2.0",
        "efl-2" => "EFL-2.0",
        "eiffel-2" => "EFL-2.0",
        "boost-1.0" => "BSL-1.0",
        // In this format the bare names leave the version open.
        "gpl" | "lgpl" | "agpl" | "gfdl" | "bsd" | "mit" => return License::reference(name),
        _ => "",
    };
    if !known.is_empty() {
        return License::parse(known);
    }
    if let Some(gnu) = gnu(&lower) {
        return License::parse(&gnu);
    }
    let parsed = License::parse(name);
    // A name with blanks is an exception in words, not an expression.
    if name.contains(' ') { License::reference(name) } else { parsed }
}

/// `gpl-2+`, `lgpl-2.1`, `gfdl-1.3`: the version without its trailing zero, and a plus for "or later".
fn gnu(lower: &str) -> Option<String> {
    let (base, later) = lower.strip_suffix('+').map_or((lower, "only"), |base| (base, "or-later"));
    let (family, version) = base.split_once('-')?;
    let family = match family {
        "gpl" => "GPL",
        "lgpl" => "LGPL",
        "agpl" => "AGPL",
        "gfdl" | "fdl" => "GFDL",
        _ => return None,
    };
    let numeric = version.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !version.is_empty();
    let version = if version.contains('.') { version.to_owned() } else { format!("{version}.0") };
    let id = format!("{family}-{version}-{later}");
    (numeric && spdx::license_id(&id).is_some()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(lines: &[&str]) -> String {
        let mut text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n".to_owned();
        for line in lines {
            text.push_str(&format!("Files: *\nCopyright: x\nLicense: {line}\n text\n\n"));
        }
        text.push_str("License: GPL-3\n On Debian systems...\n");
        license(&text).expression().unwrap_or("NOASSERTION").to_owned()
    }

    #[test]
    fn short_names_become_spdx() {
        for (lines, expected) in [
            (&["GPL-2+"][..], "GPL-2.0-or-later"),
            (&["GPL-2"], "GPL-2.0-only"),
            (&["LGPL-2.1+", "Expat", "Expat"], "LGPL-2.1-or-later AND MIT"),
            (&["BSD-3-clause or Artistic", "Zlib"], "(BSD-3-Clause OR Artistic-1.0) AND Zlib"),
            (&["GPL-2+ or Expat, and public-domain"], "(GPL-2.0-or-later OR MIT) AND LicenseRef-public-domain"),
            (&["Perl"], "Artistic-1.0 OR GPL-1.0-or-later"),
            (&["GPL"], "LicenseRef-GPL"),
            (&["GPL-9+"], "LicenseRef-GPL-9-"),
        ] {
            let found = declared(lines);
            assert!(found.starts_with(expected), "{found} is not {expected}");
            spdx::Expression::parse(&found).unwrap();
        }
    }

    #[test]
    fn exceptions_in_words_and_other_formats_are_not_guessed_at() {
        assert!(declared(&["GPL-3+ with OpenSSL exception"]).starts_with("LicenseRef-GPL-3-with-OpenSSL-exception-"));
        assert_eq!(license("This package is under the GPL-2.\n"), License::default());
    }
}
