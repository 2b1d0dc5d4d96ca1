//! Go modules: the build information that Go's linker puts into programs (Go's `debug/buildinfo` and `runtime/debug`).

use std::io;

use super::{
    Ecosystem, Found, Package,
    elf::{Elf, number},
};
use crate::purl;

/// What build information starts with, at a multiple of [`ALIGN`].
const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGN: usize = 16;
/// How far into the data of a program it is looked for where no section names it, in bytes.
const SEARCH_LIMIT: u64 = 1 << 20;
/// The longest list of modules, in bytes; the largest programs known have some 100 KiB.
const INFO_LIMIT: u64 = 16 << 20;

/// The modules of a program; `None` if it is not Go's, or was linked without build information.
pub(super) fn find(elf: &Elf<'_>) -> io::Result<Option<Found>> {
    let (start, len) = match elf.section(".go.buildinfo") {
        Some(section) => section,
        // Those whose section table was stripped: only where that looks like Go's at all.
        None if elf.section(".text").is_some() => return Ok(None),
        None => match elf.data_segment() {
            Some(segment) => segment,
            None => return Ok(None),
        },
    };
    let bytes = elf.range(start, len.min(SEARCH_LIMIT))?;
    let aligned = bytes.chunks(ALIGN).position(|chunk| chunk.starts_with(MAGIC));
    let Some(head) = aligned.and_then(|chunk| bytes.get(chunk * ALIGN..)) else {
        return Ok(None);
    };
    let at = start + (bytes.len() - head.len()) as u64;
    let (Some(pointer_size), Some(flags)) = (head.get(14).copied(), head.get(15).copied()) else {
        return Ok(None);
    };
    // Bit 1: the two texts follow, each after its length; else two pointers to Go strings do.
    let texts = if flags & 2 != 0 {
        inline(elf, at + 32)?
    } else {
        let pointer = |n: usize| {
            let size = usize::from(pointer_size);
            number(head.get(ALIGN + n * size..ALIGN + (n + 1) * size).unwrap_or_default(), flags & 1 != 0)
        };
        let text = |n| match pointer(n) {
            Some(address) => string(elf, address, u64::from(pointer_size), flags & 1 != 0),
            None => Ok(Vec::new()),
        };
        Some((text(0)?, text(1)?))
    };
    Ok(texts.map(|(version, modules)| packages(&String::from_utf8_lossy(&version), &modules)))
}

/// Two texts, each after its length as a variable-length number.
fn inline(elf: &Elf<'_>, at: u64) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut at = at;
    let mut next = || -> io::Result<Option<Vec<u8>>> {
        let head = elf.range(at, 10)?;
        let mut len = 0u64;
        for (i, byte) in head.iter().enumerate() {
            len |= u64::from(byte & 0x7f).checked_shl(7 * i as u32).unwrap_or(0);
            if byte & 0x80 == 0 {
                if len > INFO_LIMIT {
                    return Ok(None);
                }
                let start = at + i as u64 + 1;
                at = start + len;
                return elf.range(start, len).map(Some);
            }
        }
        Ok(None)
    };
    let (version, modules) = (next()?, next()?);
    Ok(version.zip(modules))
}

/// A Go string: a pointer to its bytes, and their number.
fn string(elf: &Elf<'_>, address: u64, size: u64, big_endian: bool) -> io::Result<Vec<u8>> {
    let header = elf.at_address(address, 2 * size)?;
    let Some((pointer, len)) = header.split_at_checked(size as usize) else {
        return Ok(Vec::new());
    };
    match (number(pointer, big_endian), number(len, big_endian)) {
        (Some(pointer), Some(len)) if len <= INFO_LIMIT => elf.at_address(pointer, len),
        _ => Ok(Vec::new()),
    }
}

/// Lines `mod`, `dep`, `=>` (what the module before it was replaced by) and `build`, each with tabs between its words.
fn packages(go_version: &str, modules: &[u8]) -> Found {
    if !go_version.starts_with("go") && !go_version.starts_with("devel") {
        return Err(format!("build information without a Go version: {go_version:?}"));
    }
    // 16 bytes before and after the text let debuggers find it.
    let text = match modules.len().checked_sub(17).and_then(|end| modules.get(end)) {
        Some(b'\n') => modules.get(16..modules.len() - 16).unwrap_or_default(),
        _ => b"",
    };
    let text = String::from_utf8_lossy(text);
    let (mut path, mut main, mut revision) = ("", None, "");
    let mut dependencies: Vec<(&str, &str)> = Vec::new();
    let mut in_main = true;
    for line in text.lines() {
        let mut words = line.split('\t');
        let (key, first, second) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match key {
            Some("path") => path = first,
            Some("mod") => main = Some((first, second)),
            Some("dep") => {
                in_main = false;
                dependencies.push((first, second));
            }
            Some("=>") if in_main => main = Some((first, second)),
            Some("=>") => dependencies.last_mut().into_iter().for_each(|last| *last = (first, second)),
            Some("build") => revision = first.strip_prefix("vcs.revision=").unwrap_or(revision),
            _ => {}
        }
    }
    // Without a module it was built from a GOPATH: only the package is known then.
    let (name, version) = main.unwrap_or((path, ""));
    let version = if matches!(version, "" | "(devel)") { revision } else { version };
    // A go command of a distribution may add words: `go1.22.3 X:nocoverageredesign`.
    let standard = go_version.split(' ').next().and_then(|v| v.strip_prefix("go")).unwrap_or_default();
    let all = [(name, version), ("stdlib", standard)].into_iter().chain(dependencies);
    Ok(all.filter(|(name, _)| !name.is_empty()).map(|(name, version)| package(name, version)).collect())
}

fn package(module: &str, version: &str) -> Package {
    // A module that was replaced by a directory has its path for a name, and no version.
    let lower = module.to_lowercase();
    let (namespace, name) = lower.rsplit_once('/').unwrap_or(("", &lower));
    let url = purl::package("golang", namespace, name, version, &[]);
    Package::new(Ecosystem::Go, module, version, url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<String> {
        let info = [&[0; 16][..], text.as_bytes(), &[1; 16]].concat();
        packages("go1.22.3", &info).unwrap().into_iter().map(|p| p.purl).collect()
    }

    #[test]
    fn modules_replacements_and_revisions() {
        let text = "path\texample.org/App/cmd\nmod\texample.org/App\t(devel)\t\ndep\tgithub.com/A/b\tv1.0.0+incompatible\th1:x=\n\
            dep\tgolang.org/x/sys\tv0.1.0\n=>\texample.org/fork/sys\tv0.2.0\th1:y=\nbuild\tvcs.revision=abc\n";
        assert_eq!(
            urls(text),
            [
                "pkg:golang/example.org/app@abc",
                "pkg:golang/stdlib@1.22.3",
                "pkg:golang/github.com/a/b@v1.0.0%2Bincompatible",
                "pkg:golang/example.org/fork/sys@v0.2.0",
            ]
        );
    }

    #[test]
    fn without_modules_the_package_is_known() {
        assert_eq!(
            urls("path\texample.org/x/cmd\nbuild\t-compiler=gc\n"),
            ["pkg:golang/example.org/x/cmd", "pkg:golang/stdlib@1.22.3"]
        );
        assert!(packages("rubbish", b"").is_err());
    }
}
