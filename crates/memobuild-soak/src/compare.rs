//! Whether two images are the same, as identity means it: all but the times at which files happened to be written.

use crate::image::{Image, Node};

/// Times before this were set on purpose: all that the generator sets lie before it, and no clock does.
/// 2022-01-01.
const ON_PURPOSE: i64 = 1_640_995_200;

/// The differences, the first of each path, `a` against `b`. Empty: they are the same.
pub fn differences(a: &Image, b: &Image) -> Vec<String> {
    let mut out = Vec::new();
    if a.config != b.config {
        let show = |image: &Image| serde_json::to_string(&image.config).unwrap_or_default();
        out.push(format!("config:\n    {}\n    {}", show(a), show(b)));
    }
    let mut paths: Vec<&Vec<u8>> = a.names.keys().chain(b.names.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let (x, y) = (a.get(path), b.get(path));
        let same = match (x, y) {
            (Some(x), Some(y)) => same(x, y),
            _ => false,
        };
        if !same {
            let path = String::from_utf8_lossy(path).into_owned();
            out.push(format!("{}:\n    {}\n    {}", if path.is_empty() { "/" } else { &path }, show(x), show(y)));
        }
    }
    let (x, y) = (a.groups(), b.groups());
    for first in x.keys().chain(y.keys()) {
        if x.get(first) != y.get(first) {
            let show = |names: Option<&Vec<&[u8]>>| match names {
                Some(names) => String::from_utf8_lossy(&names.join(&b' ')).into_owned(),
                None => "in no group, or not first in it".into(),
            };
            let name = String::from_utf8_lossy(first);
            out.push(format!("names of {name}:\n    {}\n    {}", show(x.get(first)), show(y.get(first))));
        }
    }
    out
}

fn same(x: &Node, y: &Node) -> bool {
    let all_but_times = |n: &Node| Node { mtime: (0, String::new()), ..n.clone() };
    let on_purpose = |n: &Node| n.mtime.0 < ON_PURPOSE;
    all_but_times(x) == all_but_times(y) && (x.mtime == y.mtime || !on_purpose(x) && !on_purpose(y))
}

fn show(node: Option<&Node>) -> String {
    let Some(Node { kind, mode, uid, gid, mtime, xattrs, data }) = node else { return "not there".into() };
    let mut out = format!("{kind} {mode:04o} {uid}:{gid} {} bytes", data.len());
    if mtime.0 < ON_PURPOSE {
        out += &format!(" mtime {}.{}", mtime.0, mtime.1);
    }
    for (name, value) in xattrs {
        out += &format!(" {name}={:?}", String::from_utf8_lossy(value));
    }
    let data = String::from_utf8_lossy(data.get(..data.len().min(400)).unwrap_or_default());
    if data.is_empty() { out } else { format!("{out} {data:?}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn file(text: &str, mtime: i64) -> Node {
        Node {
            kind: "file",
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (mtime, String::new()),
            xattrs: BTreeMap::new(),
            data: text.as_bytes().into(),
        }
    }

    fn image(files: &[(&str, usize)], nodes: &[Node]) -> Image {
        let names = files.iter().map(|(p, n)| (p.as_bytes().to_vec(), *n)).collect();
        Image { names, nodes: nodes.to_vec(), config: serde_json::Value::Null }
    }

    #[test]
    fn only_times_on_purpose_count() {
        let at = |time| image(&[("/f", 0)], &[file("x", time)]);
        assert!(differences(&at(1_800_000_000), &at(1_900_000_000)).is_empty());
        assert_eq!(differences(&at(1_000_000_000), &at(1_000_000_001)).len(), 1);
        assert_eq!(differences(&at(1_000_000_000), &at(1_900_000_000)).len(), 1);
    }

    #[test]
    fn contents_names_and_link_groups_count() {
        let one = image(&[("/f", 0), ("/g", 0)], &[file("x", 0)]);
        assert!(differences(&one, &image(&[("/f", 0), ("/g", 0)], &[file("x", 0)])).is_empty());
        let two = image(&[("/f", 0), ("/g", 1)], &[file("x", 0), file("x", 0)]);
        assert_eq!(differences(&one, &two).len(), 1);
        assert_eq!(differences(&one, &image(&[("/f", 0)], &[file("x", 0)])).len(), 2);
        assert_eq!(differences(&one, &image(&[("/f", 0), ("/g", 0)], &[file("y", 0)])).len(), 2);
    }
}
