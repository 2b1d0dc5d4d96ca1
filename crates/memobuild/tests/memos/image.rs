//! What a build gave, in a form in which two builds can be compared.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use memobuild_oci::layer::parse_only;
use memobuild_tree::{Change, LinkId, Meta, Node, path};
use serde_json::Value;

use crate::{
    common::text,
    support::{Built, Project},
};

/// Files and config, one line for each: all that two builds of the same must share. A time counts unless it is about
/// now, since that is when something was written.
pub type Image = BTreeMap<String, String>;

/// Builds with a cache of its own or the project's, and gives what came out.
pub fn build(project: &Project, cache: &Path) -> (Built, Image) {
    let tar = project.place.path("../image.tar");
    let _ = fs::remove_file(&tar);
    let output = format!("type=tar,dest={}", tar.display());
    let run = |mut command: std::process::Command| command.env("MEMOBUILD_CACHE_DIR", cache).output().unwrap();
    let out = run(project.build_command(&["--output", &output, "--output", "type=image", "-t", "built"]));
    assert!(out.status.success(), "{}", text(&out.stderr));
    let mut image = files(&fs::read(&tar).unwrap());
    let config = run(project.command(&["inspect", "--raw=config", "built"]));
    assert!(config.status.success(), "{}", text(&config.stderr));
    let mut config: Value = serde_json::from_slice(&config.stdout).unwrap();
    untimed(&mut config);
    image.insert("config".into(), config.to_string());
    (Built::of(out), image)
}

/// Times of building, and layers, which hold times.
fn untimed(config: &mut Value) {
    let object = config.as_object_mut().unwrap();
    object.remove("created");
    object.remove("rootfs");
    for entry in object.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        entry.as_object_mut().unwrap().remove("created");
    }
}

fn files(tar: &[u8]) -> Image {
    let diff = parse_only(tar).unwrap();
    let mut names: HashMap<LinkId, Vec<String>> = HashMap::new();
    let mut image = Image::new();
    diff.walk(&mut |at, change| {
        let at = path::display(at);
        let line = match change {
            Change::Dir(dir) => format!("directory {}", meta(dir.meta.as_ref().unwrap())),
            Change::Put(Node::File(file)) => {
                if let Some(link) = file.link {
                    names.entry(link).or_default().push(at.clone());
                }
                format!("file {} {} {}", meta(&file.meta), file.size, file.content)
            }
            Change::Put(Node::Symlink(link)) => format!("link {} {}", meta(&link.meta), path::display(&link.target)),
            Change::Put(Node::Special(special)) => {
                format!("special {} {:?} {:?}", meta(&special.meta), special.kind, special.rdev)
            }
            other => panic!("{at}: {other:?} in a whole tree"),
        };
        image.insert(at, line);
    });
    for group in names.values() {
        for name in group {
            image.get_mut(name).unwrap().push_str(&format!(" one file: {}", group.join(" ")));
        }
    }
    image
}

fn meta(meta: &Meta) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let written = Duration::from_secs(meta.mtime.secs.try_into().unwrap_or_default());
    // Half an hour is longer than any of these tests.
    let time = if written.abs_diff(now) < Duration::from_secs(1800) {
        "now".into()
    } else {
        format!("{}.{}", meta.mtime.secs, meta.mtime.nanos)
    };
    let mut line = format!("{:04o} {}:{} {time}", meta.mode, meta.uid, meta.gid);
    for (name, value) in meta.xattrs.iter().flat_map(|x| x.iter()) {
        line.push_str(&format!(" {}={:?}", text(name), text(value)));
    }
    line
}

/// Lines in which two images differ.
pub fn differences(a: &Image, b: &Image) -> Vec<String> {
    let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
    let other = names.filter(|name| a.get(*name) != b.get(*name));
    other.map(|name| format!("{name}: {:?}, from nothing {:?}", a.get(name), b.get(name))).collect()
}
