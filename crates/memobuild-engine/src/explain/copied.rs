//! Where a COPY puts a path of its source, and where what it put came from: told from its flags, to be held against
//! what it made.

use memobuild_dockerfile::ignore::gomatch;
use memobuild_tree::{Tree, path};

use crate::{
    copy::has_wildcards,
    history::{CopyFrom, CopyPlaces},
};

/// Paths in the image at which a path of a source's tree may have come to stand, likeliest first. `dest` is the
/// destination with its links followed.
pub(super) fn targets(places: &CopyPlaces, source: &CopyFrom, from: &[u8], dest: &[u8]) -> Vec<Vec<u8>> {
    let parts = path::components(from);
    let pattern = path::components(source.pattern.as_bytes());
    if places.parents {
        // What stands before the pivot is left out, the rest keeps its path.
        let (before, kept) = parts.split_at_checked(source.pivot.unwrap_or(0)).unwrap_or((&parts, &[]));
        return if matches(&pattern, before) { vec![below(dest, kept)] } else { Vec::new() };
    }
    if parts.len() < pattern.len() || !matches(&pattern, &parts) {
        return Vec::new();
    }
    match parts.get(pattern.len()..).unwrap_or_default() {
        // A file goes under its name into a directory, or takes the destination's name; a directory's contents go
        // into the destination.
        [] => parts.last().map(|name| below(dest, &[name])).into_iter().chain([dest.to_vec()]).collect(),
        rest => vec![below(dest, rest)],
    }
}

/// The path in a source's tree that a path in the image came from, if that can be told, with the number of the step
/// that yields that tree.
pub(super) fn source_of(places: &CopyPlaces, at: &[u8], dest: &[u8]) -> Option<(usize, Vec<u8>)> {
    let parts = path::components(at);
    let rest = parts.strip_prefix(path::components(dest).as_slice())?;
    let mut found =
        places.sources.iter().filter_map(|source| Some((source.step, one_source_of(places, source, rest)?)));
    // Where several may have put it, none is named.
    found.next().filter(|_| found.next().is_none())
}

fn one_source_of(places: &CopyPlaces, source: &CopyFrom, rest: &[&[u8]]) -> Option<Vec<u8>> {
    let pattern = path::components(source.pattern.as_bytes());
    if places.parents {
        let before = pattern.get(..source.pivot.unwrap_or(0))?;
        return Some(path::from_components(&[before, rest].concat()));
    }
    let wild = |parts: &[&[u8]]| parts.iter().any(|part| has_wildcards(part));
    let Some((last, before)) = pattern.split_last() else { return Some(path::from_components(rest)) };
    if wild(before) {
        return None;
    }
    match rest {
        // One file that takes the destination's name.
        [] => (!wild(&[last])).then(|| path::from_components(&pattern)),
        [name] if matches(&[last], &[name]) => Some(path::from_components(&[before, &[*name]].concat())),
        // Something in a directory. Of several sources only directories are such, so this one may be none.
        _ if wild(&[last]) || (places.sources.len() > 1 && looks_like_a_file(last)) => None,
        rest => Some(path::from_components(&[pattern.as_slice(), rest].concat())),
    }
}

/// `package.json`, but not `.config` or `src`.
fn looks_like_a_file(name: &[u8]) -> bool {
    name.iter().rposition(|b| *b == b'.').is_some_and(|dot| dot > 0)
}

/// The destination with its links followed, where the tree below is known.
pub(super) fn destination(places: &CopyPlaces, parent: Option<&Tree>) -> Vec<u8> {
    let dest = places.dest.as_bytes();
    let found = parent.and_then(|tree| tree.resolve(dest, true).ok());
    found.map_or_else(|| path::clean(dest), |found| found.path)
}

/// Whether each component matches, as far as both go.
fn matches(pattern: &[&[u8]], parts: &[&[u8]]) -> bool {
    pattern.iter().zip(parts).all(|(pattern, part)| gomatch(pattern, part).unwrap_or(false))
}

fn below(dest: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    path::join(dest, &parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(sources: &[&str], dest: &str, parents: bool) -> CopyPlaces {
        let source = |pattern: &&str| {
            let (front, _) = pattern.split_once("/./").unwrap_or(("", pattern));
            CopyFrom {
                step: 1,
                pattern: path::display(&path::clean(pattern.as_bytes())),
                pivot: pattern.contains("/./").then(|| path::components(front.as_bytes()).len()),
            }
        };
        CopyPlaces {
            sources: sources.iter().map(source).collect(),
            dest: dest.into(),
            dest_is_dir: dest.ends_with('/'),
            parents,
        }
    }

    fn to(places: &CopyPlaces, from: &str) -> String {
        let all = places
            .sources
            .iter()
            .flat_map(|s| targets(places, s, from.as_bytes(), &path::clean(places.dest.as_bytes())));
        all.map(|p| path::display(&p)).collect::<Vec<_>>().join(" ")
    }

    fn back(places: &CopyPlaces, at: &str) -> Option<String> {
        source_of(places, at.as_bytes(), &path::clean(places.dest.as_bytes())).map(|(_, p)| path::display(&p))
    }

    #[test]
    fn a_path_of_the_context_is_followed_into_the_image_and_back() {
        let all = places(&["/"], "/app", false);
        assert_eq!(
            (to(&all, "/src/a.js").as_str(), back(&all, "/app/src/a.js").as_deref()),
            ("/app/src/a.js", Some("/src/a.js"))
        );
        let dir = places(&["/src"], "/app/s/", false);
        assert_eq!(
            (to(&dir, "/src/a/b").as_str(), back(&dir, "/app/s/a/b").as_deref()),
            ("/app/s/a/b", Some("/src/a/b"))
        );
        assert_eq!(to(&dir, "/other/a"), "");
        let file = places(&["/a.txt"], "/data/b", false);
        assert_eq!(
            (to(&file, "/a.txt").as_str(), back(&file, "/data/b").as_deref()),
            ("/data/b/a.txt /data/b", Some("/a.txt"))
        );
    }

    #[test]
    fn one_of_several_sources_is_found_by_its_name() {
        let two = places(&["/package.json", "/package-lock.json"], "/app/", false);
        assert_eq!(back(&two, "/app/package-lock.json").as_deref(), Some("/package-lock.json"));
        let mixed = places(&["/package.json", "/lib"], "/app/", false);
        assert_eq!(back(&mixed, "/app/x.js").as_deref(), Some("/lib/x.js"));
        let dirs = places(&["/a", "/b"], "/app/", false);
        assert_eq!(back(&dirs, "/app/x.js"), None);
    }

    #[test]
    fn wildcards_and_parents() {
        let glob = places(&["/src/*.js"], "/app/", false);
        assert_eq!(
            (to(&glob, "/src/a.js").as_str(), back(&glob, "/app/a.js").as_deref()),
            ("/app/a.js /app", Some("/src/a.js"))
        );
        assert_eq!((to(&glob, "/src/a.c").as_str(), back(&glob, "/app/a.c")), ("", None));
        let deep = places(&["/*/x.js"], "/app/", false);
        assert_eq!((to(&deep, "/src/x.js").as_str(), back(&deep, "/app/x.js")), ("/app/x.js /app", None));
        let kept = places(&["/a/./b/c"], "/app/", true);
        assert_eq!(
            (to(&kept, "/a/b/c/d").as_str(), back(&kept, "/app/b/c/d").as_deref()),
            ("/app/b/c/d", Some("/a/b/c/d"))
        );
    }
}
