//! Rust crates: the list that `cargo auditable` puts into programs (rust-secure-code/cargo-auditable, PARSING.md): JSON,
//! compressed by zlib, in the section `.dep-v0`.

use std::io::{self, Read as _};

use serde::Deserialize;

use super::{Ecosystem, Found, Package, elf::Elf};
use crate::purl;

/// The longest list, in bytes, compressed or not; the format's own parser takes 8 MiB.
const LIMIT: u64 = 8 << 20;

#[derive(Deserialize)]
struct List {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    /// `runtime` if it is left out, or `build`.
    #[serde(default)]
    kind: String,
}

/// The crates of a program; `None` if it holds no list.
pub(super) fn find(elf: &Elf<'_>) -> io::Result<Option<Found>> {
    let Some((offset, len)) = elf.section(".dep-v0") else {
        return Ok(None);
    };
    if len > LIMIT {
        return Ok(Some(Err(format!("a list of crates of {len} bytes"))));
    }
    Ok(Some(parse(&elf.range(offset, len)?)))
}

fn parse(compressed: &[u8]) -> Found {
    let mut json = Vec::new();
    let read = flate2::read::ZlibDecoder::new(compressed).take(LIMIT + 1).read_to_end(&mut json);
    if read.map_err(|e| format!("the list of crates: {e}"))? as u64 > LIMIT {
        return Err(format!("a list of crates of more than {LIMIT} bytes"));
    }
    let list: List = serde_json::from_slice(&json).map_err(|e| format!("the list of crates: {e}"))?;
    // Build dependencies ran while it was built; they are not in it.
    let linked = list.packages.into_iter().filter(|c| c.kind != "build");
    Ok(linked.map(|c| Package::new(Ecosystem::Cargo, &c.name, &c.version, url(&c))).collect())
}

fn url(c: &Crate) -> String {
    purl::package("cargo", "", &c.name, &c.version, &[])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn build_dependencies_are_not_in_the_program() {
        let json = br#"{"packages":[{"name":"app","version":"0.1.0","source":"local","root":true,"dependencies":[1]},
            {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"},
            {"name":"serde","version":"1.0.1","source":"crates.io"}]}"#;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(json).unwrap();
        let found = parse(&encoder.finish().unwrap()).unwrap();
        let urls: Vec<_> = found.iter().map(|p| p.purl.as_str()).collect();
        assert_eq!(urls, ["pkg:cargo/app@0.1.0", "pkg:cargo/serde@1.0.1"]);
        assert!(parse(b"rubbish").is_err());
    }
}
