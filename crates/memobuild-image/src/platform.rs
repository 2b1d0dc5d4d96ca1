//! Platforms: `os/architecture/variant`, normalised as containerd does (its package `platforms`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An operating system and processor that an image is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH: `amd64`, `arm64`, `arm`, ...
    #[serde(default)]
    pub architecture: String,
    /// GOOS: `linux`, ...
    #[serde(default)]
    pub os: String,
    /// Windows build.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Windows features.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Processor variant: `v7` of arm, `v2` of amd64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Not of the form `os[/arch[/variant]]`.
    #[error("{0:?} is an invalid component of a platform: expected os/architecture[/variant], like linux/arm64")]
    Form(String),
    /// A single word that is neither an operating system nor an architecture.
    #[error("{0:?}: unknown operating system or architecture: expected a platform like linux/amd64")]
    Unknown(String),
}

const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];
const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
];

impl Default for Platform {
    /// The machine that this runs on.
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        let variant = if architecture == "arm" { "v7" } else { "" };
        Self::new("linux", architecture, variant)
    }
}

impl Platform {
    /// A platform as these words name it, normalised.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, variant) = normalise(architecture, variant);
        Self { architecture, os, os_version: String::new(), os_features: Vec::new(), variant }
    }

    /// Whether an image for `self` can stand where `wanted` is asked for: the same, or the base variant of it.
    pub fn serves(&self, wanted: &Self) -> bool {
        let (a, b) = (self.normalised(), wanted.normalised());
        a.os == b.os
            && a.architecture == b.architecture
            && (a.variant == b.variant || a.variant.is_empty() || variant_rank(&a) < variant_rank(&b))
    }

    /// How well an image for `self` suits `wanted`; higher is better; `None`: not at all.
    pub fn fitness(&self, wanted: &Self) -> Option<u32> {
        self.serves(wanted).then(|| {
            let (a, b) = (self.normalised(), wanted.normalised());
            if a.variant == b.variant { u32::MAX } else { variant_rank(&a) }
        })
    }

    /// The same platform in containerd's normal form.
    pub fn normalised(&self) -> Self {
        let mut out = Self::new(&self.os, &self.architecture, &self.variant);
        out.os_version.clone_from(&self.os_version);
        out.os_features.clone_from(&self.os_features);
        out
    }
}

/// `v7` is 7; no variant is 0.
fn variant_rank(platform: &Platform) -> u32 {
    platform.variant.trim_start_matches('v').split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (a, v) => (a, v),
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        write!(f, "{}/{}", unknown(&self.os), unknown(&self.architecture))?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let form = || PlatformError::Form(text.to_owned());
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '(' | ')' | '+');
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|p| p.is_empty() || !p.chars().all(legal)) {
            return Err(form());
        }
        let host = Self::default();
        match *parts.as_slice() {
            [word] => {
                let lower = word.to_ascii_lowercase();
                let system = if lower == "macos" { "darwin" } else { &lower };
                if SYSTEMS.contains(&system) {
                    return Ok(Self::new(system, &host.architecture, &host.variant));
                }
                let (architecture, variant) = normalise(word, "");
                if ARCHITECTURES.contains(&architecture.as_str()) {
                    return Ok(Self::new("linux", &architecture, &variant));
                }
                Err(PlatformError::Unknown(text.to_owned()))
            }
            [os, architecture] => Ok(Self::new(os.split('(').next().unwrap_or(os), architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os.split('(').next().unwrap_or(os), architecture, variant)),
            _ => Err(form()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        text.parse::<Platform>().map_or_else(|e| format!("error: {e}"), |p| p.to_string())
    }

    #[test]
    fn texts_are_normalised_as_containerd_does() {
        assert_eq!(parse("linux/x86_64"), "linux/amd64");
        assert_eq!(parse("linux/arm64/v8"), "linux/arm64");
        assert_eq!(parse("linux/arm"), "linux/arm/v7");
        assert_eq!(parse("armhf"), "linux/arm/v7");
        assert_eq!(parse("Linux/ARM/6"), "linux/arm/v6");
        assert!(parse("bogus").starts_with("error"));
        assert!(parse("linux//x").starts_with("error"));
        assert!(parse("a/b/c/d").starts_with("error"));
    }

    #[test]
    fn older_variants_serve_newer_wishes_only() {
        let p = |t: &str| t.parse::<Platform>().unwrap();
        assert!(p("linux/arm/v6").serves(&p("linux/arm/v7")));
        assert!(!p("linux/arm/v7").serves(&p("linux/arm/v6")));
        assert!(!p("linux/amd64").serves(&p("linux/arm64")));
    }
}
