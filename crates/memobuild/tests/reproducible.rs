//! The same inputs give the same bytes: in another directory, by another user, at another time, under another umask, with
//! another number of steps at once, in whatever compression, cached or not.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test")]

#[path = "memos/base.rs"]
mod base;
#[path = "common/mod.rs"]
mod common;
#[path = "memos/support.rs"]
mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use common::text;
use support::{Project, traced};

/// Owners, modes, links, times of writing, several stages at once, users made by a step.
const STEPS: &str = "\
FROM base AS one
RUN mkdir /o; for i in 1 2 3 4 5 6 7 8 9; do date > /dev/null; echo $i > /o/$i; done; ln /o/1 /o/hard; ln -s 2 /o/soft
FROM base AS two
RUN head -c 3000000 /dev/zero | tr '\\0' z > /large; chmod 4755 /large
FROM base
RUN echo 'app:x:1000:1000::/home/app:/bin/sh' >> /etc/passwd; mkdir -p /home/app; chown 1000:1000 /home/app
WORKDIR /work
COPY --chown=app . .
COPY --from=one /o /o
COPY --from=two /large /large
USER app
RUN touch /home/app/mine; umask > /home/app/umask
";

/// One way to build.
#[derive(Default)]
struct Way {
    name: &'static str,
    /// The directory is another, and so is the cache.
    umask: &'static str,
    day: Option<&'static str>,
    by_nobody: bool,
    flags: &'static [&'static str],
    /// On one processor only.
    alone: bool,
    /// The cache is that of the way before.
    cached: bool,
}

/// The layout that a way gives: names and contents of all its files, which digests stand for.
fn digests(project: &Project, way: &Way, output: &str) -> String {
    let top = project.place.path("..");
    let dir = project.place.path(&format!("../{}", way.name));
    let cache = if way.cached { "cache-last".to_owned() } else { format!("cache-{}", way.name) };
    let script = format!(
        "cp -r . '{dir}'; cp -r ../base '{dir}-base'; chmod 755 ..; [ -e ../memobuild ] || cp '{program}' ../memobuild
        [ {cached} = true ] || rm -rf ../cache-last",
        dir = dir.display(),
        program = env!("CARGO_BIN_EXE_memobuild"),
        cached = way.cached,
    );
    project.shell(&script);
    let mut line = Vec::new();
    if way.by_nobody {
        project.shell("chown -R 65534:65534 .. && echo 65534:200000:65536 > ../ranges");
        let script = "mount --bind ../ranges /etc/subuid; mount --bind ../ranges /etc/subgid; shift
            exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"";
        line.extend(["unshare", "--mount", "sh", "-ec", script, "x", "x"].map(str::to_owned));
    }
    if let Some(day) = way.day {
        line.extend(["/usr/bin/faketime".to_owned(), day.to_owned()]);
    }
    if way.alone {
        line.extend(["taskset", "-c", "0"].map(str::to_owned));
    }
    let sh = format!("umask {}; exec \"$@\"", way.umask);
    line.extend(["sh", "-ec", &sh, "x"].map(str::to_owned));
    let out = top.join(format!("{}.out", way.name));
    let build = [
        top.join("memobuild").display().to_string(),
        "build".into(),
        "--reproducible".into(),
        "--progress=plain".into(),
        format!("--build-context=base=oci-layout://{}-base", dir.display()),
        format!("--output=type=oci,tar=false,dest={}{output}", out.display()),
    ];
    line.extend(build);
    line.extend(way.flags.iter().map(|flag| (*flag).to_owned()));
    line.push(dir.display().to_string());
    let mut command = project.place.command(&line[0]);
    let cache = top.join(cache);
    let built = command.args(&line[1..]).env("MEMOBUILD_CACHE_DIR", &cache).output().unwrap();
    assert!(built.status.success(), "{}: {}", way.name, text(&built.stderr));
    if way.by_nobody {
        project.shell("chown -R 0:0 ..");
    }
    if !way.cached {
        fs::rename(&cache, top.join("cache-last")).unwrap();
    }
    let blobs = fs::read_dir(out.join("blobs/sha256")).unwrap();
    let mut names: Vec<String> = blobs.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    fs::remove_dir_all(&out).unwrap();
    names.join("\n")
}

fn ways() -> Vec<Way> {
    let root = rustix::process::geteuid().is_root() && Path::new("/usr/bin/newuidmap").exists();
    let faketime = Path::new("/usr/bin/faketime").exists();
    let mut ways = vec![
        Way { name: "plain", umask: "022", ..Way::default() },
        Way { name: "cached", umask: "022", cached: true, ..Way::default() },
        Way { name: "umask", umask: "077", ..Way::default() },
        Way { name: "elsewhere-and-anew", umask: "002", flags: &["--no-cache"], ..Way::default() },
        Way { name: "one-processor", umask: "022", alone: true, ..Way::default() },
        Way { name: "untraced", umask: "022", flags: &["--sandbox=exact"], ..Way::default() },
    ];
    match faketime {
        true => ways.push(Way { name: "later", umask: "022", day: Some("+400 days"), ..Way::default() }),
        false => println!("skipped: another time (needs faketime)"),
    }
    match root {
        true => ways.push(Way {
            name: "nobody",
            umask: "027",
            day: faketime.then_some("-400 days"),
            by_nobody: true,
            ..Way::default()
        }),
        false => println!("skipped: another user (needs root and newuidmap)"),
    }
    ways
}

#[test]
fn every_way_gives_the_same_bytes() {
    if !traced() {
        return;
    }
    let project = Project::new(STEPS, &[("a", "1"), ("sub/b", "2"), ("sub/run.sh", "#!/bin/sh\n")]);
    project.shell("chmod 755 sub sub/run.sh; chmod 644 a sub/b; umask 022");
    fs::set_permissions(project.place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    for output in ["", ",compression=zstd", ",compression=uncompressed"] {
        let mut first: Option<String> = None;
        for way in ways() {
            let found = digests(&project, &way, output);
            let wanted = first.get_or_insert_with(|| found.clone());
            assert_eq!(&found, wanted, "{} {output}", way.name);
            project.shell(&format!("rm -rf ../{0} ../{0}-base", way.name));
        }
    }
}
