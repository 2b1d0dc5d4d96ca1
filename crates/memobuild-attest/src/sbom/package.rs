//! One package as all finders describe it.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::License;

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ecosystem {
    /// The distribution itself.
    Os,
    /// Debian and its kin: dpkg.
    Deb,
    /// Alpine and its kin: apk.
    Apk,
    /// Fedora, SUSE and their kin: rpm.
    Rpm,
    /// Python distributions.
    Python,
    /// Node packages.
    Npm,
    /// Go modules.
    Go,
    /// Rust crates.
    Cargo,
}

impl Ecosystem {
    /// Its package URL type.
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Os => "generic",
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Python => "pypi",
            Self::Npm => "npm",
            Self::Go => "golang",
            Self::Cargo => "cargo",
        }
    }
}

/// Who made or supplied something (SPDX 2.3, 7.5 and 7.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A person, as `name` or `name (mail)`.
    Person(String),
    /// An organisation, likewise.
    Organization(String),
}

impl Actor {
    /// Reads `Name <mail>`, `Name` or `mail`; `None` where nothing is named. SPDX wants to know whether it is a person:
    /// names of teams and addresses of lists are taken for organisations.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, mail) = match text.split_once('<') {
            Some((name, rest)) => (name, rest.split('>').next().unwrap_or_default()),
            None => (text, ""),
        };
        // Parentheses and line breaks would end the field early.
        let clean = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ").replace(['(', ')'], "");
        let (name, mail) = (clean(name.trim().trim_matches('"')), clean(mail));
        let words =
            ["team", "group", "project", "maintainers", "developers", "packagers", "foundation", "inc", "inc.", "ltd"];
        let of_team = name.to_lowercase().split([' ', ',']).any(|w| words.contains(&w));
        let of_list = mail.contains("@lists.") || mail.contains("@tracker.debian.org") || mail.contains("@packages.");
        let written = match (name.is_empty(), mail.is_empty()) {
            (true, true) => return None,
            (true, false) => mail,
            (false, true) => name,
            (false, false) => format!("{name} ({mail})"),
        };
        Some(if of_team || of_list { Self::Organization(written) } else { Self::Person(written) })
    }

    /// As SPDX writes it.
    pub(crate) fn spdx(&self) -> String {
        match self {
            Self::Person(name) => format!("Person: {name}"),
            Self::Organization(name) => format!("Organization: {name}"),
        }
    }
}

/// A package that is in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Its name there.
    pub name: String,
    /// Its version, epoch included as the ecosystem writes it; empty if it has none.
    pub version: String,
    /// Its package URL.
    pub purl: String,
    /// What it says of its licence.
    pub license: License,
    /// Who packaged it.
    pub supplier: Option<Actor>,
    /// Who wrote it.
    pub originator: Option<Actor>,
    /// Its web page.
    pub homepage: Option<String>,
    /// One line about it.
    pub summary: Option<String>,
    /// The files that say that it is there.
    pub locations: BTreeSet<String>,
}

impl Package {
    pub(crate) fn new(ecosystem: Ecosystem, name: &str, version: &str, purl: String) -> Self {
        Self {
            ecosystem,
            name: name.into(),
            version: version.into(),
            purl,
            license: License::default(),
            supplier: None,
            originator: None,
            homepage: None,
            summary: None,
            locations: BTreeSet::new(),
        }
    }

    pub(crate) fn found_in(mut self, location: &str) -> Self {
        self.locations.insert(location.into());
        self
    }
}

/// One entry for each package URL, sorted by it: a module that is in five programs is one package with five locations.
pub(crate) fn merge(packages: Vec<Package>) -> Vec<Package> {
    let mut merged: BTreeMap<String, Package> = BTreeMap::new();
    for package in packages {
        match merged.entry(package.purl.clone()) {
            Entry::Vacant(slot) => drop(slot.insert(package)),
            Entry::Occupied(mut slot) => slot.get_mut().locations.extend(package.locations),
        }
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_are_persons_unless_they_are_teams() {
        let actor = |text| Actor::parse(text).map(|a| a.spdx());
        assert_eq!(actor("Sam Ö <sam@example.org>").as_deref(), Some("Person: Sam Ö (sam@example.org)"));
        assert_eq!(
            actor("Debian QA Group <p@qa.debian.org>").as_deref(),
            Some("Organization: Debian QA Group (p@qa.debian.org)")
        );
        assert_eq!(actor("X <a@lists.x.org>").as_deref(), Some("Organization: X (a@lists.x.org)"));
        assert_eq!(actor("<a@b>").as_deref(), Some("Person: a@b"));
        assert_eq!(actor(" "), None);
    }
}
